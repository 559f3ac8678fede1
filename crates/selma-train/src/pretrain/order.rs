//! The order of samples.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use selma_diffusion::noise::derive_seed;

/// A new permutation each epoch.
#[derive(Debug, Default)]
pub(super) struct Order {
    epoch: Option<usize>,
    permutation: Vec<usize>,
}

impl Order {
    /// The sample at a position since the start of the training.
    pub(super) fn sample(&mut self, seed: u64, position: usize, len: usize) -> usize {
        let epoch = position / len;
        if self.epoch != Some(epoch) {
            self.permutation = (0..len).collect();
            let seed = derive_seed(seed, "epoch", &[epoch as u64]);
            self.permutation
                .shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
            self.epoch = Some(epoch);
        }
        self.permutation
            .get(position % len)
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_shows_every_sample_once_in_another_order() {
        let mut order = Order::default();
        let draw: Vec<usize> = (0..30)
            .map(|position| order.sample(7, position, 10))
            .collect();
        for epoch in draw.chunks(10) {
            let mut sorted = epoch.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(draw[..10], draw[10..20]);
        assert_eq!(Order::default().sample(7, 23, 10), draw[23]);
    }
}
