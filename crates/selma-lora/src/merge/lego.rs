//! LoRA-LEGO: the rank-1 units of all adapters, clustered.

use faer::Mat;
use rand::RngExt;

use super::{
    combine::{Factors, Term, concatenate},
    masks::Draw,
};
use crate::linalg::side_by_side;

/// Iterations of k-means in the published code.
const ITERATIONS: usize = 10;

/// LoRA-LEGO (arXiv 2409.16167; after the re-implementation in TARA-Merge): the pairs `(a_k, b_k)`
/// of all ranks of all adapters are clustered into `clusters` groups by their directions; the centre
/// of each, brought to the mean size of its members, is a rank of the result, and the whole is
/// multiplied by `sqrt(r / clusters)`, with the largest rank `r` of the inputs.
///
/// The scale of an adapter is split evenly between its factors. k-means starts from units that
/// `draw` picks.
pub(super) fn lego(terms: &[Option<Term<'_>>], clusters: usize, draw: Draw<'_>) -> Factors {
    let units = concatenate(terms, 1.0);
    let a = columns(&units.a_turned);
    let b = columns(&units.b_turned.transpose().to_owned());
    let features: Vec<Vec<f64>> = a.iter().zip(&b).map(|(a, b)| feature(a, b)).collect();
    // There are no more groups than units.
    let clusters = clusters.min(features.len().max(1));
    let groups = cluster(&features, clusters, draw);

    let rank = terms.iter().flatten().map(|t| t.module.rank()).max();
    let scale = (rank.unwrap_or(0) as f64 / clusters as f64).sqrt();
    let members: Vec<Vec<usize>> = (0..clusters)
        .map(|group| {
            let inside = groups.iter().enumerate().filter(|&(_, &g)| g == group);
            inside.map(|(unit, _)| unit).collect::<Vec<usize>>()
        })
        .filter(|members: &Vec<usize>| !members.is_empty())
        .collect();
    let size = |unit: &usize| {
        let both = a.get(*unit).into_iter().chain(b.get(*unit)).flatten();
        both.fold(0.0, |largest: f64, x| largest.max(x.abs()))
    };
    let mut merged = Factors {
        a_turned: Mat::zeros(units.a_turned.nrows(), members.len()),
        b_turned: Mat::zeros(members.len(), units.b_turned.ncols()),
        scale,
    };
    for (group, members) in members.iter().enumerate() {
        let centre_a = mean(&a, members);
        let centre_b = mean(&b, members);
        let largest = centre_a
            .iter()
            .chain(&centre_b)
            .fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let sizes = members.iter().map(size).sum::<f64>() / members.len() as f64;
        // Units that cancel have a centre of no direction.
        let factor = if largest > 0.0 { sizes / largest } else { 0.0 };
        for (x, value) in merged.a_turned.col_mut(group).iter_mut().zip(&centre_a) {
            *x = factor * value;
        }
        for (x, value) in merged.b_turned.row_mut(group).iter_mut().zip(&centre_b) {
            *x = factor * value;
        }
    }
    merged
}

fn columns(matrix: &Mat<f64>) -> Vec<Vec<f64>> {
    let columns = matrix.col_iter();
    columns.map(|c| c.iter().copied().collect()).collect()
}

/// Both directions side by side.
fn feature(a: &[f64], b: &[f64]) -> Vec<f64> {
    let unit = |x: &[f64]| -> Vec<f64> {
        let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        // The published guard against vectors of zero.
        x.iter().map(|x| x / (norm + 1e-8)).collect()
    };
    let mut feature = unit(a);
    feature.extend(unit(b));
    feature
}

fn mean(vectors: &[Vec<f64>], members: &[usize]) -> Vec<f64> {
    let mut sum = vec![0.0; vectors.first().map_or(0, Vec::len)];
    for vector in members.iter().filter_map(|&member| vectors.get(member)) {
        for (sum, x) in sum.iter_mut().zip(vector) {
            *sum += x;
        }
    }
    sum.iter_mut().for_each(|x| *x /= members.len() as f64);
    sum
}

/// The group of every feature, by k-means from drawn features.
fn cluster(features: &[Vec<f64>], clusters: usize, draw: Draw<'_>) -> Vec<usize> {
    if clusters >= features.len() {
        return (0..features.len()).collect();
    }
    let mut order: Vec<usize> = (0..features.len()).collect();
    let mut generator = draw.generator();
    for position in 0..clusters {
        order.swap(position, generator.random_range(position..features.len()));
    }
    let units = side_by_side(features);
    let chosen = order.iter().take(clusters);
    let mut centres: Vec<Vec<f64>> = chosen.filter_map(|&i| features.get(i)).cloned().collect();
    let mut groups = vec![0; features.len()];
    for _ in 0..ITERATIONS {
        let centre_matrix = side_by_side(&centres);
        let squares: Vec<f64> = centre_matrix
            .col_iter()
            .map(|c| c.squared_norm_l2())
            .collect();
        // |x - c|^2 without |x|^2, which is the same for all centres.
        let products = centre_matrix.transpose() * &units;
        for (group, column) in groups.iter_mut().zip(products.col_iter()) {
            let mut nearest = f64::INFINITY;
            for (index, (square, product)) in squares.iter().zip(column.iter()).enumerate() {
                let distance = square - 2.0 * product;
                if distance < nearest {
                    (nearest, *group) = (distance, index);
                }
            }
        }
        for (index, centre) in centres.iter_mut().enumerate() {
            let inside = groups.iter().enumerate().filter(|&(_, &g)| g == index);
            let members: Vec<usize> = inside.map(|(unit, _)| unit).collect();
            if !members.is_empty() {
                *centre = mean(features, &members);
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAW: Draw<'static> = Draw {
        masks: None,
        seed: 0,
        module: "unet.x",
        adapter: 0,
        part: "units",
    };

    #[test]
    fn near_features_share_a_group() {
        let features: Vec<Vec<f64>> = [[1.0, 0.0], [0.0, 1.0], [0.99, 0.1], [0.1, 0.99]]
            .map(Vec::from)
            .into();
        // From any start, also from two features of one group.
        for seed in 0..8 {
            let groups = cluster(&features, 2, Draw { seed, ..DRAW });
            assert_eq!((groups[0], groups[1]), (groups[2], groups[3]), "{seed}");
            assert_ne!(groups[0], groups[1]);
        }
        assert_eq!(cluster(&features, 4, DRAW), [0, 1, 2, 3]);
    }
}
