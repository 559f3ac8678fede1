//! The text encoders: transformers' CLIP as it is, or OpenCLIP with other names and the attention's inputs in one.

use super::error::SingleFileError;
use super::part::Part;
use crate::models::ClipTextConfig;
use crate::weights::StoredTensor;

/// Channels of a head in all of CLIP's text encoders.
const HEAD: usize = 64;

/// The layers of OpenCLIP's encoder that SD 2 uses: all but the last, whose output it does not take.
const SD2_LAYERS: usize = 23;

/// What the shapes of transformers' layout say, on top of a published configuration.
pub(super) fn clip_config(
    part: &Part<'_>,
    base: ClipTextConfig,
) -> Result<ClipTextConfig, SingleFileError> {
    let prefix = clip_level(part);
    let name = |rest: &str| format!("{prefix}{rest}");
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

/// Files made with old versions of transformers have a level more.
fn clip_level(part: &Part<'_>) -> &'static str {
    if part.has("text_model.embeddings.token_embedding.weight") {
        "text_model."
    } else {
        ""
    }
}

/// What the shapes of OpenCLIP's layout say, on top of a published configuration.
///
/// `penultimate` is SD 2's way: the last layer is left out, where the file has it.
pub(super) fn open_clip_config(
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
    Ok(ClipTextConfig {
        vocab_size: part.size("token_embedding.weight", 0)?,
        hidden_size,
        intermediate_size: part.size("transformer.resblocks.0.mlp.c_fc.weight", 0)?,
        num_hidden_layers: kept,
        num_attention_heads: hidden_size / HEAD,
        max_position_embeddings: part.size("positional_embedding", 0)?,
        ..base
    })
}

/// transformers' names and forms of a tensor of OpenCLIP; none for a layer from `layers` on, `None` for what is unknown.
pub(super) fn convert_open_clip(
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
        // OpenCLIP multiplies by it from the right.
        return if projection {
            Some(vec![(
                "text_projection.weight".to_owned(),
                tensor.transposed()?,
            )])
        } else {
            Some(Vec::new())
        };
    }
    let (head, rest) = key.split_once('.')?;
    match head {
        "token_embedding" => whole(format!("text_model.embeddings.token_embedding.{rest}")),
        "ln_final" => whole(format!("text_model.final_layer_norm.{rest}")),
        "transformer" => {
            let (layer, rest) = rest.strip_prefix("resblocks.")?.split_once('.')?;
            let layer: usize = layer.parse().ok()?;
            let layer_name = format!("text_model.encoder.layers.{layer}");
            let named = convert_layer(rest, tensor)?;
            if layer >= layers {
                return Some(Vec::new());
            }
            let named = named.into_iter();
            Some(
                named
                    .map(|(name, tensor)| (format!("{layer_name}.{name}"), tensor))
                    .collect(),
            )
        }
        _ => None,
    }
}

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
