//! Paired permutation test: were the two models exchangeable, each prompt's difference could as well have the other
//! sign.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use super::Cluster;

/// Streams of the bootstrap are numbered from 0; these begin far above, so that no draw is shared.
const FIRST_STREAM: u64 = 1 << 63;

/// The two-sided p-value of the sum of the differences under random signs.
///
/// Differences of zero have no sign to flip and change no sum, so they are left out. All sign patterns are
/// enumerated when there are at most `resamples` of them; otherwise `resamples` are drawn, and the observed one is
/// counted among them (Phipson & Smyth 2010), so that p is never zero.
pub(crate) fn sign_flip(differences: &[Cluster], resamples: u32, seed: u64) -> f64 {
    let changes: Vec<f64> = differences
        .iter()
        .map(|cluster| cluster.sum)
        .filter(|sum| *sum != 0.0)
        .collect();
    let observed = changes.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in their last bits; such a tie counts as equally extreme.
    let tolerance = 1e-12 * changes.iter().map(|change| change.abs()).sum::<f64>();
    let extreme = |sum: f64| sum.abs() >= observed - tolerance;
    let patterns = u32::try_from(changes.len())
        .ok()
        .and_then(|bits| 1_u32.checked_shl(bits))
        .filter(|patterns| *patterns <= resamples);
    if let Some(patterns) = patterns {
        let count = (0..patterns)
            .filter(|pattern| {
                extreme(signed_sum(&changes, |position| {
                    pattern >> position & 1 == 1
                }))
            })
            .count();
        return count as f64 / f64::from(patterns);
    }
    let count = (0..resamples)
        .filter(|&b| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(FIRST_STREAM + u64::from(b));
            let mut word = 0;
            extreme(signed_sum(&changes, |position| {
                if position % 32 == 0 {
                    word = rng.next_u32();
                }
                word >> (position % 32) & 1 == 1
            }))
        })
        .count();
    (count + 1) as f64 / (f64::from(resamples) + 1.0)
}

fn signed_sum(changes: &[f64], mut flip: impl FnMut(usize) -> bool) -> f64 {
    changes
        .iter()
        .enumerate()
        .map(|(position, change)| if flip(position) { -change } else { *change })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn p(changes: &[f64], resamples: u32) -> f64 {
        let clusters: Vec<_> = changes
            .iter()
            .map(|&sum| Cluster { sum, count: 1 })
            .collect();
        sign_flip(&clusters, resamples, 0)
    }

    #[test]
    fn enumerates_small_samples() {
        // Of the eight sign patterns of 1, 2, 4 only the observed one and its mirror reach 7.
        assert_eq!(p(&[1.0, 2.0, 4.0], 2000), 0.25);
        // 1 + 2 - 4 = -1 and its mirror are the least extreme of all.
        assert_eq!(p(&[1.0, 2.0, -4.0], 2000), 1.0);
    }

    #[test]
    fn equal_models_have_p_one() {
        assert_eq!(p(&[0.0; 40], 2000), 1.0);
        assert_eq!(p(&[0.1, -0.1], 2000), 1.0);
    }

    #[test]
    fn prompts_without_a_difference_change_nothing() {
        assert_eq!(p(&[1.0, 0.0, 2.0, 0.0, 4.0], 2000), 0.25);
    }

    #[test]
    fn drawn_signs_agree_with_enumerated_ones() {
        let changes = [
            1.0, 0.5, -0.25, 0.75, 1.0, -0.5, 0.25, 1.0, 0.5, -0.75, 0.25, 0.5,
        ];
        let exact = p(&changes, 4096);
        let drawn = p(&changes, 4095);
        // Four standard errors of a share among 4095 draws.
        assert!(
            (exact - drawn).abs() < 4.0 * (exact * (1.0 - exact) / 4095.0).sqrt(),
            "{exact} {drawn}"
        );
    }

    #[test]
    fn a_drawn_p_is_never_zero() {
        assert_eq!(p(&[1.0; 200], 99), 0.01);
    }
}
