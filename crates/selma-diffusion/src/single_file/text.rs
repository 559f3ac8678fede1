//! The text encoders: transformers' CLIP as it is, or OpenCLIP with other names and the attention's inputs in one.

use super::error::SingleFileError;
use super::open_clip;
use super::part::Part;
use crate::models::ClipTextConfig;
use crate::presets::{Family, Preset};
use crate::weights::StoredTensor;

/// Channels of a head in all of CLIP's text encoders.
pub(super) const HEAD: usize = 64;

/// A text encoder of a file, and how its tensors are named there.
#[derive(Debug, Clone)]
pub(super) struct TextLayout {
    pub(super) prefix: &'static str,
    pub(super) config: ClipTextConfig,
    open_clip: bool,
}

impl TextLayout {
    /// The text encoders of a family: `part` gives the tensors below a prefix, `layers` the number of layers that SD 2's
    /// keeps.
    pub(super) fn infer<'a>(
        preset: Preset,
        part: impl Fn(&'static str) -> Part<'a>,
        layers: Option<usize>,
    ) -> Result<(Self, Option<Self>), SingleFileError> {
        let clip = |prefix| {
            Ok::<_, SingleFileError>(Self {
                prefix,
                config: clip_config(&part(prefix), preset.text_encoder())?,
                open_clip: false,
            })
        };
        let open_clip = |prefix, base, penultimate| {
            Ok::<_, SingleFileError>(Self {
                prefix,
                config: open_clip::text_config(&part(prefix), base, penultimate)?,
                open_clip: true,
            })
        };
        match preset.family() {
            Family::Sd1 => Ok((clip("cond_stage_model.transformer.")?, None)),
            Family::Sd2 => {
                let prefix = "cond_stage_model.model.";
                let mut only = open_clip(prefix, preset.text_encoder(), true)?;
                only.config.num_hidden_layers = layers.unwrap_or(only.config.num_hidden_layers);
                Ok((only, None))
            }
            Family::Sdxl => {
                let base = preset.text_encoder_2().unwrap_or_default();
                let second = open_clip("conditioner.embedders.1.model.", base, false)?;
                Ok((clip("conditioner.embedders.0.transformer.")?, Some(second)))
            }
        }
    }

    /// transformers' names and forms of a tensor: none for one that is not used, `None` for one that is not known.
    pub(super) fn convert(
        &self,
        key: &str,
        tensor: &StoredTensor,
    ) -> Option<Vec<(String, StoredTensor)>> {
        if self.open_clip {
            let layers = self.config.num_hidden_layers;
            open_clip::text_tensor(key, tensor, layers, self.config.has_projection())
        } else {
            Some(vec![(key.to_owned(), tensor.clone())])
        }
    }
}

/// What the shapes of transformers' layout say, on top of a published configuration.
fn clip_config(part: &Part<'_>, base: ClipTextConfig) -> Result<ClipTextConfig, SingleFileError> {
    // Files made with some versions of transformers lack a level.
    let level = if part.has("text_model.embeddings.token_embedding.weight") {
        "text_model."
    } else {
        ""
    };
    let name = |rest: &str| format!("{level}{rest}");
    let hidden_size = part.size(&name("embeddings.token_embedding.weight"), 1)?;
    Ok(ClipTextConfig {
        vocab_size: part.size(&name("embeddings.token_embedding.weight"), 0)?,
        hidden_size,
        intermediate_size: part.size(&name("encoder.layers.0.mlp.fc1.weight"), 0)?,
        num_hidden_layers: part
            .count(|layer| name(&format!("encoder.layers.{layer}.layer_norm1.weight"))),
        num_attention_heads: hidden_size / HEAD,
        max_position_embeddings: part.size(&name("embeddings.position_embedding.weight"), 0)?,
        ..base
    })
}
