//! Training the VAE.

use burn::optim::AdamWConfig;
use burn::tensor::{Device, Tensor, TensorData};
use selma_diffusion::models::AutoencoderKL;
use selma_diffusion::noise::{derive_seed, normal};

use super::descent::{Descent, ShardLoss};
use super::optimizer::Rates;
use super::pairs::{image_tensor, pairs};
use super::{Checkpoints, PairSource, PretrainConfig};
use crate::factors::{host, scalar};
use crate::shards::{HALVES, part};
use crate::{Observer, TrainError};

/// Trains a VAE on the images of a source, and measures its `scaling_factor`.
///
/// The loss is the mean squared error per pixel plus a little KL divergence, as for the VAE of latent diffusion (arXiv
/// 2112.10752) without its adversary. In the last `decoder_steps` the encoder rests and the decoder alone goes on, as for
/// the decoders that were published for Stable Diffusion later: the pictures become sharper, and the latents stay as
/// smooth, and as easy for a UNet, as a short training leaves them.
///
/// The initial weights are drawn from burn's generator for the device, which is one for the whole process and is seeded first: nothing else may draw from it
/// until the first step is done.
///
/// # Errors
///
/// If the configuration cannot be built, an example cannot be made, the loss is not finite, the observer stops, or a
/// checkpoint cannot be read or written.
pub fn pretrain_vae(
    config: &PretrainConfig,
    source: &impl PairSource,
    device: &Device,
    checkpoints: Option<Checkpoints<'_>>,
    observer: &mut Observer<'_>,
) -> Result<(AutoencoderKL, f64), TrainError> {
    let training = &config.vae_training;
    device.seed(derive_seed(config.seed, "vae init", &[]));
    let descent = Descent {
        phases: vec![training.steps, training.decoder_steps],
        rates: Rates {
            others: training.learning_rate,
            matrices: training.matrix_learning_rate,
        },
        adamw: AdamWConfig::new().with_epsilon(1e-8).with_weight_decay(0.0),
        device,
        checkpoints,
    };
    let shard_loss = |model: &AutoencoderKL, step, shard| {
        let range = part(training.batch_size, HALVES, shard);
        let start = step * training.batch_size + range.start;
        let images = image_tensor(&pairs(source, start, range.len())?.0, device)?;
        let share = range.len() as f64 / training.batch_size as f64;
        let seed = derive_seed(config.seed, "vae latents", &[step as u64, shard as u64]);
        let parts = if step < training.steps {
            Parts::Both {
                kl_weight: training.kl_weight,
            }
        } else {
            Parts::Decoder
        };
        let (error, loss) = losses(model, images, seed, parts);
        Ok(ShardLoss {
            loss: loss.mul_scalar(share),
            reported: scalar(&error)? * share as f32,
            samples: (start..start + range.len()).collect(),
        })
    };
    let model = descent.run(config.vae.init(device)?, shard_loss, observer)?;
    let scaling_factor = measure_scale(&model, source, device)?;
    Ok((model, scaling_factor))
}

/// What of the VAE is trained.
#[derive(Debug, Clone, Copy)]
enum Parts {
    Both { kl_weight: f64 },
    Decoder,
}

/// The squared error of reconstructed images, and the loss: with the KL divergence added, if the encoder is trained.
fn losses(
    model: &AutoencoderKL,
    images: Tensor<4>,
    seed: u64,
    parts: Parts,
) -> (Tensor<1>, Tensor<1>) {
    let device = images.device();
    let mut moments = model.encode(images.clone());
    if let Parts::Decoder = parts {
        moments.mean = moments.mean.detach();
        moments.logvar = moments.logvar.detach();
    }
    let shape = moments.mean.dims();
    let values = normal(seed, shape.iter().product());
    let noise = Tensor::from_data(TensorData::new(values, shape), &device);
    let error = (model.decode(moments.sample(noise)) - images)
        .square()
        .mean();
    let Parts::Both { kl_weight } = parts else {
        return (error.clone(), error);
    };
    let (mean, logvar) = (moments.mean, moments.logvar);
    let divergence = (mean.square() + logvar.clone().exp() - logvar - 1.0)
        .mean()
        .mul_scalar(0.5);
    (error.clone(), error + divergence.mul_scalar(kl_weight))
}

/// One over the standard deviation of the latents of 256 images.
fn measure_scale(
    model: &AutoencoderKL,
    source: &impl PairSource,
    device: &Device,
) -> Result<f64, TrainError> {
    const IMAGES: usize = 256;
    const BATCH: usize = 32;
    let mut sum = 0.0;
    let mut squares = 0.0;
    let mut count = 0.0;
    for start in (0..IMAGES).step_by(BATCH) {
        let latents = model
            .encode(image_tensor(&pairs(source, start, BATCH)?.0, device)?)
            .mean;
        for value in host(latents)? {
            sum += f64::from(value);
            squares += f64::from(value) * f64::from(value);
            count += 1.0;
        }
    }
    let variance = squares / count - (sum / count) * (sum / count);
    Ok(1.0 / variance.sqrt())
}
