//! A whole Stable Diffusion in memory.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use selma_lora::nn::{attach, detach};
use selma_lora::{Adapter, LoadReport};

use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextModel, UNet2DConditionModel,
    UNet2DConditionModelConfig,
};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::tokenizer::ClipTokenizer;
use crate::{Checkpoint, DiffusionError};

/// Name of the text encoder's modules in an adapter.
const TEXT_ENCODER: &str = "text_encoder";
/// Name of the UNet's modules in an adapter.
const UNET: &str = "unet";

/// The components of a Stable Diffusion pipeline.
#[derive(Debug, Clone)]
pub struct StableDiffusion {
    /// From text to token ids.
    pub tokenizer: ClipTokenizer,
    /// From token ids to the UNet's context.
    pub text_encoder: ClipTextModel,
    /// The denoising network.
    pub unet: UNet2DConditionModel,
    /// Configuration of the UNet.
    pub unet_config: UNet2DConditionModelConfig,
    /// Between images and latents.
    pub vae: AutoencoderKL,
    /// Configuration of the VAE.
    pub vae_config: AutoencoderKLConfig,
    /// The scheduler that the checkpoint names.
    pub scheduler: SchedulerKind,
    /// Its configuration, from which every other scheduler is built, too.
    pub scheduler_config: SchedulerConfig,
    device: Device,
    dtype: FloatDType,
}

impl StableDiffusion {
    /// Loads a folder in diffusers' layout, or a file in the original layout.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint`]: anything missing, damaged, or not fitting together.
    pub fn load(path: impl AsRef<Path>, device: &Device) -> Result<Self, DiffusionError> {
        Self::from_checkpoint(&Checkpoint::open(path)?, device)
    }

    /// Loads all components of a checkpoint.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint`]: anything missing, damaged, or not fitting together.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<Self, DiffusionError> {
        let (scheduler, scheduler_config) = checkpoint.scheduler()?;
        let unet = checkpoint.unet(device)?;
        let vae = checkpoint.vae(device)?;
        Ok(Self {
            tokenizer: checkpoint.tokenizer()?,
            text_encoder: checkpoint.text_encoder(device)?.model,
            unet: unet.model,
            unet_config: unet.config,
            vae: vae.model,
            vae_config: vae.config,
            scheduler,
            scheduler_config,
            device: device.clone(),
            dtype: FloatDType::F32,
        })
    }

    /// The device of all components.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The number type that the networks compute in.
    #[must_use]
    pub fn dtype(&self) -> FloatDType {
        self.dtype
    }

    /// Converts all networks to another number type.
    #[must_use]
    pub fn with_dtype(mut self, dtype: FloatDType) -> Self {
        let mut cast = Cast(dtype);
        self.text_encoder = self.text_encoder.map(&mut cast);
        self.unet = self.unet.map(&mut cast);
        self.vae = self.vae.map(&mut cast);
        self.dtype = dtype;
        self
    }

    /// Adds an adapter to the networks it was made for, as branches called `name` with strength `weight`.
    ///
    /// # Errors
    ///
    /// If nothing of the adapter fits, or a part of it does not; the pipeline is then as before.
    pub fn attach(
        &mut self,
        adapter: &Adapter,
        name: &str,
        weight: f64,
    ) -> Result<Vec<LoadReport>, DiffusionError> {
        let has = |component: &str| {
            let below = format!("{component}.");
            adapter.modules.keys().any(|path| path.starts_with(&below))
        };
        let mut reports = Vec::new();
        if has(TEXT_ENCODER) {
            reports.push(attach(
                &mut self.text_encoder,
                TEXT_ENCODER,
                adapter,
                name,
                weight,
            )?);
        }
        if has(UNET) || reports.is_empty() {
            match attach(&mut self.unet, UNET, adapter, name, weight) {
                Ok(report) => reports.push(report),
                Err(error) => {
                    detach(&mut self.text_encoder, name);
                    return Err(error.into());
                }
            }
        }
        Ok(reports)
    }

    /// Removes an adapter; the networks are bit for bit as before it was added.
    pub fn detach(&mut self, name: &str) {
        detach(&mut self.text_encoder, name);
        detach(&mut self.unet, name);
    }

    /// Encodes texts for the UNet.
    ///
    /// # Shapes
    ///
    /// - output: `[texts.len(), max length, cross_attention_dim]`
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized.
    pub fn encode_texts(&self, texts: &[&str]) -> Result<Tensor<3>, DiffusionError> {
        let mut ids: Vec<i32> = Vec::new();
        for text in texts {
            let encoding = self.tokenizer.encode(text)?;
            ids.extend(encoding.ids.into_iter().map(|id| id as i32));
        }
        let length = ids.len() / texts.len().max(1);
        let shape = [texts.len(), length];
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &self.device);
        Ok(self.text_encoder.forward(ids).last_hidden_state)
    }
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}
