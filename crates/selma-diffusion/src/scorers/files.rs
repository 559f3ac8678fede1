//! CLIP on disk: a folder in the layout of transformers, or a file under OpenCLIP's or transformers' names.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use serde::Deserialize;

use super::processor::{Framing, require_processor};
use crate::DiffusionError;
use crate::checkpoint::is_constant;
use crate::config::{ConfigError, read_json};
use crate::models::{ClipConfig, ClipModel, ClipTextConfig, ClipVisionConfig};
use crate::nn::Activation;
use crate::single_file::open_clip;
use crate::tokenizer::{ClipTokenizer, STANDARD};
use crate::weights::{self, Weights, load};

/// What OpenCLIP saves a model as, the preferred one first.
const OPEN_CLIP: [&str; 2] = ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"];
/// OpenCLIP's configuration beside them.
const OPEN_CLIP_CONFIG: &str = "open_clip_config.json";
/// The configuration of transformers.
const CONFIG: &str = "config.json";
/// What may lie beside the weights and is read.
pub(super) const BESIDE: [&str; 7] = {
    let [whole, vocabulary, merges, config, special] = ClipTokenizer::FILES;
    [
        CONFIG,
        OPEN_CLIP_CONFIG,
        whole,
        vocabulary,
        merges,
        config,
        special,
    ]
};
/// The scale of the logits, the one parameter that is a single number.
const LOGIT_SCALE: &str = "logit_scale";
/// Fills up texts; what comes behind the end token does not count.
const PAD: &str = "<|endoftext|>";

/// A whole CLIP on disk, of which nothing large is read before it is asked for.
#[derive(Debug, Clone)]
pub struct StoredClip {
    /// What `config.json` says, or what follows from the shapes.
    pub config: ClipConfig,
    /// Where the configuration stands.
    config_path: PathBuf,
    /// The tensors, under transformers' names.
    weights: Weights,
    /// Where a tokenizer may lie.
    folder: PathBuf,
}

impl StoredClip {
    /// Opens a CLIP: a folder with `config.json` and weights in the layout of transformers; a folder with OpenCLIP's
    /// `open_clip_pytorch_model.bin` or `open_clip_model.safetensors`; or a weight file under either's names (also one in which the tensors are
    /// below `state_dict`, such as those of HPS).
    ///
    /// For OpenCLIP's names the sizes are told by the shapes. Heads and activation come from `open_clip_config.json` if that lies beside the
    /// file; else heads are as in the published models and the activation is the exact GELU, as in all models of LAION. Those of OpenAI have
    /// `quick_gelu`, and need the file.
    ///
    /// # Errors
    ///
    /// If files are missing or damaged, or the pictures are to be prepared in another way than CLIP's (`preprocessor_config.json`).
    pub fn open(path: &Path) -> Result<Self, DiffusionError> {
        let (folder, file) = located(path)?;
        let weights = Weights::open(&file)?;
        if open_clip::is_open_clip(&weights) {
            let (config, config_path) = open_clip_config(&weights, &folder)?;
            return Ok(Self {
                config,
                config_path,
                weights: open_clip::clip_tensors(&weights),
                folder,
            });
        }
        let config_path = folder.join(CONFIG);
        let config: ClipConfig = read_json(&config_path)?;
        require_processor(
            &folder,
            config.vision_config.image_size,
            Framing::Transformers,
        )?;
        Ok(Self {
            config,
            config_path,
            weights,
            folder,
        })
    }

    /// The network in `f32`.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be used, or tensors are missing, too many or of another shape.
    pub fn model(&self, device: &Device) -> Result<ClipModel, DiffusionError> {
        let model = self.config.init(device);
        let model = model.map_err(|error| error.in_file(&self.config_path))?;
        let extra = |name: &str| is_constant(name) || name == LOGIT_SCALE;
        load(model, &self.weights, FloatDType::F32, str::to_owned, extra)
    }

