//! Training the VAE.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor, TensorData};
use selma_diffusion::models::AutoencoderKL;
use selma_diffusion::noise::{derive_seed, normal};

use super::pairs::{image_tensor, pairs};
use super::{PairSource, PretrainConfig};
use crate::factors::{host, scalar};
use crate::shards::{HALVES, for_each_shard, part};
use crate::{Observer, Progress, TrainError, one_cycle};

/// Trains a VAE on the images of a source, and measures its `scaling_factor`.
///
/// The loss is the mean squared error per pixel plus a little KL divergence, as for the VAE of latent diffusion (arXiv
/// 2112.10752) without its adversary.
///
/// # Errors
///
/// If the configuration cannot be built, an example cannot be made, the loss is not finite, or the observer stops.
pub fn pretrain_vae(
    config: &PretrainConfig,
    source: &impl PairSource,
    device: &Device,
    observer: &mut Observer<'_>,
) -> Result<(AutoencoderKL, f64), TrainError> {
    let training = &config.vae_training;
    device.seed(derive_seed(config.seed, "vae init", &[]));
    let mut model = config.vae.init(device)?.train();
    let mut optimizer = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.0)
        .init();
    for step in 0..training.steps {
        let shards = for_each_shard(HALVES, |shard| {
            // Leaves of its own: a graph whose leaves are shared can be walked back once only.
            let model = model.clone().fork(device);
            let range = part(training.batch_size, HALVES, shard);
            let start = step * training.batch_size + range.start;
            let images = image_tensor(&pairs(source, start, range.len())?.0, device)?;
            let share = range.len() as f64 / training.batch_size as f64;
            let seed = derive_seed(config.seed, "vae latents", &[step as u64, shard as u64]);
            let (error, loss) = losses(&model, images, seed, training.kl_weight);
            let value = scalar(&error)? * share as f32;
            let gradients = loss.mul_scalar(share).backward();
            Ok((value, GradientsParams::from_grads(gradients, &model)))
        })?;
        let value: f32 = shards.iter().map(|(value, _)| value).sum();
        if !value.is_finite() {
            return Err(TrainError::NonFinite {
                step: step + 1,
                loss: value,
                samples: Vec::new(),
            });
        }
        let mut sums = GradientsAccumulator::new();
        for (_, gradients) in shards {
            sums.accumulate(&model, gradients);
        }
        let learning_rate = one_cycle(step, training.steps, training.learning_rate);
        model = optimizer.step(learning_rate, model, sums.grads());
        let progress = Progress {
            step: step + 1,
            steps: training.steps,
            loss: value,
            learning_rate,
            grad_norm: None,
        };
        if observer(progress).is_break() {
            return Err(TrainError::Cancelled { step: step + 1 });
        }
    }
    let model = model.valid();
    let scaling_factor = measure_scale(&model, source, device)?;
    Ok((model, scaling_factor))
}

/// The squared error of reconstructed images, and the loss: with the KL divergence added.
fn losses(
    model: &AutoencoderKL,
    images: Tensor<4>,
    seed: u64,
    kl_weight: f64,
) -> (Tensor<1>, Tensor<1>) {
    let device = images.device();
    let moments = model.encode(images.clone());
    let shape = moments.mean.dims();
    let values = normal(seed, shape.iter().product());
    let noise = Tensor::from_data(TensorData::new(values, shape), &device);
    let error = (model.decode(moments.sample(noise)) - images)
        .square()
        .mean();
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
