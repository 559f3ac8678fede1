//! Training text encoder and UNet together.

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_diffusion::DiffusionError;
use selma_diffusion::models::{AutoencoderKL, ClipTextModel, UNet2DConditionModel};
use selma_diffusion::noise::{derive_seed, normal};
use selma_diffusion::schedulers::{NoiseSchedule, SchedulerConfig};
use selma_diffusion::tokenizer::ClipTokenizer;

use super::pairs::{image_tensor, pairs};
use super::{PairSource, PretrainConfig};
use crate::factors::{host, scalar};
use crate::{Observer, Progress, TrainError, one_cycle};

/// Text encoder and UNet as one module, so that one optimizer trains both.
#[derive(Module, Debug)]
struct Denoiser {
    text_encoder: ClipTextModel,
    unet: UNet2DConditionModel,
}

/// Trains text encoder and UNet to predict noise (arXiv 2006.11239) on latents of a trained VAE.
///
/// `scaling_factor` is the VAE's.
///
/// # Errors
///
/// If a configuration cannot be built, an example cannot be made, the loss is not finite, or the observer stops.
pub fn pretrain_denoiser(
    config: &PretrainConfig,
    source: &impl PairSource,
    vae: &AutoencoderKL,
    scaling_factor: f64,
    tokenizer: &ClipTokenizer,
    scheduler: &SchedulerConfig,
    device: &Device,
    observer: &mut Observer<'_>,
) -> Result<(ClipTextModel, UNet2DConditionModel), TrainError> {
    let training = &config.denoiser_training;
    let schedule = NoiseSchedule::new(scheduler).map_err(DiffusionError::from)?;
    let pairs = Pairs::encode(config, source, vae, scaling_factor, tokenizer, device)?;
    device.seed(derive_seed(config.seed, "denoiser init", &[]));
    let mut model = Denoiser {
        text_encoder: config.text_encoder.init(device)?,
        unet: config.unet.init(device)?,
    }
    .train();
    let mut optimizer = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
        .with_grad_clipping(Some(
            burn::optim::grad_clipping::GradientClippingConfig::Norm(1.0),
        ))
        .init();
    for step in 0..training.steps {
        let batch = pairs.batch(config, step, schedule.alphas_cumprod().len(), device);
        let [count, ..] = batch.latents.dims();
        let alphas = batch.timesteps.iter().map(|&t| schedule.alpha_cumprod(t));
        let alphas = alphas
            .collect::<Result<Vec<f64>, _>>()
            .map_err(DiffusionError::from)?;
        let per_sample = |coefficient: fn(f64) -> f64| {
            let values: Vec<f32> = alphas.iter().map(|&a| coefficient(a) as f32).collect();
            Tensor::<4>::from_data(TensorData::new(values, [count, 1, 1, 1]), device)
        };
        let noisy = batch.latents * per_sample(f64::sqrt)
            + batch.noise.clone() * per_sample(|alpha| (1.0 - alpha).sqrt());
        let context = model.text_encoder.forward(batch.ids).last_hidden_state;
        let timesteps: Vec<f64> = batch.timesteps.iter().map(|&t| t as f64).collect();
        let prediction = model.unet.forward(noisy, &timesteps, &context);
        let loss = (prediction - batch.noise).square().mean();
        let value = scalar(&loss)?;
        if !value.is_finite() {
            return Err(TrainError::NonFinite {
                step: step + 1,
                loss: value,
                samples: batch.samples,
            });
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let learning_rate = one_cycle(step, training.steps, training.learning_rate);
        model = optimizer.step(learning_rate, model, gradients);
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
    Ok((model.text_encoder, model.unet))
}

/// All pairs, encoded.
struct Pairs {
    /// Scaled latents, one after the other.
    latents: Vec<f32>,
    shape: [usize; 3],
    /// Token ids, one text after the other.
    ids: Vec<i32>,
    empty: Vec<i32>,
    count: usize,
}

/// What one step is computed from.
struct Batch {
    latents: Tensor<4>,
    noise: Tensor<4>,
    ids: Tensor<2, Int>,
    timesteps: Vec<usize>,
    samples: Vec<usize>,
}

impl Pairs {
    fn encode(
        config: &PretrainConfig,
        source: &impl PairSource,
        vae: &AutoencoderKL,
        scaling_factor: f64,
        tokenizer: &ClipTokenizer,
        device: &Device,
    ) -> Result<Self, TrainError> {
        const BATCH: usize = 32;
        let count = config.denoiser_training.pairs;
        let token_ids = |text: &str| -> Result<Vec<i32>, TrainError> {
            let encoding = tokenizer.encode(text).map_err(DiffusionError::from)?;
            Ok(encoding.ids.into_iter().map(|id| id as i32).collect())
        };
        let mut latents = Vec::new();
        let mut shape = [0; 3];
        let mut ids = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let size = BATCH.min(count - start);
            let (images, captions) = pairs(source, start, size)?;
            let mean = vae.encode(image_tensor(&images, device)?).mean;
            let [_, channels, height, width] = mean.dims();
            shape = [channels, height, width];
            latents.extend(host(mean.mul_scalar(scaling_factor))?);
            for caption in &captions {
                ids.extend(token_ids(caption)?);
            }
        }
        if count == 0 {
            return Err(TrainError::NoData);
        }
        Ok(Self {
            latents,
            shape,
            ids,
            empty: token_ids("")?,
            count,
        })
    }

    /// The batch of a step: pairs in an order drawn anew each epoch, noise, timesteps and dropped captions keyed by the
    /// step alone.
    fn batch(
        &self,
        config: &PretrainConfig,
        step: usize,
        timesteps: usize,
        device: &Device,
    ) -> Batch {
        let size = config.denoiser_training.batch_size;
        let [channels, height, width] = self.shape;
        let elements = channels * height * width;
        let length = self.empty.len();
        let mut rng = ChaCha8Rng::seed_from_u64(derive_seed(config.seed, "batch", &[step as u64]));
        let mut latents: Vec<f32> = Vec::with_capacity(size * elements);
        let mut ids: Vec<i32> = Vec::with_capacity(size * length);
        let mut times = Vec::with_capacity(size);
        let mut samples = Vec::with_capacity(size);
        let mut order: Option<(usize, Vec<usize>)> = None;
        for position in step * size..(step + 1) * size {
            let (epoch, offset) = (position / self.count, position % self.count);
            let drawn = order.take().filter(|(drawn, _)| *drawn == epoch);
            let (_, permutation) = order.insert(drawn.unwrap_or_else(|| {
                let seed = derive_seed(config.seed, "epoch", &[epoch as u64]);
                let mut permutation: Vec<usize> = (0..self.count).collect();
                permutation.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
                (epoch, permutation)
            }));
            let pair = permutation.get(offset).copied().unwrap_or_default();
            latents.extend(self.latents.iter().skip(pair * elements).take(elements));
            if rng.random_bool(config.denoiser_training.caption_dropout) {
                ids.extend(&self.empty);
            } else {
                ids.extend(self.ids.iter().skip(pair * length).take(length));
            }
            times.push(rng.random_range(0..timesteps));
            samples.push(pair);
        }
        let shape = [size, channels, height, width];
        let noise = normal(
            derive_seed(config.seed, "noise", &[step as u64]),
            size * elements,
        );
        Batch {
            latents: Tensor::from_data(TensorData::new(latents, shape), device),
            noise: Tensor::from_data(TensorData::new(noise, shape), device),
            ids: Tensor::from_data(TensorData::new(ids, [size, length]), device),
            timesteps: times,
            samples,
        }
    }
}
