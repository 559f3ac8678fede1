//! The UNet: `model.diffusion_model.*`.
//!
//! The original numbers its blocks through: `input_blocks.0` is the first convolution, then follow the residual blocks
//! and the downsampler of each level; `output_blocks` have one residual block more a level, the last with the upsampler.

use super::error::SingleFileError;
use super::part::Part;
use crate::models::{PerBlock, UNet2DConditionModelConfig};
use crate::presets::{Family, Preset};

/// What the shapes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UNetLayout {
    in_channels: usize,
    out_channels: usize,
    channels: Vec<usize>,
    layers_per_block: usize,
    /// Transformer blocks on each level; none where there is no attention.
    depths: Vec<usize>,
    mid_depth: usize,
    context: usize,
    linear: bool,
    /// Width of SDXL's added conditions.
    added: Option<usize>,
}

impl UNetLayout {
    pub(super) fn infer(part: &Part<'_>) -> Result<Self, SingleFileError> {
        let mut layout = Self {
            in_channels: part.size("input_blocks.0.0.weight", 1)?,
            out_channels: part.size("out.2.weight", 0)?,
            channels: Vec::new(),
            layers_per_block: 0,
            depths: Vec::new(),
            mid_depth: depth(part, "middle_block.1"),
            context: part.size("middle_block.1.transformer_blocks.0.attn2.to_k.weight", 1)?,
            linear: part
                .shape("middle_block.1.proj_in.weight")
                .is_some_and(|shape| shape.len() == 2),
            added: part
                .shape("label_emb.0.0.weight")
                .and_then(|shape| shape.get(1).copied()),
        };
        let mut layers = 0;
        for index in 1.. {
            let block = format!("input_blocks.{index}");
            let down = part.has(&format!("{block}.0.op.weight"));
            let resnet = format!("{block}.0.out_layers.3.weight");
            if part.has(&resnet) {
                layers += 1;
                if layers == 1 {
                    layout.channels.push(part.size(&resnet, 0)?);
                    layout.depths.push(depth(part, &format!("{block}.1")));
                }
                continue;
            }
            if !down && part.has_below(&block) {
                return Err(part.wrong(&resnet, "the last convolution of a residual block"));
            }
            // The end of a level: its downsampler, or that of the last level, where nothing follows.
            if layout.layers_per_block == 0 {
                layout.layers_per_block = layers;
            }
            if layers == 0 || layers != layout.layers_per_block {
                return Err(part.wrong(&resnet, "as many residual blocks on every level"));
            }
            layers = 0;
            if !down {
                break;
            }
        }
        Ok(layout)
    }

    /// The configuration: sizes from the shapes, and what they do not tell from a published model of the family.
    pub(super) fn config(&self, preset: Preset) -> UNet2DConditionModelConfig {
        let heads = match preset.family() {
            Family::Sd1 => PerBlock::Same(8),
            Family::Sd2 | Family::Sdxl => {
                PerBlock::Each(self.channels.iter().map(|channels| channels / 64).collect())
            }
        };
        let name = |depth: &usize, plain: &str, cross: &str| {
            if *depth == 0 { plain } else { cross }.to_owned()
        };
        let down = self.depths.iter();
        let up = self.depths.iter().rev();
        UNet2DConditionModelConfig {
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            block_out_channels: self.channels.clone(),
            layers_per_block: self.layers_per_block,
            down_block_types: down
                .map(|depth| name(depth, "DownBlock2D", "CrossAttnDownBlock2D"))
                .collect(),
            up_block_types: up
                .map(|depth| name(depth, "UpBlock2D", "CrossAttnUpBlock2D"))
                .collect(),
            transformer_layers_per_block: self.transformer_layers(),
            cross_attention_dim: self.context,
            attention_head_dim: heads,
            use_linear_projection: self.linear,
            projection_class_embeddings_input_dim: self.added,
            ..preset.unet()
        }
    }

