//! The names in `ImageReward.pt`, which are those of BLIP's own program.

use super::error::SingleFileError;
use super::part::Part;
use super::text::HEAD;
use crate::models::{BlipConfig, BlipTextConfig, BlipVisionConfig, bert_name};
use crate::weights::Weights;

/// Epsilon of the normalisations of BLIP's vision tower.
const EPSILON: f64 = 1e-6;

/// The key of a field of the vision tower and the text network.
pub(crate) fn image_reward_name(path: &str) -> String {
    const VISION: [(&str, &str); 8] = [
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding.", "patch_embed.proj."),
        ("encoder.layers.", "blocks."),
        (".layer_norm", ".norm"),
        (".self_attn.projection.", ".attn.proj."),
        (".self_attn.", ".attn."),
        ("post_layernorm.", "norm."),
    ];
    match path.strip_prefix("vision_model.") {
        Some(rest) => {
            let renamed = |name: String, (own, other): &(&str, &str)| name.replace(own, other);
            let name = VISION.iter().fold(rest.to_owned(), renamed);
            format!("blip.visual_encoder.{name}")
        }
        None => format!("blip.{}", bert_name(path)),
    }
}

/// Whether a tensor takes no part in the score: BLIP's projections of pictures and texts into one space.
pub(crate) fn is_image_reward_extra(name: &str) -> bool {
    ["blip.vision_proj.", "blip.text_proj."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// What the shapes of a file say. Heads have 64 channels; what else shapes do not tell is as in BERT.
///
/// # Errors
///
/// If tensors are missing that tell a size.
pub(crate) fn image_reward_config(weights: &Weights) -> Result<BlipConfig, SingleFileError> {
    let vision = Part {
        weights,
        prefix: "blip.visual_encoder.",
    };
    let text = Part {
        weights,
        prefix: "blip.text_encoder.",
    };
    let patch_size = vision.size("patch_embed.proj.weight", 2)?;
    let patches = vision.size("pos_embed", 1)?.saturating_sub(1);
    let width = vision.size("cls_token", 2)?;
    let vision_config = BlipVisionConfig {
        hidden_size: width,
        intermediate_size: vision.size("blocks.0.mlp.fc1.weight", 0)?,
        num_hidden_layers: vision.count(|layer| format!("blocks.{layer}.norm1.weight")),
        num_attention_heads: width / HEAD,
        image_size: patches.isqrt() * patch_size,
        patch_size,
        layer_norm_eps: EPSILON,
        ..BlipVisionConfig::default()
    };
    let hidden_size = text.size("embeddings.word_embeddings.weight", 1)?;
    let layer = |layer: usize| format!("encoder.layer.{layer}.output.dense.weight");
    let text_config = BlipTextConfig {
        vocab_size: text.size("embeddings.word_embeddings.weight", 0)?,
        hidden_size,
        intermediate_size: text.size("encoder.layer.0.intermediate.dense.weight", 0)?,
        num_hidden_layers: text.count(layer),
        num_attention_heads: hidden_size / HEAD,
        max_position_embeddings: text.size("embeddings.position_embeddings.weight", 0)?,
        ..BlipTextConfig::default()
    };
    Ok(BlipConfig {
        text_config,
        vision_config,
        ..BlipConfig::default()
    })
}
