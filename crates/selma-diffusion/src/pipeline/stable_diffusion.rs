//! A whole Stable Diffusion in memory.

use std::path::Path;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use selma_lora::nn::{Attachable, detach};
use selma_lora::{LoadReport, LoraError};

use super::TextEncoder;
use crate::checkpoint::vae_dtype;
use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, ClipTextModel, UNet2DConditionModel,
    UNet2DConditionModelConfig, VaeTiling,
};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::{Checkpoint, Component, DiffusionError};

/// Name of the text encoder's modules in an adapter.
const TEXT_ENCODER: &str = "text_encoder";
/// Name of the second text encoder's modules.
const TEXT_ENCODER_2: &str = "text_encoder_2";
/// Name of the UNet's modules in an adapter.
const UNET: &str = "unet";

/// The components of a Stable Diffusion pipeline.
#[derive(Debug, Clone)]
pub struct StableDiffusion {
    /// From text to the UNet's context.
    pub text_encoder: TextEncoder,
    /// The one whose hidden states are appended to those of the first, and whose pooled output the UNet takes (SDXL).
    pub text_encoder_2: Option<TextEncoder>,
    /// Whether zeros stand for a negative prompt that is not given, rather than the empty text (SDXL).
    pub force_zeros_for_empty_prompt: bool,
    /// The denoising network.
    pub unet: UNet2DConditionModel,
    /// Configuration of the UNet.
    pub unet_config: UNet2DConditionModelConfig,
    /// Between images and latents.
    pub vae: AutoencoderKL,
    /// Configuration of the VAE.
    pub vae_config: AutoencoderKLConfig,
    /// Tiles for the VAE, which takes pictures one by one. None: each as a whole.
    pub vae_tiling: Option<VaeTiling>,
    /// The scheduler that the checkpoint names, if that is implemented; see [`scheduler_for`](Self::scheduler_for).
    pub scheduler: Option<SchedulerKind>,
    /// Its configuration, from which every other scheduler is built, too.
    pub scheduler_config: SchedulerConfig,
    device: Device,
    dtype: FloatDType,
    vae_dtype: FloatDType,
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
    /// [`DiffusionError::Request`] if the device does not compute with the number type that is asked for, else those of
    /// [`Checkpoint`]: anything missing, damaged, or not fitting together.
    pub fn from_checkpoint(
        checkpoint: &Checkpoint,
        device: &Device,
    ) -> Result<Self, DiffusionError> {
        let dtypes = [checkpoint.dtype(), checkpoint.unet_dtype()];
        if let Some(dtype) = dtypes.into_iter().find(|&x| !device.supports_dtype(x)) {
            return Err(DiffusionError::Request {
                what: "number type",
                expected: "one that the device computes with, such as f32".to_owned(),
                found: format!("{dtype:?}").to_lowercase(),
            });
        }
        checkpoint.require_agreement()?;
        let scheduler_config = checkpoint.scheduler_config()?;
        let tokenizer = checkpoint.tokenizer()?;
        let tokenizer_2 = match checkpoint.is_xl() {
            true => Some(checkpoint.tokenizer_2()?),
            false => None,
        };
        let unet = checkpoint.unet(device)?;
        let vae = checkpoint.vae(device)?;
        let encoder =
            |tokenizer, component: Component<ClipTextConfig, ClipTextModel>| TextEncoder {
                tokenizer,
                config: component.config,
                model: component.model,
            };
        let text_encoder = encoder(tokenizer, checkpoint.text_encoder(device)?);
        let text_encoder_2 = match tokenizer_2 {
            Some(tokenizer) => Some(encoder(tokenizer, checkpoint.text_encoder_2(device)?)),
            None => None,
        };
        Ok(Self {
            text_encoder,
            text_encoder_2,
            force_zeros_for_empty_prompt: checkpoint.force_zeros_for_empty_prompt(),
            unet: unet.model,
            unet_config: unet.config,
            vae_dtype: vae_dtype(checkpoint.dtype(), checkpoint.is_xl(), &vae.config),
            vae: vae.model,
            vae_config: vae.config,
            vae_tiling: None,
            scheduler: scheduler_config.kind().ok(),
            scheduler_config,
            device: device.clone(),
            dtype: checkpoint.dtype(),
        })
    }

