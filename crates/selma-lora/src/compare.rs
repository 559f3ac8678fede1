//! How two adapters differ.

use faer::Mat;
use rayon::prelude::*;
use serde::Serialize;

use crate::{Adapter, LoraError, LoraModule, matching::same_weight};

/// How two adapters differ, made by [`Adapter::compare`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Frobenius norm of the first adapter's update.
    pub first_norm: f64,
    /// Frobenius norm of the second adapter's update.
    pub second_norm: f64,
    /// Frobenius norm of the second update minus the first.
    pub distance: f64,
    /// `distance` relative to `first_norm`; `None` when that is zero.
    pub relative: Option<f64>,
    /// Cosine of the angle between the two updates; `None` when one is zero.
    pub cosine: Option<f64>,
    /// Modules that both adapters have, by path.
    pub modules: Vec<ModuleComparison>,
    /// Modules of the first adapter alone. In the figures above they count as zero in the second.
    pub only_first: Vec<String>,
    /// Modules of the second adapter alone.
    pub only_second: Vec<String>,
}

/// One line of a [`Comparison`], with the same figures for one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleComparison {
    /// The module's path.
    pub module: String,
    /// The ranks in both adapters.
    pub ranks: [usize; 2],
    /// Frobenius norm of the first update.
    pub first_norm: f64,
    /// Frobenius norm of the second update.
    pub second_norm: f64,
    /// Frobenius norm of the second update minus the first.
    pub distance: f64,
    /// `distance` relative to `first_norm`; `None` when that is zero.
    pub relative: Option<f64>,
    /// Cosine of the angle between the two updates; `None` when one is zero.
    pub cosine: Option<f64>,
}

/// What two updates come to: squared norms and inner product.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    first: f64,
    second: f64,
    distance: f64,
    inner: f64,
}

impl Sums {
    fn add(self, other: Self) -> Self {
        Self {
            first: self.first + other.first,
            second: self.second + other.second,
            distance: self.distance + other.distance,
            inner: self.inner + other.inner,
        }
    }

    fn relative(self) -> Option<f64> {
        (self.first > 0.0).then(|| (self.distance / self.first).sqrt())
    }

    fn cosine(self) -> Option<f64> {
        let norms = self.first.sqrt() * self.second.sqrt();
        (norms > 0.0).then(|| (self.inner / norms).clamp(-1.0, 1.0))
    }
}

impl Adapter {
    /// Compares two adapters module by module, without forming `dW` while the factors are smaller.
    ///
    /// # Errors
    /// Around the module concerned ([`LoraError::InModule`]): [`LoraError::WeightShapes`] when the
    /// adapters were made for different models, [`LoraError::FactorShapes`].
    ///
    /// ```
    /// use selma_lora::{Adapter, init};
    ///
    /// let path = "unet.conv_in";
    /// let mut module = init::gaussian(path, &[8, 4, 3, 3], 2, 2.0, 0)?;
    /// module.b.fill(1.0);
    /// let first = Adapter::new([(path.to_owned(), module.clone())]);
    /// module.alpha = -4.0; // minus twice the update
    /// let second = Adapter::new([(path.to_owned(), module)]);
    /// let comparison = first.compare(&second)?;
    /// assert!((comparison.relative.unwrap_or(0.0) - 3.0).abs() < 1e-12);
    /// assert!((comparison.cosine.unwrap_or(0.0) + 1.0).abs() < 1e-12);
    /// # Ok::<(), selma_lora::LoraError>(())
    /// ```
    pub fn compare(&self, other: &Self) -> Result<Comparison, LoraError> {
        let both = self
            .modules
            .par_iter()
            .filter_map(|(path, first)| Some((path, first, other.modules.get(path)?)))
            .map(|(path, first, second)| {
                let sums = sums(Some(first), Some(second)).map_err(|e| e.in_module(path))?;
                let line = ModuleComparison {
                    module: path.clone(),
                    ranks: [first.rank(), second.rank()],
                    first_norm: sums.first.sqrt(),
                    second_norm: sums.second.sqrt(),
                    distance: sums.distance.sqrt(),
                    relative: sums.relative(),
                    cosine: sums.cosine(),
                };
                Ok((line, sums))
            })
            .collect::<Result<Vec<_>, LoraError>>()?;
        let mut total = both
            .iter()
            .map(|(_, sums)| *sums)
            .fold(Sums::default(), Sums::add);
        let mut alone = |these: &Self, those: &Self, first: bool| {
            let mut names = Vec::new();
            for (path, module) in &these.modules {
                if !those.modules.contains_key(path) {
                    let pair = if first {
                        (Some(module), None)
                    } else {
                        (None, Some(module))
                    };
                    total = total.add(sums(pair.0, pair.1).map_err(|e| e.in_module(path))?);
                    names.push(path.clone());
                }
            }
            Ok::<_, LoraError>(names)
        };
        let only_first = alone(self, other, true)?;
        let only_second = alone(other, self, false)?;
        Ok(Comparison {
            first_norm: total.first.sqrt(),
            second_norm: total.second.sqrt(),
            distance: total.distance.sqrt(),
            relative: total.relative(),
            cosine: total.cosine(),
            modules: both.into_iter().map(|(line, _)| line).collect(),
            only_first,
            only_second,
        })
    }
}

