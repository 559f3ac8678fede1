//! The softmax that is carried along over blocks of keys.
#![allow(
    clippy::indexing_slicing,
    reason = "all places follow from the sizes that the memory was made for"
)]

use super::pack::LANES;
use crate::flex::math::reduced_exp;

/// Queries of a strip at most.
pub(super) const STRIP: usize = 48;

/// The state of the softmax of each query of a strip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Softmax {
    /// The greatest score so far.
    maximum: [f32; STRIP],
    /// The sum of the exponentials so far, which are taken of the difference to the maximum.
    sum: [f32; STRIP],
}

impl Softmax {
    pub(super) fn new() -> Self {
        Self {
            maximum: [f32::NEG_INFINITY; STRIP],
            sum: [0.0; STRIP],
        }
    }

    /// Replaces scores (`[keys][strip]`) by their exponentials, and says by what earlier sums have to be multiplied.
    #[inline(always)]
    pub(super) fn take(&mut self, scores: &mut [f32], strip: usize) -> [f32; STRIP] {
        let mut factors = [0.0; STRIP];
        let (maxima, _) = self.maximum.as_chunks_mut::<LANES>();
        let (sums, _) = self.sum.as_chunks_mut::<LANES>();
        let (chunks, _) = factors.as_chunks_mut::<LANES>();
        let state = maxima.iter_mut().zip(sums).zip(chunks);
        // One vector of queries at a time, so that its state stays in registers.
        for (index, ((maximum, sum), factor)) in state.enumerate().take(strip / LANES) {
            let at = index * LANES;
            let mut greatest = *maximum;
            for row in scores.chunks_exact(strip) {
                let row = &row[at..at + LANES];
                for (greatest, &x) in greatest.iter_mut().zip(row) {
                    *greatest = if x > *greatest { x } else { *greatest };
                }
            }
            let mut added = [0.0; LANES];
            for row in scores.chunks_exact_mut(strip) {
                let row = &mut row[at..at + LANES];
                for (x, (greatest, added)) in row.iter_mut().zip(greatest.iter().zip(&mut added)) {
                    *x = exp_below(*x - greatest);
                    *added += *x;
                }
            }
            for (factor, (before, now)) in factor.iter_mut().zip(maximum.iter().zip(&greatest)) {
                *factor = exp_below(before - now);
            }
            for (sum, (added, factor)) in sum.iter_mut().zip(added.iter().zip(&*factor)) {
                *sum = *sum * factor + added;
            }
            *maximum = greatest;
        }
        factors
    }

    /// What the sums of exponentials have to be divided by, as a factor.
    pub(super) fn normalisers(&self) -> [f32; STRIP] {
        self.sum.map(|sum| 1.0 / sum)
    }

    /// The logarithm of the denominator of query `i`.
    pub(super) fn logarithm(&self, i: usize) -> f32 {
        self.maximum[i] + self.sum[i].ln()
    }
}

/// `exp(x)` within 2 units in the last place for `x` up to about 0; the smallest normal number below -87, NaN for NaN.
///
/// As [`exp`](crate::flex::math::exp), with a single factor for the power of two.
#[inline(always)]
pub(super) fn exp_below(x: f32) -> f32 {
    let x = if x < -87.0 { -87.0 } else { x };
    let (p, shifted) = reduced_exp(x);
    // The exponent begins at bit 23.
    f32::from_bits(p.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_ulps() {
        for i in 0..400_000 {
            let x = -87.0 + 87.5 * (i as f32) / 400_000.0;
            let expected = f64::from(x).exp();
            let ulp = f64::from((expected as f32).next_up()) - f64::from(expected as f32);
            assert!(
                (f64::from(exp_below(x)) - expected).abs() < 2.0 * ulp,
                "{x}"
            );
        }
        assert_eq!(exp_below(0.0), 1.0);
        assert!(exp_below(f32::NEG_INFINITY) < 2e-38);
        assert!(exp_below(f32::NAN).is_nan());
    }

    #[test]
    fn blocks_together_are_one_softmax() {
        let strip = 16;
        let score = |key: usize, query: usize| ((key * 37 + query * 11) % 29) as f32 * 0.7 - 9.0;
        let mut softmax = Softmax::new();
        let mut values = [0.0_f32; STRIP];
        for block in [0..3, 3..4, 4..11] {
            let keys = block.clone();
            let mut scores: Vec<f32> = keys
                .flat_map(|key| (0..strip).map(move |query| score(key, query)))
                .collect();
            let factor = softmax.take(&mut scores, strip);
            for (query, value) in values[..strip].iter_mut().enumerate() {
                // The value of a key is its number.
                let terms = block.clone().zip(scores.chunks_exact(strip));
                let sum: f32 = terms.map(|(key, row)| key as f32 * row[query]).sum();
                *value = *value * factor[query] + sum;
            }
        }
        let normalisers = softmax.normalisers();
        for query in 0..strip {
            let weights: Vec<f64> = (0..11)
                .map(|key| f64::from(score(key, query)).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            let expected: f64 = weights
                .iter()
                .enumerate()
                .map(|(key, w)| key as f64 * w / sum)
                .sum();
            assert!((f64::from(values[query] * normalisers[query]) - expected).abs() < 1e-5);
            assert!((f64::from(softmax.logarithm(query)) - sum.ln()).abs() < 1e-6);
        }
    }
}
