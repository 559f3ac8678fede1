//! Training text encoder and UNet together.

use burn::module::Module;
use burn::optim::AdamWConfig;
use burn::optim::grad_clipping::GradientClippingConfig;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_diffusion::DiffusionError;
use selma_diffusion::models::{AutoencoderKL, ClipTextModel, UNet2DConditionModel};
use selma_diffusion::noise::{derive_seed, normal};
use selma_diffusion::tokenizer::ClipTokenizer;

use super::descent::{Descent, ShardLoss};
use super::optimizer::Rates;
use super::order::Order;
use super::pairs::{image_tensor, pairs};
use super::{Checkpoints, PairSource, PretrainConfig};
use crate::factors::{host, scalar};
use crate::shards::{HALVES, part};
use crate::{Batch, Denoising, Objective, Observer, TrainError};

/// Text encoder and UNet as one module, so that one optimizer trains both.
#[derive(Module, Debug)]
struct Denoiser {
    text_encoder: ClipTextModel,
    unet: UNet2DConditionModel,
}

/// What text encoder and UNet are trained on.
#[derive(Debug, Clone, Copy)]
pub struct Foundation<'a> {
    /// From images to latents.
    pub vae: &'a AutoencoderKL,
    /// The VAE's.
    pub scaling_factor: f64,
    /// From captions to token ids.
    pub tokenizer: &'a ClipTokenizer,
    /// Where they start; from fresh weights if nothing is given.
    pub start: Option<(&'a ClipTextModel, &'a UNet2DConditionModel)>,
}

/// Trains text encoder and UNet on latents of a trained VAE, to predict what the scheduler's configuration says: see
/// [`Denoising`].
///
/// The initial weights are drawn from burn's generator for the device, which is one for the whole process and is seeded first: nothing else may draw from it
/// until the first step is done.
///
/// # Errors
///
/// If a configuration cannot be built, an example cannot be made, the loss is not finite, the observer stops, or a
/// checkpoint cannot be read or written.
pub fn pretrain_denoiser(
    config: &PretrainConfig,
    source: &impl PairSource,
    foundation: Foundation<'_>,
    device: &Device,
    checkpoints: Option<Checkpoints<'_>>,
    observer: &mut Observer<'_>,
) -> Result<(ClipTextModel, UNet2DConditionModel), TrainError> {
    let training = &config.denoiser_training;
    let objective = Denoising::new(&config.scheduler)?;
    let timesteps = config.scheduler.num_train_timesteps();
    let pairs = Pairs::encode(config, source, foundation, device)?;
    let (text_encoder, unet) = if let Some((text_encoder, unet)) = foundation.start {
        (text_encoder.clone(), unet.clone())
    } else {
        device.seed(derive_seed(config.seed, "denoiser init", &[]));
        (config.text_encoder.init(device)?, config.unet.init(device)?)
    };
    let model = Denoiser { text_encoder, unet };
    let adamw = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)));
    let descent = Descent {
        phases: vec![training.steps],
        rates: Rates {
            others: training.learning_rate,
            matrices: training.matrix_learning_rate,
        },
        adamw,
        device,
        checkpoints,
    };
    let shard_loss = |model: &Denoiser, step, shard| {
        let batch = pairs.batch(config, step, shard, timesteps, device);
        let share = batch.samples.len() as f64 / training.batch_size as f64;
        let context = model.text_encoder.forward(batch.ids).last_hidden_state;
        let noised = Batch {
            latents: batch.latents,
            noise: batch.noise,
            input_noise: None,
            timesteps: batch.timesteps,
            conditioning: context.into(),
        };
        let loss = objective.loss(&crate::Denoiser::new(&model.unet), &noised)?;
        let loss = loss.value.mul_scalar(share);
        let reported = scalar(&loss)?;
        Ok(ShardLoss {
            loss,
            reported,
            samples: batch.samples,
        })
    };
    let model = descent.run(model, shard_loss, observer)?;
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

/// What a shard of a step is computed from.
struct Drawn {
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
        foundation: Foundation<'_>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        const BATCH: usize = 32;
        let count = config.denoiser_training.pairs;
        let token_ids = |text: &str| -> Result<Vec<i32>, TrainError> {
            let encoding = foundation
                .tokenizer
                .encode(text)
                .map_err(DiffusionError::from)?;
            Ok(encoding.ids.into_iter().map(|id| id as i32).collect())
        };
        let mut latents = Vec::new();
        let mut shape = [0; 3];
        let mut ids = Vec::new();
        for start in (0..count).step_by(BATCH) {
            let size = BATCH.min(count - start);
            let (images, captions) = pairs(source, start, size)?;
            let mean = foundation.vae.encode(image_tensor(&images, device)?).mean;
            let [_, channels, height, width] = mean.dims();
            shape = [channels, height, width];
            latents.extend(host(mean.mul_scalar(foundation.scaling_factor))?);
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

    /// A shard of the batch of a step: pairs in an order drawn anew each epoch; noise, timesteps and dropped captions
    /// keyed by step and shard alone.
    fn batch(
        &self,
        config: &PretrainConfig,
        step: usize,
        shard: usize,
        timesteps: usize,
        device: &Device,
    ) -> Drawn {
        let range = part(config.denoiser_training.batch_size, HALVES, shard);
        let size = range.len();
        let first = step * config.denoiser_training.batch_size + range.start;
        let [channels, height, width] = self.shape;
        let elements = channels * height * width;
        let length = self.empty.len();
        let keys = [step as u64, shard as u64];
        let mut rng = ChaCha8Rng::seed_from_u64(derive_seed(config.seed, "batch", &keys));
        let mut latents: Vec<f32> = Vec::with_capacity(size * elements);
        let mut ids: Vec<i32> = Vec::with_capacity(size * length);
        let mut times = Vec::with_capacity(size);
        let mut samples = Vec::with_capacity(size);
        let mut order = Order::default();
        for position in first..first + size {
            let pair = order.sample(config.seed, position, self.count);
            latents.extend(self.latents.iter().skip(pair * elements).take(elements));
            if rng.random_bool(config.denoiser_training.caption_dropout) {
                ids.extend(&self.empty);
            } else {
                ids.extend(self.ids.iter().skip(pair * length).take(length));
            }
            times.push(config.denoiser_training.timesteps.draw(timesteps, &mut rng));
            samples.push(pair);
        }
        let shape = [size, channels, height, width];
        let noise = normal(derive_seed(config.seed, "noise", &keys), size * elements);
        Drawn {
            latents: Tensor::from_data(TensorData::new(latents, shape), device),
            noise: Tensor::from_data(TensorData::new(noise, shape), device),
            ids: Tensor::from_data(TensorData::new(ids, [size, length]), device),
            timesteps: times,
            samples,
        }
    }
}
