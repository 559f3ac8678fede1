//! BLIP for answering questions (arXiv 2201.12086), as transformers' `BlipForQuestionAnswering`.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::blip_text::{BlipTextConfig, BlipTextLmHeadModel, BlipTextModel};
use super::blip_vision::{BlipVisionConfig, BlipVisionModel};
use crate::config::{ConfigError, require_default};

/// The `config.json` of a BLIP, with transformers' defaults (`BlipConfig`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlipConfig {
    /// What reads questions, and what writes answers.
    pub text_config: BlipTextConfig,
    /// The vision tower.
    pub vision_config: BlipVisionConfig,
    /// All other keys of the file.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl BlipConfig {
    /// Checks that the model can be built.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require_default(&self.rest, &[("tie_word_embeddings", Value::from(true))])?;
        let text = self.text_config.validate();
        let text = text.and_then(|()| self.text_config.validate_ends());
        text.map_err(|error| error.within("text_config"))?;
        let vision = self.vision_config.validate();
        vision.map_err(|error| error.within("vision_config"))
    }

    /// The model, its weights drawn only if none are loaded.
    ///
    /// # Errors
    ///
    /// Those of [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<BlipForQuestionAnswering, ConfigError> {
        self.validate()?;
        let (text, vision) = (&self.text_config, &self.vision_config);
        Ok(BlipForQuestionAnswering {
            vision_model: vision.tower(device),
            text_encoder: text.network(vision.hidden_size, device),
            text_decoder: text.decoder(device),
        })
    }

    /// The parts that say how well a text fits a picture, without what writes.
    ///
    /// # Errors
    ///
    /// The first field whose value contradicts another or is not implemented.
    pub(crate) fn init_reader(&self, device: &Device) -> Result<BlipReader, ConfigError> {
        let (text, vision) = (&self.text_config, &self.vision_config);
        vision.validate()?;
        text.validate()?;
        Ok(BlipReader {
            vision_model: vision.tower(device),
            text_encoder: text.network(vision.hidden_size, device),
        })
    }
}

/// The vision tower, and BERT that reads a text while it looks at the picture.
#[derive(Module, Debug)]
pub(crate) struct BlipReader {
    pub(crate) vision_model: BlipVisionModel,
    pub(crate) text_encoder: BlipTextModel,
}

/// BLIP that answers questions.
#[derive(Module, Debug)]
pub struct BlipForQuestionAnswering {
    /// The vision tower.
    pub vision_model: BlipVisionModel,
    /// Reads a question while it looks at the picture.
    pub text_encoder: BlipTextModel,
    /// Writes the answer while it looks at the question that was read.
    pub text_decoder: BlipTextLmHeadModel,
}

impl BlipForQuestionAnswering {
    /// Looks at pictures.
    ///
    /// # Shapes
    ///
    /// - pixels: `[batch, 3, image_size, image_size]`
    /// - output: `[batch, 1 + patches, width]`
    ///
    /// # Panics
    ///
    /// If the pictures are of another size.
    #[must_use]
    pub fn look(&self, pixels: Tensor<4>) -> Tensor<3> {
        self.vision_model.forward(pixels)
    }

    /// Reads questions of one length about what was looked at.
    ///
    /// # Shapes
    ///
    /// - `input_ids`: `[batch, length]`
    /// - seen: `[batch, 1 + patches, width]`
    /// - output: `[batch, length, hidden_size]`
    ///
    /// # Panics
    ///
    /// If a question is longer than the table of positions.
    #[must_use]
    pub fn read(&self, input_ids: Tensor<2, Int>, seen: &Tensor<3>) -> Tensor<3> {
        self.text_encoder.forward(input_ids, seen, false)
    }
}
