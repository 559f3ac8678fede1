//! SSR-Merge: the stacked `A` routed to the adapters' own `B`.

use faer::{Mat, linalg::solvers::Solve};

use super::{
    calibration::Statistics,
    combine::{Factors, Term},
};
use crate::LoraError;

/// SSR-Merge: `A = [A_1; ..; A_T]`, `B = [w_i s_i B_i] R`. A module of one adapter stays as it is.
pub(super) fn ssr(
    terms: &[Option<Term<'_>>],
    statistics: Option<&Statistics>,
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
        let statistics = statistics.filter(|statistics| statistics.count > 0);
        let statistics = statistics.ok_or_else(|| LoraError::Calibration {
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
        b_turned = statistics.router_turned(ridge) * b_turned;
    }
    Ok(Factors::balanced(b_turned, a_turned))
}

impl Statistics {
    /// `(Q/N (G/N + ridge I)^-1)^T`
    fn router_turned(&self, ridge: f64) -> Mat<f64> {
        let share = 1.0 / self.count.max(1) as f64;
        let mut g = faer::Scale(share) * &self.g;
        for value in g.diagonal_mut().column_vector_mut().iter_mut() {
            *value += ridge;
        }
        // G is symmetric.
        g.partial_piv_lu()
            .solve(faer::Scale(share) * &self.q_turned)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn tasks_are_routed_to_their_own_ranks() {
        let mut statistics = Statistics::new(&[1, 1]);
        let z = arr2(&[[1.0, 0.0], [3.0, 0.0]]);
        statistics.add(0, &z.view()).unwrap();
        statistics.add(1, &arr2(&[[0.0, 2.0]]).view()).unwrap();
        // Tasks whose inputs do not meet are not mixed.
        let router = statistics.router_turned(0.0);
        assert!((router - Mat::<f64>::identity(2, 2)).norm_l2() < 1e-12);
        // An input of the first task that also reaches the rank of the second is routed to the first.
        let mut mixed = Statistics::new(&[1, 1]);
        mixed.add(0, &arr2(&[[1.0, 1.0]]).view()).unwrap();
        let router = mixed.router_turned(1e-9);
        assert!((router.get(0, 0) - 0.5).abs() < 1e-6 && router.get(1, 1).abs() < 1e-6);
    }
}
