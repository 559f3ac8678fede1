//! Adapters from two models: what training changed.

use ndarray::{Array2, ArrayD, ArrayViewD};
use serde::Serialize;
use serde_json::json;

use crate::{Adapter, Cut, LoraError, LoraModule, RankRule, batches::in_batches, rank::total};

/// A layer before and after training.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightPair {
    /// The module's path with its component, `unet.conv_in`.
    pub module: String,
    /// The weight before, `[out, in]` or `[out, in, kh, kw]`.
    pub base: ArrayD<f32>,
    /// The weight after, of the same shape.
    pub tuned: ArrayD<f32>,
}

/// What [`Adapter::extract`] found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExtractReport {
    /// How ranks were chosen.
    pub rule: RankRule,
    /// Frobenius norm of the whole difference.
    pub norm: f64,
    /// Frobenius norm of what was cut off, relative to `norm`.
    pub error: f64,
    /// Every module that differs, in the order they came.
    pub modules: Vec<ExtractedModule>,
    /// Modules without any difference, which the adapter does not have.
    pub unchanged: Vec<String>,
}

/// What [`Adapter::extract`] found in one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExtractedModule {
    /// The module's path.
    pub module: String,
    /// The rank, and what it cost.
    #[serde(flatten)]
    pub cut: Cut,
}

impl LoraModule {
    /// A LoRA from a layer before and after training: the best approximation of `tuned - base`, both
    /// `[out, in]` or `[out, in, kh, kw]`. The difference is formed in `f64`.
    ///
    /// # Errors
    /// [`LoraError::WeightShapes`] when the two shapes differ, and as [`from_delta`](Self::from_delta).
    ///
    /// ```
    /// use ndarray::{ArrayD, IxDyn};
    /// use selma_lora::{LoraModule, RankRule};
    ///
    /// let base = ArrayD::<f32>::zeros(IxDyn(&[6, 4]));
    /// let tuned = ArrayD::<f32>::ones(IxDyn(&[6, 4]));
    /// let (module, cut) = LoraModule::from_difference(&base.view(), &tuned.view(), RankRule::Number(1))?;
    /// assert_eq!(module.weight_shape(), [6, 4]);
    /// assert!(cut.error < 1e-6);
    /// # Ok::<(), selma_lora::LoraError>(())
    /// ```
    pub fn from_difference(
        base: &ArrayViewD<'_, f32>,
        tuned: &ArrayViewD<'_, f32>,
        rule: RankRule,
    ) -> Result<(Self, Cut), LoraError> {
        let shape = base.shape();
        if shape != tuned.shape() {
            return Err(LoraError::WeightShapes {
                expected: shape.to_vec(),
                found: tuned.shape().to_vec(),
            });
        }
        let rows = shape.first().copied().unwrap_or(0);
        let columns = shape.iter().skip(1).product();
        let mut pairs = base.iter().zip(tuned);
        let delta = Array2::from_shape_simple_fn((rows, columns), || {
            pairs
                .next()
                .map_or(0.0, |(&x, &y)| f64::from(y) - f64::from(x))
        });
        Self::from_delta(&delta, shape, rule)
    }
}

