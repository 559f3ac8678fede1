//! The text encoders: transformers' CLIP as it is, or OpenCLIP with other names and the attention's inputs in one.

use super::error::SingleFileError;
use super::part::Part;
use crate::models::ClipTextConfig;
use crate::presets::{Family, Preset};
use crate::weights::StoredTensor;

/// Channels of a head in all of CLIP's text encoders.
const HEAD: usize = 64;

/// The layers of OpenCLIP's encoder that SD 2 uses: all but the last, whose output it does not take.
const SD2_LAYERS: usize = 23;

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
                config: open_clip_config(&part(prefix), base, penultimate)?,
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
            self.convert_open_clip(key, tensor)
        } else {
            Some(vec![(key.to_owned(), tensor.clone())])
        }
    }

    fn convert_open_clip(
        &self,
        key: &str,
        tensor: &StoredTensor,
    ) -> Option<Vec<(String, StoredTensor)>> {
        let whole = |name: String| Some(vec![(name, tensor.clone())]);
        if key == "positional_embedding" {
            return whole("text_model.embeddings.position_embedding.weight".to_owned());
        }
        if key == "text_projection" {
            if !self.config.has_projection() {
                return Some(Vec::new());
            }
            // OpenCLIP multiplies by it from the right.
            return Some(vec![(
                "text_projection.weight".to_owned(),
                tensor.transposed()?,
            )]);
        }
        let (head, rest) = key.split_once('.')?;
        match head {
            "token_embedding" => whole(format!("text_model.embeddings.token_embedding.{rest}")),
            "ln_final" => whole(format!("text_model.final_layer_norm.{rest}")),
            "transformer" => {
                let (layer, rest) = rest.strip_prefix("resblocks.")?.split_once('.')?;
                let layer: usize = layer.parse().ok()?;
                let named = convert_layer(rest, tensor)?;
                if layer >= self.config.num_hidden_layers {
                    return Some(Vec::new());
                }
                let path = format!("text_model.encoder.layers.{layer}");
                let named = named.into_iter();
                Some(
                    named
                        .map(|(name, tensor)| (format!("{path}.{name}"), tensor))
                        .collect(),
                )
            }
            _ => None,
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

/// What the shapes of OpenCLIP's layout say, on top of a published configuration.
///
/// `penultimate` is SD 2's way: the last layer is left out, where the file has it.
fn open_clip_config(
    part: &Part<'_>,
    base: ClipTextConfig,
    penultimate: bool,
) -> Result<ClipTextConfig, SingleFileError> {
    let layers = part.count(|layer| format!("transformer.resblocks.{layer}.ln_1.weight"));
    let kept = if penultimate && layers != SD2_LAYERS {
        layers.saturating_sub(1)
    } else {
        layers
    };
    let hidden_size = part.size("token_embedding.weight", 1)?;
    let projection_dim = match part.shape("text_projection") {
        Some(&[_, width]) if base.has_projection() => width,
        _ => base.projection_dim,
    };
    Ok(ClipTextConfig {
        vocab_size: part.size("token_embedding.weight", 0)?,
        hidden_size,
        intermediate_size: part.size("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        num_hidden_layers: kept,
        num_attention_heads: hidden_size / HEAD,
        max_position_embeddings: part.size("positional_embedding", 0)?,
        projection_dim,
        ..base
    })
}

/// A tensor of a layer; the inputs of the attention are one tensor in OpenCLIP, three here.
fn convert_layer(rest: &str, tensor: &StoredTensor) -> Option<Vec<(String, StoredTensor)>> {
    if let Some(field) = rest.strip_prefix("attn.in_proj_") {
        let width = tensor.shape().first()? / 3;
        let parts = ["q_proj", "k_proj", "v_proj"].iter().enumerate();
        return parts
            .map(|(index, name)| {
                let rows = tensor.rows(index * width..(index + 1) * width)?;
                Some((format!("self_attn.{name}.{field}"), rows))
            })
            .collect();
    }
    let name = [
        ("ln_1.", "layer_norm1."),
        ("ln_2.", "layer_norm2."),
        ("attn.out_proj.", "self_attn.out_proj."),
        ("mlp.c_fc.", "mlp.fc1."),
        ("mlp.c_proj.", "mlp.fc2."),
    ]
    .iter()
    .find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?)))?;
    Some(vec![(name, tensor.clone())])
}