    /// One number where it serves all levels. A level without attention is not asked; the last one says it for the
    /// middle.
    fn transformer_layers(&self) -> PerBlock {
        if self
            .depths
            .iter()
            .all(|&depth| depth == 0 || depth == self.mid_depth)
        {
            return PerBlock::Same(self.mid_depth);
        }
        let mut depths: Vec<usize> = self.depths.iter().map(|&depth| depth.max(1)).collect();
        if let (Some(last), Some(0)) = (depths.last_mut(), self.depths.last()) {
            *last = self.mid_depth;
        }
        PerBlock::Each(depths)
    }

    /// diffusers' name for a name of the original.
    pub(super) fn rename(&self, key: &str) -> Option<String> {
        let (head, rest) = key.split_once('.')?;
        match head {
            "time_embed" => match rest.split_once('.')? {
                ("0", rest) => Some(format!("time_embedding.linear_1.{rest}")),
                ("2", rest) => Some(format!("time_embedding.linear_2.{rest}")),
                _ => None,
            },
            "label_emb" => match rest.strip_prefix("0.")?.split_once('.')? {
                ("0", rest) => Some(format!("add_embedding.linear_1.{rest}")),
                ("2", rest) => Some(format!("add_embedding.linear_2.{rest}")),
                _ => None,
            },
            "out" => match rest.split_once('.')? {
                ("0", rest) => Some(format!("conv_norm_out.{rest}")),
                ("2", rest) => Some(format!("conv_out.{rest}")),
                _ => None,
            },
            "middle_block" => match rest.split_once('.')? {
                ("0", rest) => Some(format!("mid_block.resnets.0.{}", resnet(rest)?)),
                ("1", rest) => Some(format!("mid_block.attentions.0.{rest}")),
                ("2", rest) => Some(format!("mid_block.resnets.1.{}", resnet(rest)?)),
                _ => None,
            },
            "input_blocks" => {
                let (block, slot, rest) = numbered(rest)?;
                let Some(index) = block.checked_sub(1) else {
                    return (slot == 0).then(|| format!("conv_in.{rest}"));
                };
                let level = index.checked_div(self.layers_per_block + 1)?;
                let layer = index % (self.layers_per_block + 1);
                match (slot, rest.strip_prefix("op.")) {
                    (0, Some(rest)) => {
                        Some(format!("down_blocks.{level}.downsamplers.0.conv.{rest}"))
                    }
                    _ => block_name("down_blocks", level, layer, slot, rest),
                }
            }
            "output_blocks" => {
                let (block, slot, rest) = numbered(rest)?;
                let level = block.checked_div(self.layers_per_block + 1)?;
                let layer = block % (self.layers_per_block + 1);
                match (slot, rest.strip_prefix("conv.")) {
                    (1 | 2, Some(rest)) => {
                        Some(format!("up_blocks.{level}.upsamplers.0.conv.{rest}"))
                    }
                    _ => block_name("up_blocks", level, layer, slot, rest),
                }
            }
            _ => None,
        }
    }
}

fn depth(part: &Part<'_>, block: &str) -> usize {
    part.count(|index| format!("{block}.transformer_blocks.{index}.attn1.to_q.weight"))
}

/// `BLOCK.SLOT.REST`
fn numbered(rest: &str) -> Option<(usize, usize, &str)> {
    let (block, rest) = rest.split_once('.')?;
    let (slot, rest) = rest.split_once('.')?;
    Some((block.parse().ok()?, slot.parse().ok()?, rest))
}

fn block_name(side: &str, level: usize, layer: usize, slot: usize, rest: &str) -> Option<String> {
    match slot {
        0 => Some(format!("{side}.{level}.resnets.{layer}.{}", resnet(rest)?)),
        1 => Some(format!("{side}.{level}.attentions.{layer}.{rest}")),
        _ => None,
    }
}

