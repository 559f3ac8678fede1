//! SSR-Merge: the stacked `A` routed to the adapters' own `B`.

use std::collections::BTreeMap;

use faer::{Mat, linalg::solvers::Solve};
use ndarray::{Array2, ArrayView2};
use sha2::{Digest, Sha256};

use super::combine::{Factors, Term};
use crate::LoraError;

/// Statistics of every module that more than one adapter has, by path.
pub type Calibration = BTreeMap<String, Statistics>;

/// Second moments of what reaches the ranks of the stacked `A` while each adapter sees data of its
/// own task (arXiv 2606.10617, section 3): for every input `x` of the module, `z = [A_1; ..; A_T] x`
/// with the factors as they are stored, `G += z z^T`, and the rows of adapter `k` in `Q` gain
/// `z_k z^T` when `x` is of the task of `k`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// The rank of every adapter that has the module, in order.
    ranks: Vec<usize>,
    /// `G [R, R]`
    g: Array2<f64>,
    /// `Q [R, R]`
    q: Array2<f64>,
    /// How many inputs were seen.
    count: u64,
}

impl Statistics {
    /// Nothing seen yet, for adapters of these ranks.
    #[must_use]
    pub fn new(ranks: &[usize]) -> Self {
        let total = ranks.iter().sum();
        Self {
            ranks: ranks.to_vec(),
            g: Array2::zeros((total, total)),
            q: Array2::zeros((total, total)),
            count: 0,
        }
    }

    /// Adds `z [tokens, R]`, one row per input, of the task of the adapter at `adapter` among those
    /// that have the module.
    ///
    /// # Errors
    /// [`LoraError::Calibration`] when `z` has another width, there is no such adapter, or a value is
    /// not finite.
    pub fn add(&mut self, adapter: usize, z: &ArrayView2<'_, f32>) -> Result<(), LoraError> {
        let total = self.g.nrows();
        let wrong = |what, expected: String, found: String| LoraError::Calibration {
            what,
            expected,
            found,
        };
        if z.ncols() != total {
            let found = z.ncols().to_string();
            return Err(wrong("of one input", total.to_string(), found));
        }
        let Some(&rank) = self.ranks.get(adapter) else {
            let expected = format!("less than {}", self.ranks.len());
            return Err(wrong("of adapter", expected, adapter.to_string()));
        };
        if let Some(value) = z.iter().find(|x| !x.is_finite()) {
            return Err(wrong("of one input", "finite".into(), value.to_string()));
        }
        let z = z.mapv(f64::from);
        let products = z.t().dot(&z);
        self.g += &products;
        let start: usize = self.ranks.iter().take(adapter).sum();
        let rows = products.rows().into_iter().skip(start).take(rank);
        for (mut row, product) in self.q.rows_mut().into_iter().skip(start).zip(rows) {
            row += &product;
        }
        self.count += z.nrows() as u64;
        Ok(())
    }

    /// `R = Q/N (G/N + ridge I)^-1`
    fn router(&self, ridge: f64) -> Mat<f64> {
        let total = self.g.nrows();
        let count = self.count.max(1) as f64;
        let entry = |matrix: &Array2<f64>, i, j| matrix.get((i, j)).copied().unwrap_or(0.0) / count;
        let g = Mat::from_fn(total, total, |i, j| {
            entry(&self.g, i, j) + if i == j { ridge } else { 0.0 }
        });
        // G is symmetric: R^T = G^-1 Q^T.
        let q_turned = Mat::from_fn(total, total, |i, j| entry(&self.q, j, i));
        g.partial_piv_lu().solve(&q_turned).transpose().to_owned()
    }
}

/// SHA-256 of all statistics, for records.
pub(super) fn calibration_sha256(calibration: &Calibration) -> String {
    let mut hash = Sha256::new();
    for (path, statistics) in calibration {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path.as_bytes());
        hash.update((statistics.ranks.len() as u64).to_le_bytes());
        for &rank in &statistics.ranks {
            hash.update((rank as u64).to_le_bytes());
        }
        hash.update(statistics.count.to_le_bytes());
        for value in statistics.g.iter().chain(&statistics.q) {
            hash.update(value.to_le_bytes());
        }
    }
    hex::encode(hash.finalize())
}

