//! Initial factors of an adapter that is about to be trained.

use ndarray::{Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use sha2::{Digest, Sha256};

use crate::{LoraError, LoraModule};

/// PEFT's `init_lora_weights="gaussian"` for a linear layer: `A [rank, in]` with independent
/// entries from `N(0, (1/rank)^2)` (PEFT `tuners/lora/layer.py`, `reset_lora_parameters`).
///
/// The generator is keyed by `(seed, module)` alone, so adapters trained from the same seed share
/// their initial `A` whatever other modules they have and in whatever order these are made. That is
/// what makes a mean of factors (`B` starts at zero) close to a mean of updates.
#[must_use]
pub fn gaussian_a(module: &str, rank: usize, in_features: usize, seed: u64) -> Array2<f32> {
    let mut key = Sha256::new();
    key.update(b"selma-lora gaussian A");
    key.update(seed.to_le_bytes());
    key.update(module.as_bytes());
    let mut generator = ChaCha8Rng::from_seed(key.finalize().into());
    let deviation = 1.0 / rank as f64;
    Array2::from_shape_simple_fn((rank, in_features), || {
        let unit: f64 = StandardNormal.sample(&mut generator);
        (unit * deviation) as f32
    })
}

/// A module that changes nothing yet: [`gaussian_a`], `B = 0`, alpha as given.
///
/// `weight_shape` is that of the frozen weight, `[out, in]` or `[out, in, kh, kw]`.
///
/// # Errors
/// [`LoraError::FactorShapes`] for a rank or a dimension of zero or a shape with fewer than two
/// dimensions, [`LoraError::BadAlpha`] when alpha is not finite.
///
/// ```
/// let path = "unet.mid_block.resnets.0.conv1";
/// let module = selma_lora::init::gaussian(path, &[640, 320, 3, 3], 8, 8.0, 42)?;
/// assert_eq!(module.a.shape(), [8, 320, 3, 3]);
/// assert_eq!(module.b.shape(), [640, 8, 1, 1]);
/// assert!(module.is_zero());
/// # Ok::<(), selma_lora::LoraError>(())
/// ```
pub fn gaussian(
    module: &str,
    weight_shape: &[usize],
    rank: usize,
    alpha: f64,
    seed: u64,
) -> Result<LoraModule, LoraError> {
    let (outputs, inputs) = match weight_shape {
        [outputs, inputs @ ..] if !inputs.is_empty() => (*outputs, inputs),
        _ => (0, weight_shape),
    };
    let a_shape: Vec<usize> = std::iter::once(rank)
        .chain(inputs.iter().copied())
        .collect();
    let mut b_shape = vec![1; a_shape.len().max(2)];
    for (length, wanted) in b_shape.iter_mut().zip([outputs, rank]) {
        *length = wanted;
    }
    let a = gaussian_a(module, rank, inputs.iter().product(), seed)
        .into_dyn()
        .into_shape_with_order(IxDyn(&a_shape))
        .map_err(|_| LoraError::FactorShapes {
            a: a_shape,
            b: b_shape.clone(),
        })?;
    LoraModule::new(a, ArrayD::zeros(IxDyn(&b_shape)), alpha)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // Recorded once: a trained expert is only reproducible while these hold.
        let a = gaussian_a("unet.conv_in", 2, 3, 7);
        let expected = [
            0.64771575,
            0.5376332,
            1.191318,
            0.25341833,
            -0.24275565,
            -0.27748567,
        ];
        assert_eq!(a.as_slice().unwrap(), expected);
    }

    #[test]
    fn every_module_and_seed_has_its_own_values() {
        let a = gaussian_a("unet.a", 4, 8, 1);
        assert_eq!(a, gaussian_a("unet.a", 4, 8, 1));
        assert_ne!(a, gaussian_a("unet.b", 4, 8, 1));
        assert_ne!(a, gaussian_a("unet.a", 4, 8, 2));
    }

    #[test]
    fn entries_are_normal_with_deviation_one_over_rank() {
        let a = gaussian_a("unet.a", 16, 4096, 3).mapv(f64::from);
        let n = a.len() as f64;
        let mean = a.sum() / n;
        let variance = a.mapv(|x| x * x).sum() / n;
        let within = a.iter().filter(|x| x.abs() < 1.0 / 16.0).count() as f64 / n;
        assert!(mean.abs() < 1e-3, "{mean}");
        assert!((variance.sqrt() * 16.0 - 1.0).abs() < 0.01, "{variance}");
        assert!((within - 0.6827).abs() < 0.01, "{within}");
    }

    #[test]
    fn impossible_shapes_are_refused() {
        for (shape, rank) in [(vec![4, 4], 0), (vec![4], 1), (vec![], 1), (vec![0, 4], 1)] {
            assert!(gaussian("m", &shape, rank, 1.0, 0).is_err(), "{shape:?}");
        }
        assert!(gaussian("m", &[4, 4], 1, f64::NAN, 0).is_err());
    }
}
