//! Draws that are the same on any machine.

use rand_chacha::rand_core::Rng;

/// A number below `n`, by multiplication (Lemire 2019) without its rejection step: the bias is below n / 2^64.
pub(crate) fn below(rng: &mut impl Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Puts items in a random order, all orders being equally likely (Fisher and Yates).
pub(crate) fn shuffle<T>(rng: &mut impl Rng, items: &mut [T]) {
    for end in (1..items.len()).rev() {
        items.swap(end, below(rng, end + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

    use super::*;

    #[test]
    fn draws_are_uniform() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0_u32; 7];
        for _ in 0..70_000 {
            counts[below(&mut rng, 7)] += 1;
        }
        // Six standard deviations of a binomial count.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 560),
            "{counts:?}"
        );
    }

    #[test]
    fn all_orders_are_equally_likely() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts: BTreeMap<[u8; 3], u32> = BTreeMap::new();
        for _ in 0..6000 {
            let mut items = [0, 1, 2];
            shuffle(&mut rng, &mut items);
            *counts.entry(items).or_default() += 1;
        }
        assert_eq!(counts.len(), 6);
        // Six standard deviations of a binomial count.
        assert!(
            counts.values().all(|count| count.abs_diff(1000) < 174),
            "{counts:?}"
        );
    }
}
