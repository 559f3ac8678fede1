//! Randomness that depends on nothing but its seed: drawn on the host, the same on every device.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

/// A seed for one purpose: a hash of a base seed, a label and indices.
///
/// Different labels or indices give independent seeds, so that no draw depends on the order of others. The result fits
/// 63 bits, which every file format and language can hold.
///
/// ```
/// use selma_diffusion::noise::derive_seed;
///
/// assert_ne!(derive_seed(0, "image", &[1, 2]), derive_seed(0, "image", &[2, 1]));
/// ```
#[must_use]
pub fn derive_seed(base: u64, label: &str, indices: &[u64]) -> u64 {
    let mut hash = Sha256::new();
    hash.update(base.to_le_bytes());
    hash.update((label.len() as u64).to_le_bytes());
    hash.update(label.as_bytes());
    for index in indices {
        hash.update(index.to_le_bytes());
    }
    let digest = hash.finalize();
    let bytes = digest.iter().take(8);
    bytes.fold(0, |seed, &byte| (seed << 8) | u64::from(byte)) >> 1
}

/// Independent draws from N(0, 1).
#[must_use]
pub fn normal(seed: u64, count: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| StandardNormal.sample(&mut rng))
        .collect()
}