impl Adapter {
    /// An adapter that turns one model into another as well as the ranks allow: a LoRA from the
    /// difference of every pair of weights, see [`LoraModule::from_difference`]. As many pairs are taken at a time
    /// as there are threads, so that no more need to be in memory. The metadata gets the entry
    /// `selma_extract` with the rule; a caller that knows the SHA-256 of the two models adds them.
    ///
    /// # Errors
    /// What `pairs` gives; around the module concerned ([`LoraError::InModule`]) what
    /// [`LoraModule::from_difference`] finds; [`LoraError::Duplicate`] for a module that comes twice.
    ///
    /// ```
    /// use ndarray::{ArrayD, IxDyn};
    /// use selma_lora::{Adapter, LoraError, RankRule, WeightPair};
    ///
    /// let weight = |value: f32| ArrayD::from_elem(IxDyn(&[6, 4]), value);
    /// let pair = |module: &str, base, tuned| {
    ///     Ok::<_, LoraError>(WeightPair { module: module.to_owned(), base, tuned })
    /// };
    /// let (adapter, report) = Adapter::extract(
    ///     [pair("unet.a", weight(1.0), weight(1.5)), pair("unet.b", weight(1.0), weight(1.0))],
    ///     RankRule::Energy(0.99),
    /// )?;
    /// assert_eq!(adapter.modules["unet.a"].rank(), 1);
    /// assert_eq!(report.unchanged, ["unet.b"]);
    /// # Ok::<(), LoraError>(())
    /// ```
    pub fn extract<E: From<LoraError>>(
        pairs: impl IntoIterator<Item = Result<WeightPair, E>>,
        rule: RankRule,
    ) -> Result<(Self, ExtractReport), E> {
        rule.check()?;
        let mut adapter = Self::default();
        let (mut modules, mut unchanged) = (Vec::new(), Vec::new());
        let work = |pair: WeightPair| {
            let WeightPair {
                module,
                base,
                tuned,
            } = pair;
            let differs = base != tuned;
            let lora = differs.then(|| {
                LoraModule::from_difference(&base.view(), &tuned.view(), rule)
                    .map_err(|error| error.in_module(&module))
            });
            (module, lora.transpose())
        };
        in_batches(pairs, work, |(module, lora)| {
            if adapter.modules.contains_key(&module) || unchanged.contains(&module) {
                return Err(LoraError::Duplicate {
                    first: module.clone(),
                    second: module.clone(),
                    part: "weight",
                    module,
                }
                .into());
            }
            match lora? {
                None => unchanged.push(module),
                Some((lora, cut)) => {
                    adapter.modules.insert(module.clone(), lora);
                    modules.push(ExtractedModule { module, cut });
                }
            }
            Ok::<(), E>(())
        })?;
        let recipe = json!({"rule": rule}).to_string();
        adapter.metadata.insert("selma_extract".to_owned(), recipe);
        let (norm, error) = total(modules.iter().map(|module| module.cut));
        let report = ExtractReport {
            rule,
            norm,
            error,
            modules,
            unchanged,
        };
        Ok((adapter, report))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;
    use crate::init;

    fn relative(module: &LoraModule, to: &Array2<f64>) -> f64 {
        let norm = |x: Array2<f64>| x.mapv(|x| x * x).sum().sqrt();
        norm(module.delta_f64().unwrap() - to) / norm(to.clone())
    }

    #[test]
    fn a_difference_of_weights_becomes_a_lora() {
        let shape = [8, 3, 3, 3];
        let mut update = init::gaussian("x", &shape, 2, 2.0, 0).unwrap();
        update.b = init::gaussian_a("b", 8, 2, 1)
            .into_dyn()
            .into_shape_with_order(vec![8, 2, 1, 1])
            .unwrap();
        let delta = update
            .delta()
            .unwrap()
            .into_dyn()
            .into_shape_with_order(shape.to_vec())
            .unwrap();
        let base = ArrayD::from_elem(IxDyn(&shape), 0.5_f32);
        let tuned = &base + &delta;
        let (module, cut) =
            LoraModule::from_difference(&base.view(), &tuned.view(), RankRule::Energy(0.999_999))
                .unwrap();
        assert_eq!((cut.rank, module.weight_shape()), (2, shape.to_vec()));
        assert!(relative(&module, &update.delta_f64().unwrap()) < 1e-5);

        // Taller than wide, and views that do not lie in order.
        let tall = ArrayD::from_shape_fn(IxDyn(&[9, 4]), |i| (i[0] * 7 + i[1] * 5) as f32 % 11.0);
        let zero = ArrayD::zeros(IxDyn(&[4, 9]));
        let view = tall.t();
        let (module, _) =
            LoraModule::from_difference(&zero.view(), &view, RankRule::Number(4)).unwrap();
        let wanted = Array2::from_shape_fn((4, 9), |(i, j)| f64::from(tall[[j, i]]));
        assert!(relative(&module, &wanted) < 1e-6);
    }

    #[test]
    fn weights_of_different_shapes_or_without_values_are_refused() {
        let rule = RankRule::Number(1);
        let (x, y) = (ArrayD::zeros(IxDyn(&[4, 6])), ArrayD::zeros(IxDyn(&[6, 4])));
        let error = LoraModule::from_difference(&x.view(), &y.view(), rule).unwrap_err();
        assert!(matches!(error, LoraError::WeightShapes { .. }));
        let (x, nan) = (
            ArrayD::zeros(IxDyn(&[4, 6])),
            ArrayD::from_elem(IxDyn(&[4, 6]), f32::NAN),
        );
        let error = LoraModule::from_difference(&x.view(), &nan.view(), rule).unwrap_err();
        assert!(matches!(error, LoraError::NoConvergence));
    }

    #[test]
    fn pairs_are_taken_one_at_a_time() {
        let weight = |value: f32| ArrayD::from_elem(IxDyn(&[6, 4]), value);
        let pair = |module: &str, base, tuned| {
            let module = module.to_owned();
            Ok::<_, LoraError>(WeightPair {
                module,
                base,
                tuned,
            })
        };
        let rule = RankRule::Number(2);
        let twice = [
            pair("unet.a", weight(1.0), weight(2.0)),
            pair("unet.a", weight(1.0), weight(3.0)),
        ];
        let error = Adapter::extract(twice, rule).unwrap_err();
        assert!(matches!(error, LoraError::Duplicate { part: "weight", .. }));

        // What the source of the weights says comes first, and nothing after it is asked for.
        let mut asked = 0;
        let failing = std::iter::from_fn(|| {
            asked += 1;
            Some(if asked == 2 {
                Err(LoraError::Empty)
            } else {
                pair("unet.a", weight(1.0), weight(2.0))
            })
        });
        assert!(matches!(
            Adapter::extract(failing, rule),
            Err(LoraError::Empty)
        ));
        assert_eq!(asked, 2);

        let other = ArrayD::zeros(IxDyn(&[6, 5]));
        let error = Adapter::extract([pair("unet.a", weight(1.0), other)], rule).unwrap_err();
        assert!(error.to_string().contains("unet.a"), "{error}");
        let none: [Result<WeightPair, LoraError>; 0] = [];
        assert!(matches!(
            Adapter::extract(none, RankRule::Number(0)),
            Err(LoraError::ZeroRank)
        ));
    }
}
