//! Where a picture comes from: what its file says of how it was drawn.

use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use crate::commands::adapters::AnyAdapter;
use anyhow::anyhow;
use burn::tensor::FloatDType;
use selma_diffusion::png::{Settings, UsedAdapter, UsedFile, UsedImage};
use selma_diffusion::{Checkpoint, InitImage, StableDiffusion, TextToImage};

use super::Args;
use crate::commands::values::WeightedFile;

/// The files that the pictures owe their look to.
#[derive(Debug)]
pub struct Origin {
    model: Model,
    vae: Option<UsedFile>,
    adapters: Vec<UsedAdapter>,
    /// One for all pictures, or one each.
    init_images: Vec<UsedFile>,
    init_latents: Option<UsedFile>,
}

/// The hash of a model's weights is computed while the first picture is drawn.
#[derive(Debug)]
enum Model {
    Hashing(Option<JoinHandle<anyhow::Result<UsedFile>>>),
    Known(UsedFile),
}

impl Model {
    /// The name is that by which the model was asked for.
    fn start(name: PathBuf, checkpoint: Checkpoint) -> Self {
        let hash = move || Ok(UsedFile::new(&name, checkpoint.sha256()?));
        Self::Hashing(Some(thread::spawn(hash)))
    }

    fn get(&mut self) -> anyhow::Result<&UsedFile> {
        if let Self::Hashing(thread) = self {
            let result = thread.take().map(JoinHandle::join);
            let failed = || anyhow!("the model could not be hashed");
            let file = result.ok_or_else(failed)?.map_err(|_| failed())?;
            *self = Self::Known(file?);
        }
        match self {
            Self::Known(file) => Ok(file),
            Self::Hashing(_) => Err(anyhow!("the model could not be hashed")),
        }
    }
}

impl Origin {
    /// Reads the files for their hashes, the model in the background.
    pub fn start(
        args: &Args,
        checkpoint: &Checkpoint,
        adapters: &[(&WeightedFile, AnyAdapter)],
    ) -> anyhow::Result<Self> {
        let adapter = |(file, adapter): &(&WeightedFile, AnyAdapter)| UsedAdapter {
            file: UsedFile::new(&file.path, adapter.file_sha256().to_owned()),
            weight: file.weight,
            fused: args.fuse || adapter.is_dense(),
        };
        let used = |path: &PathBuf| UsedFile::of(path);
        let vae = args.options.vae().zip(checkpoint.other_vae_sha256()?);
        Ok(Self {
            vae: vae.map(|(path, hash)| UsedFile::new(path, hash)),
            adapters: adapters.iter().map(adapter).collect(),
            init_images: args
                .init_images
                .iter()
                .map(used)
                .collect::<Result<_, _>>()?,
            init_latents: args.init_latents.as_ref().map(used).transpose()?,
            model: Model::start(args.model.clone(), checkpoint.clone()),
        })
    }

    /// The settings of image `index` of a request. `prompt` is the number of its prompt on the command line.
    pub fn settings(
        &mut self,
        pipeline: &StableDiffusion,
        request: &TextToImage,
        index: usize,
        prompt: usize,
    ) -> anyhow::Result<Settings> {
        let kind = pipeline.scheduler_for(request.scheduler)?;
        let strength = |init: &InitImage| init.strength.unwrap_or(pipeline.default_strength());
        let strength = request.init_image.as_ref().map(strength);
        let init_image = shared_or_own(&self.init_images, prompt).zip(strength);
        Ok(Settings {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            prompt: request.prompts.get(index).cloned().unwrap_or_default(),
            negative_prompt: shared_or_own(&request.negative_prompts, index).cloned(),
            seed: request.seeds.get(index).copied().unwrap_or_default(),
            steps: request.steps,
            guidance: request.guidance.unwrap_or(pipeline.default_guidance()),
            guidance_rescale: request.guidance_rescale,
            eta: request.eta,
            clip_skip: request.clip_skip,
            micro_conditioning: request.micro_conditioning,
            scheduler: kind.name().to_owned(),
            scheduler_config: kind.applied_to(&pipeline.scheduler_config),
            dtype: dtype_name(pipeline.dtype()).to_owned(),
            vae_tile_size: pipeline.vae_tiling.map(|tiling| tiling.size()),
            model: self.model.get()?.clone(),
            vae: self.vae.clone(),
            adapters: self.adapters.clone(),
            init_image: init_image.map(|(file, strength)| UsedImage {
                file: file.clone(),
                strength,
            }),
            init_latents: self.init_latents.clone(),
        })
    }
}

fn shared_or_own<T>(all: &[T], index: usize) -> Option<&T> {
    match all {
        [shared] => Some(shared),
        _ => all.get(index),
    }
}

fn dtype_name(dtype: FloatDType) -> &'static str {
    match dtype {
        FloatDType::F16 => "f16",
        FloatDType::BF16 => "bf16",
        _ => "f32",
    }
}
