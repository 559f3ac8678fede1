//! The statistics of SSR-Merge.

mod file;

use std::collections::BTreeMap;

use faer::Mat;
use ndarray::ArrayView2;

use crate::{
    LoraError,
    gram::{gram, mirrored},
};

/// Statistics for [`Method::Ssr`](super::Method::Ssr), and whose they are.
///
/// In memory and on disk there are `16 R^2` bytes for a module whose adapters' ranks sum to `R`: 0.4 MB for five of
/// rank 32.
///
/// ```
/// use ndarray::arr2;
/// use selma_lora::merge::{Calibration, Statistics};
///
/// # let folder = tempfile::tempdir().expect("a temporary folder");
/// # let path = folder.path().join("calibration.safetensors");
/// let mut statistics = Statistics::new(&[1, 1]); // two adapters of rank 1
/// statistics.add(0, &arr2(&[[1.0, 0.5]]).view())?; // what an input of the first one's task gives
/// statistics.add(1, &arr2(&[[0.0, 2.0]]).view())?;
/// let calibration: Calibration = [("unet.conv_in".to_owned(), statistics)].into_iter().collect();
/// calibration.save(&path)?;
/// assert_eq!(Calibration::load(&path)?, calibration);
/// # Ok::<(), selma_lora::LoraError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Calibration {
    /// SHA-256 of the adapters' files, as [`Source::sha256`](crate::Source::sha256) has it, in the order in which they
    /// are merged. A merge of others is refused. Empty where it is not known.
    pub adapters: Vec<String>,
    /// The statistics of every module that more than one adapter has, by path.
    pub modules: BTreeMap<String, Statistics>,
}

/// Of adapters that are not known.
impl FromIterator<(String, Statistics)> for Calibration {
    fn from_iter<I: IntoIterator<Item = (String, Statistics)>>(modules: I) -> Self {
        Self {
            adapters: Vec::new(),
            modules: modules.into_iter().collect(),
        }
    }
}

/// Second moments of what reaches the ranks of the stacked `A` while each adapter sees data of its
/// own task (arXiv 2606.10617, section 3): for every input `x` of the module, `z = [A_1; ..; A_T] x`
/// with the factors as they are stored, `G += z z^T`, and the rows of adapter `k` in `Q` gain
/// `z_k z^T` when `x` is of the task of `k`.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// The rank of every adapter that has the module, in order.
    pub(super) ranks: Vec<usize>,
    /// `G [R, R]`
    pub(super) g: Mat<f64>,
    /// `Q^T [R, R]`
    pub(super) q_turned: Mat<f64>,
    /// How many inputs were seen.
    pub(super) count: u64,
}

impl Statistics {
    /// Nothing seen yet, for adapters of these ranks.
    #[must_use]
    pub fn new(ranks: &[usize]) -> Self {
        let total = ranks.iter().sum();
        Self {
            ranks: ranks.to_vec(),
            g: Mat::zeros(total, total),
            q_turned: Mat::zeros(total, total),
            count: 0,
        }
    }

    /// The rank of every adapter that has the module, in order.
    #[must_use]
    pub fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// How many inputs were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds `z [tokens, R]`, one row per input, of the task of the adapter at `adapter` among those
    /// that have the module. The sums are in `f64`.
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
        let turned = Mat::from_fn(total, z.nrows(), |rank, token| {
            z.get((token, rank)).copied().map_or(0.0, f64::from)
        });
        let products = mirrored(gram(turned.transpose()));
        self.g += &products;
        let start: usize = self.ranks.iter().take(adapter).sum();
        let mut own = self.q_turned.as_mut().subcols_mut(start, rank);
        own += products.subcols(start, rank);
        self.count += z.nrows() as u64;
        Ok(())
    }
}

impl Calibration {
    /// Refuses other adapters than those that the statistics are of.
    pub(super) fn check_adapters(
        &self,
        found: impl ExactSizeIterator<Item = String>,
    ) -> Result<(), LoraError> {
        if self.adapters.is_empty() {
            return Ok(());
        }
        let wrong = |what, expected, found| {
            Err(LoraError::Calibration {
                what,
                expected,
                found,
            })
        };
        let (expected, count) = (self.adapters.len(), found.len());
        if expected != count {
            let what = "of another number of adapters";
            return wrong(what, expected.to_string(), count.to_string());
        }
        for (index, (expected, found)) in self.adapters.iter().zip(found).enumerate() {
            if *expected != found {
                let expected = format!("SHA-256 {expected} of adapter {index}");
                return wrong("of other adapters", expected, found);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn moments_are_summed_in_the_rows_of_their_task() {
        let mut statistics = Statistics::new(&[1, 2]);
        let z = arr2(&[[1.0, 2.0, 0.0], [3.0, 0.0, 1.0]]);
        statistics.add(0, &z.view()).unwrap();
        // Also where the rows do not lie one after the other.
        let turned = arr2(&[[0.0], [2.0], [5.0]]);
        statistics.add(1, &turned.t()).unwrap();
        let g = [[10.0, 2.0, 3.0], [2.0, 8.0, 10.0], [3.0, 10.0, 26.0]];
        let q = [[10.0, 2.0, 3.0], [0.0, 4.0, 10.0], [0.0, 10.0, 25.0]];
        assert_eq!(statistics.g, Mat::from_fn(3, 3, |i, j| g[i][j]));
        assert_eq!(statistics.q_turned, Mat::from_fn(3, 3, |i, j| q[j][i]));
        assert_eq!((statistics.ranks(), statistics.count()), (&[1, 2][..], 3));
    }

    #[test]
    fn inputs_that_do_not_fit_are_refused() {
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

    #[test]
    fn other_adapters_are_refused_by_their_hashes() {
        let known = Calibration {
            adapters: vec!["ab".to_owned(), "cd".to_owned()],
            ..Calibration::default()
        };
        let check = |found: &[&str]| known.check_adapters(found.iter().map(|x| (*x).to_owned()));
        check(&["ab", "cd"]).unwrap();
        for (found, parts) in [
            (&["ab"][..], ["2", "1"]),
            (&["ab", "ef"], ["cd of adapter 1", "ef"]),
            (&["cd", "ab"], ["ab of adapter 0", "cd"]),
        ] {
            let error = check(found).unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        let unknown = Calibration::default();
        unknown
            .check_adapters(["ab".to_owned()].into_iter())
            .unwrap();
    }
}
