//! CLIP as a whole: both towers and what brings them together, as transformers' `CLIPModel`.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use selma_lora::nn::LoraLinear;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::clip_text::{ClipTextConfig, ClipTextTransformer};
use super::clip_vision::{ClipVisionConfig, ClipVisionTransformer};
use crate::config::{ConfigError, WIDTHS, require_sizes};

/// The `config.json` of a whole CLIP, with transformers' defaults (`CLIPConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// The text tower.
    pub text_config: ClipTextConfig,
    /// The vision tower.
    pub vision_config: ClipVisionConfig,
    /// Width of both embeddings, whatever the configurations of the towers say.
    pub projection_dim: usize,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            text_config: ClipTextConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: 512,
            rest: Map::new(),
        }
    }
}

impl ClipConfig {
    /// Checks that the model can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let text = self.text_config.validate();
        text.map_err(|error| error.within("text_config"))?;
        let vision = self.vision_config.validate();
        vision.map_err(|error| error.within("vision_config"))?;
        require_sizes(&[("projection_dim", self.projection_dim, WIDTHS)])
    }

    /// The model, its weights drawn only if none are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<ClipModel, ConfigError> {
        self.validate()?;
        let (text, vision) = (&self.text_config, &self.vision_config);
        Ok(ClipModel {
            text_model: text.transformer(device),
            vision_model: vision.transformer(device),
            visual_projection: vision.projection(self.projection_dim, device),
            text_projection: text.projection(self.projection_dim, device),
        })
    }
}

/// Both towers of CLIP and their projections into one space. The scale of the logits, a single number, is no part of it.
#[derive(Module, Debug)]
pub struct ClipModel {
    /// The text tower.
    pub text_model: ClipTextTransformer,
    /// The vision tower.
    pub vision_model: ClipVisionTransformer,
    /// Of the pooled picture.
    pub visual_projection: LoraLinear,
    /// Of the pooled text.
    pub text_projection: LoraLinear,
}

impl ClipModel {
    /// Embeds pictures (`get_image_features`); the vectors are not normalised.
    ///
    /// # Shapes
    ///
    /// - pixels: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, projection_dim]`
    ///
    /// # Panics
    ///
    /// If the pictures are of another size.
    #[must_use]
    pub fn embed_images(&self, pixels: Tensor<4>) -> Tensor<2> {
        self.visual_projection
            .forward(self.vision_model.forward(pixels))
    }

    /// Embeds texts (`get_text_features`); the vectors are not normalised.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, length]`, `length` at most `max_position_embeddings`
    /// - output: `[batch, projection_dim]`
    ///
    /// # Panics
    ///
    /// If a text is longer than the table of positions.
    #[must_use]
    pub fn embed_texts(&self, input_ids: Tensor<2, Int>) -> Tensor<2> {
        self.text_projection
            .forward(self.text_model.forward(input_ids).pooled)
    }
}
