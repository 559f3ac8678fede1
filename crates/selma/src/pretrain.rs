//! Making the bundled miniature model: a small Stable Diffusion, trained on rendered scenes alone.

mod log;
mod start;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::RgbImage;
use selma_diffusion::tokenizer::ClipTokenizer;
use selma_diffusion::weights::{Dtype, save};
use selma_diffusion::{Checkpoint, DiffusionError};
use selma_durable::{create_folder, write_json};
use selma_mini::{TrainingWorld, render, vocabulary};
use selma_train::TrainError;
use selma_train::pretrain::{
    Checkpoints, Foundation, PairSource, PretrainConfig, pretrain_denoiser, pretrain_vae,
    write_tokenizer,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use log::Log;
use start::Start;

use crate::SelmaError;
use crate::files::{begin_folder, remove};

/// Marks that a folder is being made by this recipe, and holds it.
const RECIPE_FILE: &str = "pretrain.json";
/// The losses.
const LOG_FILE: &str = "pretrain.jsonl";

/// A pretraining: the world that is shown, and the networks that are trained on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainRecipe {
    /// A folder with a model to go on from. Its VAE and tokenizer are taken over, and `model.vae_training` counts for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_from: Option<PathBuf>,
    /// A folder with a model of which the VAE alone is taken over, instead: the other networks begin with fresh weights, and `model.vae_training` counts for
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae_from: Option<PathBuf>,
    /// Scenes and captions.
    pub world: TrainingWorld,
    /// Networks and how they are trained.
    pub model: PretrainConfig,
}

/// What the pretraining is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PretrainStage {
    /// Training the VAE.
    Vae,
    /// Training text encoder and UNet.
    Denoiser,
}

impl PretrainRecipe {
    /// Reads a recipe from TOML.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has an unknown, missing or mistyped key.
    pub fn load(path: &Path) -> Result<Self, SelmaError> {
        crate::files::read_toml(path)
    }

