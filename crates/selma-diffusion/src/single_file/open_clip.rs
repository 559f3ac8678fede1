//! OpenCLIP's names for both towers of CLIP, with the attention's inputs in one tensor.

use std::collections::BTreeMap;

use super::error::SingleFileError;
use super::part::Part;
use super::text::HEAD;
use crate::models::{ClipConfig, ClipTextConfig, ClipVisionConfig};
use crate::weights::{StoredTensor, Weights};

/// The layers of OpenCLIP's encoder that SD 2 uses: all but the last, whose output it does not take.
const SD2_LAYERS: usize = 23;

/// The widest tower whose heads have 64 channels; wider ones have 16 heads.
const NARROW: usize = 1024;

/// transformers' names and forms of a tensor of the text tower, which keeps its first `layers` layers: none for one that is not used,
/// `None` for one that is not known.
pub(super) fn text_tensor(
    key: &str,
    tensor: &StoredTensor,
    layers: usize,
    projection: bool,
) -> Option<Vec<(String, StoredTensor)>> {
    let whole = |name: String| Some(vec![(name, tensor.clone())]);
    if key == "positional_embedding" {
        return whole("text_model.embeddings.position_embedding.weight".to_owned());
    }
    if key == "text_projection" {
        if !projection {
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
            if layer >= layers {
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

/// transformers' names and forms of a tensor of the vision tower, whose name is without `visual.`; `None` for one that is not known.
fn vision_tensor(key: &str, tensor: &StoredTensor) -> Option<Vec<(String, StoredTensor)>> {
    let named = |name: String| Some(vec![(name, tensor.clone())]);
    match key {
        "class_embedding" => return named("vision_model.embeddings.class_embedding".to_owned()),
        "positional_embedding" => {
            return named("vision_model.embeddings.position_embedding.weight".to_owned());
        }
        "proj" => {
            let turned = tensor.transposed()?;
            return Some(vec![("visual_projection.weight".to_owned(), turned)]);
        }
        _ => {}
    }
    let (head, rest) = key.split_once('.')?;
    match head {
        "conv1" => named(format!("vision_model.embeddings.patch_embedding.{rest}")),
        "ln_pre" => named(format!("vision_model.pre_layrnorm.{rest}")),
        "ln_post" => named(format!("vision_model.post_layernorm.{rest}")),
        "transformer" => {
            let (layer, rest) = rest.strip_prefix("resblocks.")?.split_once('.')?;
            let path = format!("vision_model.encoder.layers.{layer}");
            let named = convert_layer(rest, tensor)?.into_iter();
            let named = named.map(|(name, tensor)| (format!("{path}.{name}"), tensor));
            Some(named.collect())
        }
        _ => None,
    }
}

/// Whether a file has a whole CLIP under OpenCLIP's names.
pub(crate) fn is_open_clip(weights: &Weights) -> bool {
    weights.shape("visual.class_embedding").is_some()
}

/// The tensors of a whole CLIP under transformers' names. One that is not known keeps its name.
pub(crate) fn clip_tensors(weights: &Weights) -> Weights {
    let mut tensors = BTreeMap::new();
    for key in weights.names() {
        let Some(tensor) = weights.tensor(key) else {
            continue;
        };
        let named = match key.strip_prefix("visual.") {
            Some(rest) => vision_tensor(rest, tensor),
            None => text_tensor(key, tensor, usize::MAX, true),
        };
        tensors.extend(named.unwrap_or_else(|| vec![(key.to_owned(), tensor.clone())]));
    }
    Weights::of(weights.path().to_owned(), tensors)
}

/// What the shapes of a whole CLIP under OpenCLIP's names say. What they do not tell is as in `base`, but for the heads, which
/// follow the width.
///
/// # Errors
///
/// If tensors are missing that tell a size.
pub(crate) fn clip_config(
    weights: &Weights,
    base: ClipConfig,
) -> Result<ClipConfig, SingleFileError> {
    let all = Part {
        weights,
        prefix: "",
    };
    let part = Part {
        weights,
        prefix: "visual.",
    };
    let hidden_size = part.size("class_embedding", 0)?;
    let patch_size = part.size("conv1.weight", 2)?;
    let patches = part.size("positional_embedding", 0)?.saturating_sub(1);
    let vision_config = ClipVisionConfig {
        hidden_size,
        intermediate_size: part.size("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        num_hidden_layers: part.count(|layer| format!("transformer.resblocks.{layer}.ln_1.weight")),
        num_attention_heads: match hidden_size {
            0..=NARROW => hidden_size / HEAD,
            _ => 16,
        },
        image_size: patches.isqrt() * patch_size,
        patch_size,
        ..base.vision_config
    };
    Ok(ClipConfig {
        text_config: text_config(&all, base.text_config, false)?,
        vision_config,
        projection_dim: part.size("proj", 1)?,
        ..base
    })
}

/// What the shapes of OpenCLIP's layout say, on top of a published configuration.
///
/// `penultimate` is SD 2's way: the last layer is left out, where the file has it.
pub(super) fn text_config(
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
