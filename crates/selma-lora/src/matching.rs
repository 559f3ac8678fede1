//! Does an adapter belong to a model?

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use serde::Serialize;

use crate::{Adapter, AdapterFile, LoraError, Mixture};

/// How the modules of an adapter meet those of a model.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct LoadReport {
    /// Modules of the adapter that fit a weight of the model.
    pub matched: Vec<String>,
    /// Modules of the adapter that the model does not have.
    pub unmatched: Vec<String>,
    /// Modules of the model that the adapter leaves alone.
    pub missing: Vec<String>,
    /// Modules that exist in the model with a weight of another shape.
    pub mis_shaped: Vec<MisShaped>,
    /// Matched modules whose update is zero, as in an untrained adapter.
    pub zero: Vec<String>,
    /// Matched modules that hold NaN or infinity. Files with such values are not read at all, so that
    /// only adapters made in memory have them.
    pub non_finite: Vec<String>,
}

/// A module whose factors do not fit the model's weight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MisShaped {
    /// The module's path.
    pub module: String,
    /// The shape of the model's weight, `[out, in]` or `[out, in, kh, kw]`.
    pub expected: Vec<usize>,
    /// The shape of the weight that the adapter was made for.
    pub found: Vec<usize>,
}

impl LoadReport {
    /// Refuses an adapter of which a part would have no effect.
    ///
    /// # Errors
    /// [`LoraError::NotStrict`] when modules are unmatched or mis-shaped, [`LoraError::NonFinite`]
    /// when one holds NaN or infinity.
    pub fn strict(self) -> Result<Self, LoraError> {
        if let Some(key) = self.non_finite.first() {
            return Err(LoraError::NonFinite { key: key.clone() });
        }
        if self.unmatched.is_empty() && self.mis_shaped.is_empty() {
            return Ok(self);
        }
        Err(LoraError::NotStrict {
            unmatched: self.unmatched,
            mis_shaped: self
                .mis_shaped
                .iter()
                .map(|m| {
                    format!(
                        "{}: model {:?}, adapter {:?}",
                        m.module, m.expected, m.found
                    )
                })
                .collect(),
        })
    }
}

impl Adapter {
    /// Compares the adapter with the modules of a model: dotted path with component, and the shape
    /// of the weight, `[out, in]` or `[out, in, kh, kw]`.
    ///
    /// A 1x1 convolution and a linear layer are the same here, as Stable Diffusion 1 and 2 differ
    /// in nothing else at `proj_in` and `proj_out`.
    ///
    /// # Errors
    /// [`LoraError::NothingMatched`] when no module of the adapter fits.
    pub fn match_modules<'a>(
        &self,
        model: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
    ) -> Result<LoadReport, LoraError> {
        report(model, self.candidates())
    }

    /// Like [`match_modules`](Self::match_modules), of the adapter's modules in one component of a pipeline, such as `unet`.
    ///
    /// # Errors
    /// [`LoraError::NothingMatched`] when no module of the component fits.
    pub fn match_component<'a>(
        &self,
        component: &str,
        model: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
    ) -> Result<LoadReport, LoraError> {
        report(
            model,
            self.candidates().filter(|module| module.is_in(component)),
        )
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.modules.iter().map(|(path, module)| Candidate {
            path,
            shape: module.weight_shape(),
            flat: false,
            zero: module.is_zero(),
            finite: module.is_finite(),
        })
    }
}

impl AdapterFile {
    /// Compares the updates of every kind with the modules of a model, like
    /// [`Adapter::match_modules`].
    ///
    /// # Errors
    /// [`LoraError::NothingMatched`] when no update fits.
    pub fn match_modules<'a>(
        &self,
        model: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
    ) -> Result<LoadReport, LoraError> {
        report(model, self.candidates())
    }

    /// Compares the updates of one component like [`Adapter::match_component`].
    ///
    /// # Errors
    /// [`LoraError::NothingMatched`] when no update of the component fits.
    pub fn match_component<'a>(
        &self,
        component: &str,
        model: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
    ) -> Result<LoadReport, LoraError> {
        report(
            model,
            self.candidates().filter(|update| update.is_in(component)),
        )
    }

    fn candidates(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.updates.iter().map(|(path, update)| Candidate {
            path,
            shape: update.weight_shape(),
            flat: update.may_be_flat(),
            zero: update.is_zero(),
            finite: update.is_finite(),
        })
    }
}