/// A name within a residual block.
fn resnet(rest: &str) -> Option<String> {
    [
        ("in_layers.0.", "norm1."),
        ("in_layers.2.", "conv1."),
        ("emb_layers.1.", "time_emb_proj."),
        ("out_layers.0.", "norm2."),
        ("out_layers.3.", "conv2."),
        ("skip_connection.", "conv_shortcut."),
    ]
    .iter()
    .find_map(|(old, new)| Some(format!("{new}{}", rest.strip_prefix(old)?)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::weights::{MappedFile, StoredTensor, Weights};
    use safetensors::Dtype;

    /// The tensors of a published UNet that sizes are taken from, in a file without values.
    fn original(config: &UNet2DConditionModelConfig) -> (tempfile::TempDir, Weights) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("unet");
        let bytes = 4 * 1280 * 1280 * 9;
        std::fs::File::create(&path)
            .unwrap()
            .set_len(bytes)
            .unwrap();
        let file = Arc::new(MappedFile::open(&path).unwrap());
        let mut tensors = BTreeMap::new();
        let mut add = |key: String, shape: Vec<usize>| {
            let tensor = StoredTensor::contiguous(file.clone(), Dtype::F32, 0, shape).unwrap();
            tensors.insert(key, tensor);
        };
        let attend = |block: &str,
                      channels: usize,
                      depth: usize,
                      add: &mut dyn FnMut(String, Vec<usize>)| {
            for index in 0..depth {
                let block = format!("{block}.transformer_blocks.{index}");
                add(format!("{block}.attn1.to_q.weight"), vec![channels; 2]);
                let context = config.cross_attention_dim;
                add(
                    format!("{block}.attn2.to_k.weight"),
                    vec![channels, context],
                );
            }
            let mut projection = vec![channels; 2];
            if !config.use_linear_projection {
                projection.extend([1, 1]);
            }
            add(format!("{block}.proj_in.weight"), projection);
        };
        let top = config.block_out_channels[0];
        add("input_blocks.0.0.weight".to_owned(), vec![top, 4, 3, 3]);
        add("out.2.weight".to_owned(), vec![4, top, 3, 3]);
        if let Some(added) = config.projection_class_embeddings_input_dim {
            add("label_emb.0.0.weight".to_owned(), vec![4 * top, added]);
        }
        let mut block = 1;
        for (level, &channels) in config.block_out_channels.iter().enumerate() {
            for _ in 0..config.layers_per_block {
                let name = format!("input_blocks.{block}");
                add(
                    format!("{name}.0.out_layers.3.weight"),
                    vec![channels, channels, 3, 3],
                );
                if config.down_block_types[level] == "CrossAttnDownBlock2D" {
                    let depth = config.transformer_layers_per_block.get(level).unwrap();
                    attend(&format!("{name}.1"), channels, depth, &mut add);
                }
                block += 1;
            }
            if level + 1 < config.block_out_channels.len() {
                let shape = vec![channels, channels, 3, 3];
                add(format!("input_blocks.{block}.0.op.weight"), shape);
                block += 1;
            }
        }
        let last = config.block_out_channels.len() - 1;
        let depth = config.transformer_layers_per_block.get(last).unwrap();
        attend(
            "middle_block.1",
            config.block_out_channels[last],
            depth,
            &mut add,
        );
        (folder, Weights::of(path, tensors))
    }

    #[test]
    fn the_sizes_of_published_models_are_inferred() {
        for preset in Preset::ALL {
            let (_folder, weights) = original(&preset.unet());
            let part = Part {
                weights: &weights,
                prefix: "",
            };
            let layout = UNetLayout::infer(&part).unwrap();
            assert_eq!(layout.config(preset), preset.unet(), "{}", preset.name());
        }
    }

    #[test]
    fn a_level_without_one_of_its_blocks_is_refused() {
        let (_folder, weights) = original(&Preset::Sd15.unet());
        let path = weights.path().to_owned();
        let mut tensors = weights.into_tensors();
        tensors.remove("input_blocks.2.0.out_layers.3.weight");
        let weights = Weights::of(path, tensors);
        let part = Part {
            weights: &weights,
            prefix: "",
        };
        let error = UNetLayout::infer(&part).unwrap_err().to_string();
        assert!(error.contains("input_blocks.2.0"), "{error}");
    }
}
