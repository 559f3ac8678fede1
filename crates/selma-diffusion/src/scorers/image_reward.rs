//! ImageReward (arXiv 2304.05977).

use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use image::RgbImage;

use super::aesthetic::AestheticHead;
use super::processor::{Framing, ImageProcessor};
use crate::DiffusionError;
use crate::checkpoint::is_constant;
use crate::config::{ConfigError, read_json};
use crate::image::read;
use crate::models::BlipReader;
use crate::single_file::image_reward::{
    image_reward_config, image_reward_name, is_image_reward_extra,
};
use crate::tokenizer::BertTokenizer;
use crate::weights::{Weights, load};

/// What the weights are called in a folder.
const FILE: &str = "ImageReward.pt";
/// The configuration of the text network, beside them.
const CONFIG: &str = "med_config.json";
/// What may lie beside the weights and is read.
pub(super) const BESIDE: [&str; 4] = {
    let [whole, vocabulary, config] = BertTokenizer::FILES;
    [CONFIG, whole, vocabulary, config]
};
/// The layers from the text's first place to the reward.
const HEAD: &str = "mlp.";
/// Longest text in tokens.
const LENGTH: usize = 35;
/// Mean of the rewards, and their standard deviation (`ImageReward.py`).
const MEAN: f64 = 0.167_173_628_300_524_26;
const STD: f64 = 1.033_339_496_605_407_2;

/// The folder of an ImageReward, and its weights.
pub(super) fn located(path: &Path) -> (PathBuf, PathBuf) {
    if path.is_dir() {
        return (path.to_owned(), path.join(FILE));
    }
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    (folder, path.to_owned())
}

/// BLIP that reads a text while it looks at the picture, and what makes a reward of it.
#[derive(Debug)]
pub(super) struct ImageReward {
    model: BlipReader,
    head: AestheticHead,
    tokenizer: BertTokenizer,
    processor: ImageProcessor,
    device: Device,
}

impl ImageReward {
    /// Loads `ImageReward.pt`, or the folder it lies in. BERT's vocabulary has to lie beside it.
    ///
    /// # Errors
    ///
    /// If files are missing, damaged, or do not fit each other.
    pub(super) fn load(path: &Path, device: &Device) -> Result<Self, DiffusionError> {
        let (folder, file) = located(path);
        let weights = Weights::open(&file)?;
        let mut config = image_reward_config(&weights)?;
        let text_config = folder.join(CONFIG);
        let mut config_path = file;
        if text_config.is_file() {
            config.text_config = read_json(&text_config)?;
            config_path = text_config;
        }
        let in_file = |error: ConfigError| error.in_file(&config_path);
        let model = config.init_reader(device).map_err(in_file)?;
        let extra =
            |name: &str| is_constant(name) || is_image_reward_extra(name) || name.starts_with(HEAD);
        let model = load(model, &weights, FloatDType::F32, image_reward_name, extra)?;
        let (text, vision) = (&config.text_config, &config.vision_config);
        let tokenizer = BertTokenizer::load(&folder)?;
        let least = tokenizer.id_bound();
        if text.vocab_size < least {
            let expected = format!("at least {least}, for the ids of the tokenizer beside it");
            let error = ConfigError::invalid("vocab_size", expected, text.vocab_size);
            return Err(in_file(error).into());
        }
        let length = LENGTH.min(text.max_position_embeddings);
        Ok(Self {
            head: AestheticHead::of(&weights, HEAD, text.hidden_size)?,
            tokenizer: tokenizer.with_max_length(length)?,
            processor: ImageProcessor {
                size: u32::try_from(vision.image_size).unwrap_or(u32::MAX),
                framing: Framing::Torchvision,
            },
            model,
            device: device.clone(),
        })
    }

    /// The rewards of pictures and their texts. The pictures are looked at together; texts are of different lengths and read one by one.
    pub(super) fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, DiffusionError> {
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        let images: Vec<&RgbImage> = pictures.iter().map(|(image, _)| *image).collect();
        let pixels = self.processor.prepare(&images, &self.device);
        let seen = self.model.vision_model.forward(pixels);
        let scores = pictures.iter().enumerate().map(|(place, (_, text))| {
            let ids = self.tokenizer.encode(text)?.ids;
            let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let shape = [1, ids.len()];
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &self.device);
            let seen = seen.clone().narrow(0, place, 1);
            let hidden = self.model.text_encoder.forward(ids, &seen, false);
            let first = read(hidden.narrow(1, 0, 1))?;
            let first: Vec<f64> = first.into_iter().map(f64::from).collect();
            Ok((self.head.score(&first) - MEAN) / STD)
        });
        scores.collect()
    }

    /// How many tokens at the end of a text are not read.
    pub(super) fn dropped_tokens(&self, text: &str) -> Result<usize, DiffusionError> {
        Ok(self.tokenizer.encode(text)?.dropped)
    }
}