    /// Trains everything and writes a folder in diffusers' layout, with weights in half precision.
    ///
    /// A folder in which a pretraining was interrupted is continued, and gets the same files as by an uninterrupted one.
    ///
    /// # Errors
    ///
    /// If the folder belongs to another recipe, cannot be written, or a training fails.
    pub fn run(
        &self,
        out: &Path,
        device: &Device,
        observer: &mut dyn FnMut(PretrainStage, selma_train::Progress) -> ControlFlow<()>,
    ) -> Result<(), SelmaError> {
        self.validate()?;
        let unet_weights = out.join("unet").join("diffusion_pytorch_model.safetensors");
        let denoiser_checkpoint = out.join("denoiser.checkpoint.safetensors");
        if begin_folder(out, &out.join(RECIPE_FILE), self, "pretraining")? && unet_weights.is_file()
        {
            return remove(&denoiser_checkpoint);
        }
        let source = WorldSource(self.world);
        let mut config = self.model.clone();
        let mut log = Log::new(out.join(LOG_FILE));

        let tokenizer_dir = out.join("tokenizer");
        let vocab_size = write_tokenizer(&tokenizer_dir, &vocabulary(), config.max_length)?;
        config.text_encoder.vocab_size = vocab_size;
        config.text_encoder.max_position_embeddings = config.max_length;
        config.text_encoder.eos_token_id = Some(vocab_size as u32 - 1);
        config.text_encoder.architectures = vec!["CLIPTextModel".to_owned()];
        config.text_encoder.rest = field("model_type", "clip_text_model");
        config.unet.rest = field("_class_name", "UNet2DConditionModel");
        config.vae.rest = field("_class_name", "AutoencoderKL");
        config.scheduler.class_name = Some("DDIMScheduler".to_owned());
        write(
            &out.join("scheduler").join("scheduler_config.json"),
            &config.scheduler,
        )?;
        write(&out.join("model_index.json"), &model_index())?;

        let start = Start::of(self, &mut config, &tokenizer_dir, device)?;
        let vae_weights = out.join("vae").join("diffusion_pytorch_model.safetensors");
        let checkpoint = out.join("vae.checkpoint.safetensors");
        if let Some(start) = &start {
            write(&out.join("vae").join("config.json"), &config.vae)?;
            save(&start.vae, &vae_weights, Dtype::F16)?;
        } else if !vae_weights.is_file() {
            let mut observe = |progress| {
                log.push(PretrainStage::Vae, progress)?;
                observer(PretrainStage::Vae, progress)
            };
            let kept = Some(checkpoints(&checkpoint));
            let trained = pretrain_vae(&config, &source, device, kept, &mut observe);
            let (vae, scale) = log.checked(trained)?;
            config.vae.scaling_factor = scale;
            write(&out.join("vae").join("config.json"), &config.vae)?;
            save(&vae, &vae_weights, Dtype::F16)?;
        }
        remove(&checkpoint)?;
        // What is trained on is what will be loaded: the weights as they are in the file.
        let checkpoint = Checkpoint::open(out)?;
        let vae = checkpoint.vae(device)?;
        let tokenizer = ClipTokenizer::load(&out.join("tokenizer"));
        let tokenizer = tokenizer.map_err(DiffusionError::from)?;
        let mut observe = |progress| {
            log.push(PretrainStage::Denoiser, progress)?;
            observer(PretrainStage::Denoiser, progress)
        };
        let foundation = Foundation {
            vae: &vae.model,
            scaling_factor: vae.config.scaling_factor,
            tokenizer: &tokenizer,
            start: start
                .as_ref()
                .and_then(|start| start.networks.as_ref())
                .map(|(text_encoder, unet)| (text_encoder, unet)),
        };
        let kept = Some(checkpoints(&denoiser_checkpoint));
        let trained = pretrain_denoiser(&config, &source, foundation, device, kept, &mut observe);
        let (text_encoder, unet) = log.checked(trained)?;
        write(
            &out.join("text_encoder").join("config.json"),
            &config.text_encoder,
        )?;
        save(
            &text_encoder,
            &out.join("text_encoder").join("model.safetensors"),
            Dtype::F16,
        )?;
        write(&out.join("unet").join("config.json"), &config.unet)?;
        // Last, because it marks the model as finished.
        save(&unet, &unet_weights, Dtype::F16)?;
        remove(&denoiser_checkpoint)
    }

    fn validate(&self) -> Result<(), SelmaError> {
        if let (Some(_), Some(folder)) = (&self.start_from, &self.vae_from) {
            return Err(SelmaError::Setting {
                field: "vae_from".to_owned(),
                expected: "nothing beside `start_from`, which takes over the VAE, too".to_owned(),
                found: folder.display().to_string(),
            });
        }
        for (field, share) in [
            ("world.caption_noise", self.world.caption_noise),
            ("world.mix_ups", self.world.mix_ups),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(SelmaError::Setting {
                    field: field.to_owned(),
                    expected: "a share from 0 to 1".to_owned(),
                    found: share.to_string(),
                });
            }
        }
        Ok(self.model.validate()?)
    }
}

fn checkpoints(path: &Path) -> Checkpoints<'_> {
    const EVERY: usize = 2 * log::EVERY;
    Checkpoints { path, every: EVERY }
}

/// Rendered scenes with their captions.
struct WorldSource(TrainingWorld);

impl PairSource for WorldSource {
    fn pair(&self, index: u64) -> Result<(RgbImage, String), TrainError> {
        let item = self.0.item(index).map_err(|source| TrainError::Example {
            index,
            source: Box::new(source),
        })?;
        Ok((render(&item.scene), item.caption))
    }
}

fn field(name: &str, value: &str) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), json!(value))])
}

fn model_index() -> Value {
    json!({
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.42.1",
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"]
    })
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), SelmaError> {
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    Ok(write_json(path, value)?)
}