/// Squared norms and inner product of two updates of one weight, of which one may be absent.
///
/// With `[B_1 B_2] = Q R` and `[A_1^T A_2^T] = P S`, the updates are `Q R_i S_i^T P^T`: their small
/// cores have the same norms and products, and the difference of two equal updates is zero but for
/// rounding, which the difference of their squared norms would not be.
fn sums(first: Option<&LoraModule>, second: Option<&LoraModule>) -> Result<Sums, LoraError> {
    let present = || [first, second].into_iter().flatten();
    for module in present() {
        module.check()?;
    }
    if let (Some(first), Some(second)) = (first, second)
        && !same_weight(&first.weight_shape(), &second.weight_shape())
    {
        return Err(LoraError::WeightShapes {
            expected: first.weight_shape(),
            found: second.weight_shape(),
        });
    }
    let rank: usize = present().map(LoraModule::rank).sum();
    let rows = present().map(LoraModule::outputs).max().unwrap_or(0);
    let columns = present().map(LoraModule::inputs).max().unwrap_or(0);
    let mut b = Mat::zeros(rows, rank);
    let mut a = Mat::zeros(columns, rank);
    let mut start = 0;
    for module in present() {
        let r = module.rank();
        let scaled = faer::Scale(module.scale()) * module.b_turned();
        b.subcols_mut(start, r).copy_from(scaled.transpose());
        a.subcols_mut(start, r).copy_from(module.a_turned());
        start += r;
    }
    if rank < rows.min(columns) {
        b = b.qr().thin_R().to_owned();
        a = a.qr().thin_R().to_owned();
    }
    let core = |start: usize, module: Option<&LoraModule>| {
        let r = module.map_or(0, LoraModule::rank);
        b.subcols(start, r) * a.subcols(start, r).transpose()
    };
    let x = core(0, first);
    let y = core(first.map_or(0, LoraModule::rank), second);
    let inner = x
        .col_iter()
        .zip(y.col_iter())
        .map(|(x, y)| x.iter().zip(y.iter()).map(|(x, y)| x * y).sum::<f64>())
        .sum();
    Ok(Sums {
        first: x.squared_norm_l2(),
        second: y.squared_norm_l2(),
        distance: (&y - &x).squared_norm_l2(),
        inner,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    fn module(path: &str, rank: usize, alpha: f64, seed: u64) -> LoraModule {
        let mut module = init::gaussian(path, &[7, 5, 3, 3], rank, alpha, seed).unwrap();
        let b = init::gaussian_a(path, 7, rank, seed + 1).into_dyn();
        module.b = b.into_shape_with_order(vec![7, rank, 1, 1]).unwrap();
        module
    }

    fn adapter(modules: &[(&str, LoraModule)]) -> Adapter {
        Adapter::new(
            modules
                .iter()
                .map(|(path, m)| ((*path).to_owned(), m.clone())),
        )
    }

    #[test]
    fn figures_are_those_of_the_dense_updates() {
        // Through the small core, and dense for the larger ranks.
        for (r1, r2) in [(2, 3), (1, 1), (4, 6)] {
            let (x, y) = (module("x", r1, -1.5, 1), module("x", r2, 2.0, 5));
            let (dx, dy) = (x.delta_f64().unwrap(), y.delta_f64().unwrap());
            let norm = |d: &ndarray::Array2<f64>| d.mapv(|x| x * x).sum().sqrt();
            let comparison = adapter(&[("x", x)]).compare(&adapter(&[("x", y)])).unwrap();
            let line = &comparison.modules[0];
            let close = |x: f64, y: f64| (x - y).abs() < 1e-12 * (1.0 + y.abs());
            assert_eq!(line.ranks, [r1, r2]);
            assert!(close(line.first_norm, norm(&dx)) && close(line.second_norm, norm(&dy)));
            assert!(close(line.distance, norm(&(&dy - &dx))));
            assert!(close(
                line.relative.unwrap(),
                norm(&(&dy - &dx)) / norm(&dx)
            ));
            let cosine = (&dx * &dy).sum() / norm(&dx) / norm(&dy);
            assert!(close(line.cosine.unwrap(), cosine));
            assert_eq!(comparison.cosine, line.cosine);
        }
    }

    #[test]
    fn equal_updates_have_no_distance() {
        let x = module("x", 3, 3.0, 1);
        let comparison = adapter(&[("x", x.clone())])
            .compare(&adapter(&[("x", x.baked())]))
            .unwrap();
        assert!(comparison.relative.unwrap() < 1e-15);
        // The same update in other factors: rounding to f32, not the root of it.
        let mut other = x.clone();
        other.a.mapv_inplace(|x| x * 3.0);
        other.b.mapv_inplace(|x| x / 3.0);
        let comparison = adapter(&[("x", x)])
            .compare(&adapter(&[("x", other)]))
            .unwrap();
        assert!(comparison.relative.unwrap() < 2e-7);
        assert!((comparison.cosine.unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn modules_of_one_side_count_as_zero_in_the_other() {
        let (x, y, z) = (
            module("x", 2, 2.0, 1),
            module("y", 2, 2.0, 3),
            module("z", 1, 2.0, 5),
        );
        let norm = |m: &LoraModule| m.delta_f64().unwrap().mapv(|x| x * x).sum();
        let first = adapter(&[("x", x.clone()), ("y", y.clone())]);
        let second = adapter(&[("x", x.clone()), ("z", z.clone())]);
        let comparison = first.compare(&second).unwrap();
        assert_eq!(
            (comparison.only_first, comparison.only_second),
            (vec!["y".into()], vec!["z".into()])
        );
        let distance = (norm(&y) + norm(&z)).sqrt();
        assert!((comparison.distance - distance).abs() < 1e-12 * distance);
        let first_norm = (norm(&x) + norm(&y)).sqrt();
        assert!((comparison.first_norm - first_norm).abs() < 1e-12 * first_norm);

        let empty = first.compare(&Adapter::default()).unwrap();
        assert_eq!((empty.relative, empty.cosine), (Some(1.0), None));
        assert_eq!(Adapter::default().compare(&first).unwrap().relative, None);
    }

    #[test]
    fn adapters_of_different_models_are_refused() {
        let other = init::gaussian("x", &[7, 6], 2, 2.0, 0).unwrap();
        let error = adapter(&[("x", module("x", 2, 2.0, 1))]).compare(&adapter(&[("x", other)]));
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("module x") && text.contains("[7, 6]"),
            "{text}"
        );
    }
}