    /// The scheduler of a request: the one that is asked for, or the checkpoint's own.
    ///
    /// # Errors
    ///
    /// [`SchedulerError::NotImplemented`](crate::schedulers::SchedulerError::NotImplemented) if none is asked for and the
    /// checkpoint's own is not implemented.
    pub fn scheduler_for(
        &self,
        asked: Option<SchedulerKind>,
    ) -> Result<SchedulerKind, DiffusionError> {
        match asked.or(self.scheduler) {
            Some(kind) => Ok(kind),
            None => Ok(self.scheduler_config.kind()?),
        }
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

    /// The number type that the VAE computes in: see [`with_dtype`](Self::with_dtype).
    #[must_use]
    pub fn vae_dtype(&self) -> FloatDType {
        self.vae_dtype
    }

    /// Scale of classifier-free guidance where a request has none: 7.5, and 5 for SDXL, as in diffusers.
    #[must_use]
    pub fn default_guidance(&self) -> f64 {
        match self.text_encoder_2 {
            None => 7.5,
            Some(_) => 5.0,
        }
    }

    /// Converts all networks to another number type.
    ///
    /// In `f16` the VAE of SDXL would overflow and stays in `f32`, unless its configuration says by `force_upcast` that it
    /// is the one that was made for `f16`.
    #[must_use]
    pub fn with_dtype(mut self, dtype: FloatDType) -> Self {
        self.vae_dtype = vae_dtype(dtype, self.text_encoder_2.is_some(), &self.vae_config);
        self.dtype = dtype;
        self.text_encoder = self.text_encoder.with_dtype(dtype);
        self.text_encoder_2 = self.text_encoder_2.map(|encoder| encoder.with_dtype(dtype));
        self.unet = self.unet.map(&mut Cast(dtype));
        self.vae = self.vae.map(&mut Cast(self.vae_dtype));
        self
    }

    /// Adds an adapter to the networks it was made for, called `name`, with strength `weight`: LoRAs as branches, updates of other
    /// kinds, which only an [`AdapterFile`](selma_lora::AdapterFile) has, in the weights.
    ///
    /// # Errors
    ///
    /// If nothing of the adapter fits, or a part of it does not; the pipeline is then as before.
    pub fn attach(
        &mut self,
        adapter: &impl Attachable,
        name: &str,
        weight: f64,
    ) -> Result<Vec<LoadReport>, DiffusionError> {
        let paths = adapter.paths();
        let has = |component: &str| paths.iter().any(|path| component_of(path) == component);
        let mut known = vec![TEXT_ENCODER, UNET];
        known.extend(self.text_encoder_2.is_some().then_some(TEXT_ENCODER_2));
        let foreign = |path: &&&str| !known.contains(&component_of(path));
        let unmatched: Vec<String> = paths
            .iter()
            .filter(foreign)
            .map(|&path| path.to_owned())
            .collect();
        if !unmatched.is_empty() {
            return Err(LoraError::NotStrict {
                unmatched,
                mis_shaped: Vec::new(),
            }
            .into());
        }
        let mut attach_all = || -> Result<Vec<LoadReport>, LoraError> {
            let mut reports = Vec::new();
            if has(TEXT_ENCODER) {
                let model = &mut self.text_encoder.model;
                reports.push(adapter.attach_to(model, TEXT_ENCODER, name, weight)?);
            }
            if let Some(encoder) = &mut self.text_encoder_2
                && has(TEXT_ENCODER_2)
            {
                let model = &mut encoder.model;
                reports.push(adapter.attach_to(model, TEXT_ENCODER_2, name, weight)?);
            }
            // An adapter of nothing at all is refused with the UNet's layers for comparison.
            if has(UNET) || reports.is_empty() {
                reports.push(adapter.attach_to(&mut self.unet, UNET, name, weight)?);
            }
            Ok(reports)
        };
        let attached = attach_all();
        if attached.is_err() {
            self.detach(name);
        }
        Ok(attached?)
    }

    /// Removes an adapter; the networks are bit for bit as before it was added.
    pub fn detach(&mut self, name: &str) {
        detach(self, name);
    }
}

impl TextEncoder {
    fn with_dtype(self, dtype: FloatDType) -> Self {
        Self {
            model: self.model.map(&mut Cast(dtype)),
            ..self
        }
    }
}

/// The first part of a module's path.
fn component_of(path: &str) -> &str {
    path.split('.').next().unwrap_or_default()
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}