impl Mixture {
    /// Compares the layers of one component with those of a model like [`Adapter::match_component`].
    ///
    /// # Errors
    /// [`LoraError::NothingMatched`] when no layer of the component fits.
    pub fn match_component<'a>(
        &self,
        component: &str,
        model: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
    ) -> Result<LoadReport, LoraError> {
        let candidates = self.modules.iter().map(|(path, module)| {
            let is_zero = |factor: &Array2<f32>| factor.iter().all(|&x| x == 0.0);
            let is_finite = |matrix: &Array2<f32>| matrix.iter().all(|x| x.is_finite());
            Candidate {
                path,
                shape: module.weight_shape(),
                flat: false,
                zero: is_zero(&module.down) || is_zero(&module.up),
                finite: [&module.down, &module.up, &module.gate]
                    .into_iter()
                    .all(is_finite),
            }
        });
        report(model, candidates.filter(|module| module.is_in(component)))
    }
}

/// What matching needs to know of one update.
struct Candidate<'a> {
    path: &'a String,
    shape: Vec<usize>,
    flat: bool,
    zero: bool,
    finite: bool,
}

impl Candidate<'_> {
    fn is_in(&self, component: &str) -> bool {
        let rest = self.path.strip_prefix(component);
        rest.is_some_and(|rest| rest.starts_with('.'))
    }
}

fn report<'a, 'b>(
    model: impl IntoIterator<Item = &'a (String, Vec<usize>)>,
    candidates: impl Iterator<Item = Candidate<'b>>,
) -> Result<LoadReport, LoraError> {
    let weights: BTreeMap<&str, &Vec<usize>> = model
        .into_iter()
        .map(|(path, shape)| (path.as_str(), shape))
        .collect();
    let mut report = LoadReport::default();
    let mut missing: BTreeSet<&str> = weights.keys().copied().collect();
    for candidate in candidates {
        let path = candidate.path;
        missing.remove(path.as_str());
        match weights.get(path.as_str()) {
            None => report.unmatched.push(path.clone()),
            Some(expected) if fits(expected, &candidate.shape, candidate.flat) => {
                report.matched.push(path.clone());
                if candidate.zero {
                    report.zero.push(path.clone());
                }
                if !candidate.finite {
                    report.non_finite.push(path.clone());
                }
            }
            Some(expected) => report.mis_shaped.push(MisShaped {
                module: path.clone(),
                expected: (*expected).clone(),
                found: candidate.shape,
            }),
        }
    }
    report.missing = missing.into_iter().map(str::to_owned).collect();
    if !report.matched.is_empty() {
        return Ok(report);
    }
    if !report.mis_shaped.is_empty() {
        return report.strict();
    }
    Err(LoraError::NothingMatched {
        adapter: report.unmatched.into_iter().take(3).collect(),
        model: weights
            .keys()
            .take(3)
            .map(|path| (*path).to_owned())
            .collect(),
    })
}

/// An update of the shape `found` can be added to `weight`; `flat` if its kernel may be multiplied
/// into its inputs.
pub(crate) fn fits(weight: &[usize], found: &[usize], flat: bool) -> bool {
    let flattened = match weight {
        [outputs, rest @ ..] => [*outputs, rest.iter().product()],
        [] => return false,
    };
    same_weight(weight, found) || (flat && found == flattened)
}

