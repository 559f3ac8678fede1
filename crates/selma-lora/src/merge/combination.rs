//! Methods that multiply every update by a number and add them up: numbers that follow from the updates' inner products.
//!
//! `<dW_i, dW_j> = s_i s_j tr(B_i^T B_j A_j A_i^T)` needs no dense update.

use faer::Mat;
use ndarray::Array2;

use super::{
    agreement::model_stock_weight,
    combine::Term,
    spherical::{Pair, karcher_weights, nuslerp_weights, share, slerp_weights},
};

/// What the updates are multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combination {
    /// Their weights, divided by the sum of these if asked.
    Weights,
    Slerp,
    Nuslerp,
    ModelStock,
    Karcher,
}

impl Combination {
    /// The numbers, one for each term. `divisor` is what the weights are divided by.
    pub(super) fn weights(self, terms: &[&Term<'_>], divisor: f64) -> Vec<f64> {
        let weights = || terms.iter().map(|term| term.weight);
        match self {
            Self::Weights => weights().map(|weight| weight / divisor).collect(),
            Self::Slerp => between_two(terms, slerp_weights),
            Self::Nuslerp => between_two(terms, nuslerp_weights),
            Self::ModelStock => {
                let share = model_stock_weight(&weighted_products(terms));
                weights().map(|weight| weight * share).collect()
            }
            Self::Karcher => {
                let directions = karcher_weights(&weighted_products(terms));
                weights().zip(directions).map(|(x, y)| x * y).collect()
            }
        }
    }
}

fn between_two(terms: &[&Term<'_>], interpolate: fn(Pair, f64) -> [f64; 2]) -> Vec<f64> {
    let [first, second] = terms else {
        // mergekit passes on what only one model has.
        return vec![1.0; terms.len()];
    };
    let sides = [Side::of(first), Side::of(second)];
    let [x, y] = &sides;
    let pair = Pair {
        xx: x.product(x),
        xy: x.product(y),
        yy: y.product(y),
    };
    interpolate(pair, share(&[first.weight, second.weight])).to_vec()
}

/// `<w_i dW_i, w_j dW_j>` of all pairs.
fn weighted_products(terms: &[&Term<'_>]) -> Array2<f64> {
    let sides: Vec<Side> = terms.iter().map(|term| Side::of(term)).collect();
    let mut products = Array2::zeros((terms.len(), terms.len()));
    for (i, (x, first)) in sides.iter().zip(terms).enumerate() {
        for (j, (y, second)) in sides.iter().zip(terms).enumerate().skip(i) {
            let product = first.weight * second.weight * x.product(y);
            for at in [(i, j), (j, i)] {
                if let Some(entry) = products.get_mut(at) {
                    *entry = product;
                }
            }
        }
    }
    products
}

/// The factors of a term.
#[derive(Debug)]
struct Side {
    a_turned: Mat<f64>,
    b_turned: Mat<f64>,
    scale: f64,
}

impl Side {
    fn of(term: &Term<'_>) -> Self {
        Self {
            a_turned: term.module.a_turned(),
            b_turned: term.module.b_turned(),
            scale: term.module.scale(),
        }
    }

    /// `<dW, dW'>`
    fn product(&self, other: &Self) -> f64 {
        let left = &self.b_turned * other.b_turned.transpose();
        let right = self.a_turned.transpose() * &other.a_turned;
        let columns = left.col_iter().zip(right.col_iter());
        let sum: f64 = columns
            .map(|(x, y)| x.iter().zip(y.iter()).map(|(x, y)| x * y).sum::<f64>())
            .sum();
        self.scale * other.scale * sum
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        agreement::model_stock,
        spherical::{karcher, nuslerp, slerp},
        tests::module,
    };
    use super::*;

    #[test]
    fn numbers_from_factors_do_what_the_dense_updates_do() {
        let modules = [(3, 2.0, 1), (2, -1.0, 2), (4, 0.5, 3)]
            .map(|(rank, alpha, seed)| module("unet.x", &[9, 7], rank, alpha, seed));
        let weights = [1.0, -0.5, 2.0];
        let terms: Vec<Term<'_>> = modules
            .iter()
            .zip(weights)
            .map(|(module, weight)| Term { module, weight })
            .collect();
        let terms: Vec<&Term<'_>> = terms.iter().collect();
        let plain: Vec<Vec<f64>> = modules
            .iter()
            .map(|module| module.delta_f64().unwrap().into_iter().collect())
            .collect();
        let weighted: Vec<Vec<f64>> = plain
            .iter()
            .zip(weights)
            .map(|(delta, weight)| delta.iter().map(|x| x * weight).collect())
            .collect();
        let slices: Vec<&[f64]> = weighted.iter().map(Vec::as_slice).collect();
        let two = &terms[..2];
        for (combination, terms, expected) in [
            (Combination::Slerp, two, slerp(&plain[0], &plain[1], -1.0)),
            (
                Combination::Nuslerp,
                two,
                nuslerp(&plain[0], &plain[1], -1.0),
            ),
            (Combination::ModelStock, &terms[..], model_stock(&slices)),
            (Combination::Karcher, &terms[..], karcher(&slices)),
            (Combination::Slerp, &terms[..1], plain[0].clone()),
        ] {
            let found = combination.weights(terms, 1.0);
            for (at, expected) in expected.iter().enumerate() {
                let sum: f64 = found.iter().zip(&plain).map(|(w, x)| w * x[at]).sum();
                assert!(
                    (sum - expected).abs() < 1e-12,
                    "{combination:?}: {sum} {expected}"
                );
            }
        }
        assert_eq!(Combination::Weights.weights(two, 0.5), [2.0, -1.0]);
    }
}
