//! The VAE: `first_stage_model.*`. The original numbers the decoder's levels from the top, diffusers from the bottom.

use super::error::SingleFileError;
use super::part::Part;
use crate::models::AutoencoderKLConfig;
use crate::presets::Preset;
use crate::weights::StoredTensor;

/// What the shapes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VaeLayout {
    in_channels: usize,
    out_channels: usize,
    latent_channels: usize,
    channels: Vec<usize>,
    layers_per_block: usize,
    quant_conv: bool,
    post_quant_conv: bool,
    attention: bool,
}

impl VaeLayout {
    pub(super) fn infer(part: &Part<'_>) -> Result<Self, SingleFileError> {
        let conv = |level, block| format!("encoder.down.{level}.block.{block}.conv1.weight");
        let levels = part.count(|level| conv(level, 0));
        let channels = (0..levels)
            .map(|level| part.size(&conv(level, 0), 0))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            in_channels: part.size("encoder.conv_in.weight", 1)?,
            out_channels: part.size("decoder.conv_out.weight", 0)?,
            latent_channels: part.size("decoder.conv_in.weight", 1)?,
            channels,
            layers_per_block: part.count(|block| conv(0, block)),
            quant_conv: part.has("quant_conv.weight"),
            post_quant_conv: part.has("post_quant_conv.weight"),
            attention: part.has("decoder.mid.attn_1.q.weight"),
        })
    }

    /// The configuration: sizes from the shapes, and what they do not tell from a published model of the family.
    pub(super) fn config(&self, preset: Preset) -> AutoencoderKLConfig {
        let levels = self.channels.len();
        AutoencoderKLConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            latent_channels: self.latent_channels,
            block_out_channels: self.channels.clone(),
            layers_per_block: self.layers_per_block,
            down_block_types: vec!["DownEncoderBlock2D".to_owned(); levels],
            up_block_types: vec!["UpDecoderBlock2D".to_owned(); levels],
            use_quant_conv: self.quant_conv,
            use_post_quant_conv: self.post_quant_conv,
            mid_block_add_attention: self.attention,
            ..preset.vae()
        }
    }

    /// diffusers' name and form of a tensor: its attention has linear layers where the original has 1x1 convolutions.
    pub(super) fn convert(
        &self,
        key: &str,
        tensor: &StoredTensor,
    ) -> Option<(String, StoredTensor)> {
        let (side, rest) = key.split_once('.')?;
        if matches!(side, "quant_conv" | "post_quant_conv") {
            return Some((key.to_owned(), tensor.clone()));
        }
        if !matches!(side, "encoder" | "decoder") {
            return None;
        }
        if let Some(rest) = rest.strip_prefix("mid.attn_1.") {
            let (layer, field) = rest.split_once('.')?;
            let layer = match layer {
                "norm" => "group_norm",
                "q" => "to_q",
                "k" => "to_k",
                "v" => "to_v",
                "proj_out" => "to_out.0",
                _ => return None,
            };
            let matrix = layer != "group_norm" && field == "weight";
            let tensor = if matrix {
                tensor.pointwise()?
            } else {
                tensor.clone()
            };
            return Some((
                format!("{side}.mid_block.attentions.0.{layer}.{field}"),
                tensor,
            ));
        }
        let rest = self.rename(rest)?;
        Some((format!("{side}.{rest}"), tensor.clone()))
    }

    fn rename(&self, rest: &str) -> Option<String> {
        let (head, tail) = rest.split_once('.')?;
        match head {
            "conv_in" | "conv_out" => Some(rest.to_owned()),
            "norm_out" => Some(format!("conv_norm_out.{tail}")),
            "mid" => match tail.split_once('.')? {
                ("block_1", tail) => Some(format!("mid_block.resnets.0.{}", resnet(tail))),
                ("block_2", tail) => Some(format!("mid_block.resnets.1.{}", resnet(tail))),
                _ => None,
            },
            "down" | "up" => {
                let (level, tail) = tail.split_once('.')?;
                let level: usize = level.parse().ok()?;
                let (blocks, level) = match head {
                    "down" => ("down_blocks", level),
                    _ => (
                        "up_blocks",
                        self.channels.len().checked_sub(level.checked_add(1)?)?,
                    ),
                };
                let (kind, tail) = tail.split_once('.')?;
                match kind {
                    "block" => Some(format!("{blocks}.{level}.resnets.{}", resnet(tail))),
                    "downsample" | "upsample" => {
                        Some(format!("{blocks}.{level}.{kind}rs.0.{tail}"))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

fn resnet(rest: &str) -> String {
    rest.replace("nin_shortcut", "conv_shortcut")
}