/// Equal, once the kernel of a 1x1 convolution is left out.
pub(crate) fn same_weight(x: &[usize], y: &[usize]) -> bool {
    fn linear(shape: &[usize]) -> &[usize] {
        match shape.split_at_checked(2) {
            Some((ends, kernel)) if kernel.iter().all(|&k| k == 1) => ends,
            _ => shape,
        }
    }
    linear(x) == linear(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    fn adapter(modules: &[(&str, &[usize])]) -> Adapter {
        Adapter::new(modules.iter().map(|&(path, shape)| {
            let mut module = init::gaussian(path, shape, 2, 2.0, 0).unwrap();
            module.b.fill(1.0);
            (path.to_owned(), module)
        }))
    }

    fn model(modules: &[(&str, &[usize])]) -> Vec<(String, Vec<usize>)> {
        modules
            .iter()
            .map(|(path, shape)| ((*path).to_owned(), shape.to_vec()))
            .collect()
    }

    #[test]
    fn every_module_is_accounted_for() {
        let mut adapter = adapter(&[
            ("unet.a", &[4, 3]),
            ("unet.b", &[4, 3, 3, 3]),
            ("unet.c", &[4, 3]),
            ("unet.proj_in", &[4, 4]),
            ("unet.x", &[4, 3]),
        ]);
        adapter.modules.get_mut("unet.a").unwrap().b.fill(0.0);
        let model = model(&[
            ("unet.a", &[4, 3]),
            ("unet.b", &[4, 3, 3, 3]),
            ("unet.c", &[4, 5]),
            ("unet.d", &[4, 5]),
            ("unet.proj_in", &[4, 4, 1, 1]),
        ]);
        let report = adapter.match_modules(&model).unwrap();
        assert_eq!(report.matched, ["unet.a", "unet.b", "unet.proj_in"]);
        assert_eq!(report.unmatched, ["unet.x"]);
        assert_eq!(report.missing, ["unet.d"]);
        assert_eq!(report.zero, ["unet.a"]);
        assert_eq!(report.mis_shaped.len(), 1);
        assert_eq!(report.mis_shaped[0].expected, [4, 5]);
        assert_eq!(report.mis_shaped[0].found, [4, 3]);
        let error = report.strict().unwrap_err().to_string();
        assert!(
            error.contains("unet.x") && error.contains("unet.c"),
            "{error}"
        );
    }

    #[test]
    fn values_that_are_not_finite_are_reported() {
        let mut adapter = adapter(&[("unet.a", &[4, 3]), ("unet.b", &[4, 3])]);
        adapter.modules.get_mut("unet.b").unwrap().a[[1, 2]] = f32::INFINITY;
        let model = model(&[("unet.a", &[4, 3]), ("unet.b", &[4, 3])]);
        let report = adapter.match_modules(&model).unwrap();
        assert_eq!(report.matched.len(), 2);
        assert_eq!(report.non_finite, ["unet.b"]);
        let error = report.strict().unwrap_err();
        assert!(matches!(error, LoraError::NonFinite { key } if key == "unet.b"));
    }

    #[test]
    fn nothing_matched_is_an_error_that_shows_both_sides() {
        let adapter = adapter(&[("unet.a", &[4, 3])]);
        let error = adapter
            .match_modules(&model(&[("text_encoder.z", &[4, 3])]))
            .unwrap_err();
        assert!(matches!(error, LoraError::NothingMatched { .. }));
        let text = error.to_string();
        assert!(
            text.contains("unet.a") && text.contains("text_encoder.z"),
            "{text}"
        );

        let error = adapter
            .match_modules(&model(&[("unet.a", &[4, 9])]))
            .unwrap_err();
        assert!(error.to_string().contains("[4, 9]"), "{error}");
    }

    #[test]
    fn a_convolution_is_no_linear_layer() {
        assert!(same_weight(&[4, 3], &[4, 3, 1, 1]));
        assert!(!same_weight(&[4, 3], &[4, 3, 3, 3]));
        assert!(!same_weight(&[4, 27], &[4, 3, 3, 3]));
        assert!(!same_weight(&[4], &[4, 3]));
    }
}