/// SSR-Merge: `A = [A_1; ..; A_T]`, `B = [w_i s_i B_i] R`. A module of one adapter stays as it is.
pub(super) fn ssr(
    path: &str,
    terms: &[Option<Term<'_>>],
    calibration: &Calibration,
    ridge: f64,
) -> Result<Factors, LoraError> {
    let ranks: Vec<usize> = terms.iter().flatten().map(|t| t.module.rank()).collect();
    let total: usize = ranks.iter().sum();
    let present = || terms.iter().flatten();
    let rows = present().map(|t| t.module.outputs()).max().unwrap_or(0);
    let columns = present().map(|t| t.module.inputs()).max().unwrap_or(0);
    let mut a_turned = Mat::zeros(columns, total);
    let mut b_turned = Mat::zeros(total, rows);
    let mut start = 0;
    for term in present() {
        let r = term.module.rank();
        a_turned
            .subcols_mut(start, r)
            .copy_from(term.module.a_turned());
        b_turned
            .subrows_mut(start, r)
            .copy_from(faer::Scale(term.coefficient()) * term.module.b_turned());
        start += r;
    }
    if ranks.len() > 1 {
        let statistics = calibration
            .get(path)
            .filter(|statistics| statistics.count > 0)
            .ok_or_else(|| LoraError::Calibration {
                what: "of the module",
                expected: format!("inputs for ranks {ranks:?}"),
                found: "none".to_owned(),
            })?;
        if statistics.ranks != ranks {
            return Err(LoraError::Calibration {
                what: "of ranks",
                expected: format!("{ranks:?}"),
                found: format!("{:?}", statistics.ranks),
            });
        }
        b_turned = statistics.router(ridge).transpose() * b_turned;
    }
    Ok(Factors::balanced(b_turned, a_turned))
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn moments_are_summed_and_routed() {
        let mut statistics = Statistics::new(&[1, 1]);
        let z = arr2(&[[1.0, 0.0], [3.0, 0.0]]);
        statistics.add(0, &z.view()).unwrap();
        statistics.add(1, &arr2(&[[0.0, 2.0]]).view()).unwrap();
        assert_eq!(statistics.g, arr2(&[[10.0, 0.0], [0.0, 4.0]]));
        // Tasks whose inputs do not meet are not mixed.
        assert_eq!(statistics.q, statistics.g);
        let router = statistics.router(0.0);
        assert!((router - Mat::<f64>::identity(2, 2)).norm_l2() < 1e-12);
        // An input of the first task that also reaches the rank of the second is routed to the first.
        let mut mixed = Statistics::new(&[1, 1]);
        mixed.add(0, &arr2(&[[1.0, 1.0]]).view()).unwrap();
        let router = mixed.router(1e-9);
        assert!((router.get(0, 0) - 0.5).abs() < 1e-6 && router.get(1, 1).abs() < 1e-6);
    }

    #[test]
    fn the_record_tells_statistics_apart() {
        let hash = |z: f32, adapter| {
            let mut statistics = Statistics::new(&[1, 1]);
            statistics.add(adapter, &arr2(&[[z, 1.0]]).view()).unwrap();
            calibration_sha256(&Calibration::from([("unet.x".to_owned(), statistics)]))
        };
        assert_eq!(hash(2.0, 0), hash(2.0, 0));
        assert_ne!(hash(2.0, 0), hash(3.0, 0));
        assert_ne!(hash(2.0, 0), hash(2.0, 1));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut statistics = Statistics::new(&[1, 1]);
        for (adapter, z) in [
            (2, arr2(&[[1.0, 0.0]])),
            (0, arr2(&[[1.0]])),
            (0, arr2(&[[1.0, f32::NAN]])),
        ] {
            assert!(statistics.add(adapter, &z.view()).is_err());
        }
        assert_eq!(statistics, Statistics::new(&[1, 1]));
    }
}
