#![doc = include_str!("../README.md")]

use sha2::{Digest, Sha256};

/// A seed for one purpose: a hash of a base seed, a label and indices.
///
/// Different labels or indices give independent seeds, so that no draw depends on the order of others. The result fits
/// 63 bits, which every file format and language can hold.
///
/// ```
/// use selma_seed::derive_seed;
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

#[cfg(test)]
mod tests {
    use super::derive_seed;

    /// Runs of before are continued only if these stay what they are.
    #[test]
    fn seeds_do_not_change() {
        assert_eq!(derive_seed(42, "epoch", &[0]), 8_027_083_293_475_209_910);
        assert_eq!(derive_seed(0, "image", &[1, 2]), 6_230_611_746_908_145_597);
    }
}
