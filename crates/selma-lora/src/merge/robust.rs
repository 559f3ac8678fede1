//! RobustMerge: pruned factors, each direction scaled by what pruning took from it.

use faer::Mat;

use super::{
    combine::{Factors, Term, equal_ranks},
    sparsify::magnitude,
};
use crate::LoraError;

/// RobustMerge (arXiv 2502.17159, algorithm 1): of every `A` and `B` the share `density` of largest
/// magnitude stays; rank `k` of adapter `i` is multiplied by `S_ik / sum_j S_jk`, where `S_ik` is the
/// sum of magnitudes of that row of `A` before pruning over that after; then the updates are summed.
///
/// The scale of an adapter goes evenly into its factors, the sign of its weight into `B`.
pub(super) fn robust(terms: &[Option<Term<'_>>], density: f64) -> Result<Factors, LoraError> {
    equal_ranks(terms)?;
    let mut a_blocks = Vec::new();
    let mut b_blocks = Vec::new();
    let mut losses: Vec<Vec<f64>> = Vec::new();
    for term in terms.iter().flatten() {
        let a = term.module.a_turned();
        let pruned_a = pruned(&a, density);
        let sizes =
            |matrix: &Mat<f64>| -> Vec<f64> { matrix.col_iter().map(|c| c.norm_l1()).collect() };
        let before = sizes(&a);
        // The published guard against division by zero.
        losses.push(
            before
                .iter()
                .zip(sizes(&pruned_a))
                .map(|(before, after)| before / (after + 1e-6))
                .collect(),
        );
        let root = term.coefficient().abs().sqrt();
        let signed = root.copysign(term.coefficient());
        a_blocks.push(faer::Scale(root) * pruned_a);
        b_blocks.push(faer::Scale(signed) * pruned(&term.module.b_turned(), density));
    }
    let rank: usize = a_blocks.iter().map(Mat::ncols).sum();
    let rows = a_blocks.first().map_or(0, Mat::nrows);
    let columns = b_blocks.first().map_or(0, Mat::ncols);
    let mut merged = Factors {
        a_turned: Mat::zeros(rows, rank),
        b_turned: Mat::zeros(rank, columns),
        scale: 1.0,
    };
    let mut start = 0;
    for ((mut a, b), own) in a_blocks.into_iter().zip(b_blocks).zip(&losses) {
        for (k, (column, loss)) in a.col_iter_mut().zip(own).enumerate() {
            let all: f64 = losses.iter().filter_map(|losses| losses.get(k)).sum();
            let share = loss / (all + 1e-6);
            column.iter_mut().for_each(|x| *x *= share);
        }
        let r = a.ncols();
        merged.a_turned.subcols_mut(start, r).copy_from(&a);
        merged.b_turned.subrows_mut(start, r).copy_from(&b);
        start += r;
    }
    Ok(merged)
}

/// The entries of largest magnitude of a factor.
fn pruned(factor: &Mat<f64>, density: f64) -> Mat<f64> {
    let columns = factor
        .col_iter()
        .flat_map(|c| c.iter().copied().collect::<Vec<f64>>());
    let mut values: Vec<f64> = columns.collect();
    magnitude(&mut values, density, 1);
    faer::MatRef::from_column_major_slice(&values, factor.nrows(), factor.ncols()).to_owned()
}