    /// What the cosine is multiplied by: the exponential of `logit_scale`.
    ///
    /// # Errors
    ///
    /// If there is no such tensor, or not of one number.
    pub fn logit_scale(&self) -> Result<f64, DiffusionError> {
        let (values, shape) = self.weights.require(LOGIT_SCALE)?;
        match values.as_slice() {
            &[scale] => Ok(f64::from(scale).exp()),
            _ => Err(DiffusionError::Tensor {
                path: self.weights.path().to_owned(),
                key: LOGIT_SCALE.to_owned(),
                expected: "one number".to_owned(),
                found: format!("{shape:?}"),
            }),
        }
    }

    /// The tokenizer that lies beside the weights, or CLIP's own.
    ///
    /// # Errors
    ///
    /// If its files are damaged, or it has more tokens than the text tower knows.
    pub fn tokenizer(&self) -> Result<ClipTokenizer, DiffusionError> {
        let own = ["tokenizer.json", "vocab.json"];
        let own = own.iter().any(|name| self.folder.join(name).is_file());
        let (tokenizer, place) = match own {
            true => (
                ClipTokenizer::load(&self.folder)?,
                self.folder.display().to_string(),
            ),
            false => (ClipTokenizer::standard(PAD)?, STANDARD.to_owned()),
        };
        let text = &self.config.text_config;
        let least = tokenizer.id_bound();
        if text.vocab_size < least {
            let expected = format!("at least {least}, for the ids of {place}");
            let error = ConfigError::invalid("text_config.vocab_size", expected, text.vocab_size);
            return Err(error.in_file(&self.config_path).into());
        }
        let length = tokenizer.max_length().min(text.max_position_embeddings);
        Ok(tokenizer.with_max_length(length)?)
    }
}

/// The folder of a CLIP, and its weight file or the index of several.
pub(super) fn located(path: &Path) -> Result<(PathBuf, PathBuf), DiffusionError> {
    if !path.is_dir() {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        return Ok((folder, path.to_owned()));
    }
    let config = path.join(CONFIG);
    let there = OPEN_CLIP.iter().map(|name| path.join(name));
    let mut there = there.filter(|file| file.is_file() && !config.is_file());
    let file = match there.next() {
        Some(file) => file,
        None => weights::find(path, None)?.path,
    };
    Ok((path.to_owned(), file))
}

/// The parts of `open_clip_config.json` that shapes do not tell.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenClipFile {
    model_cfg: OpenClipModel,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenClipModel {
    quick_gelu: bool,
    vision_cfg: OpenClipTower,
    text_cfg: OpenClipTower,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OpenClipTower {
    /// Channels of a head, of the vision tower; OpenCLIP's default is 64.
    head_width: Option<usize>,
    /// Number of heads, of the text tower.
    heads: Option<usize>,
}

fn open_clip_config(
    weights: &Weights,
    folder: &Path,
) -> Result<(ClipConfig, PathBuf), DiffusionError> {
    let path = folder.join(OPEN_CLIP_CONFIG);
    let (file, path) = match path.is_file() {
        true => (Some(read_json::<OpenClipFile>(&path)?.model_cfg), path),
        false => (None, weights.path().to_owned()),
    };
    let quick = file.as_ref().is_some_and(|file| file.quick_gelu);
    let hidden_act = match quick {
        true => Activation::QuickGelu,
        false => Activation::Gelu,
    };
    let base = ClipConfig {
        text_config: ClipTextConfig {
            hidden_act,
            // OpenCLIP pools at the largest id.
            eos_token_id: None,
            ..ClipTextConfig::default()
        },
        vision_config: ClipVisionConfig {
            hidden_act,
            ..ClipVisionConfig::default()
        },
        ..ClipConfig::default()
    };
    let mut config = open_clip::clip_config(weights, base)?;
    if let Some(file) = file {
        let vision = &mut config.vision_config;
        let width = file.vision_cfg.head_width.unwrap_or(64);
        vision.num_attention_heads = vision.hidden_size.checked_div(width).unwrap_or_default();
        if let Some(heads) = file.text_cfg.heads {
            config.text_config.num_attention_heads = heads;
        }
    }
    Ok((config, path))
}
