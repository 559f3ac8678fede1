//! Names of UNet modules in the original layout, which kohya files for SDXL have.
//!
//! The layout is that of `UNetModel` in OpenAI's guided diffusion with two residual blocks a level, as in Stable
//! Diffusion of all versions.

/// An underscored name of the original layout as diffusers' underscored name. What comes after an attention is alike in
/// both and is not looked at.
pub(super) fn diffusers_name(flat: &str) -> Option<String> {
    let fixed = match flat {
        "input_blocks_0_0" => Some("conv_in"),
        "time_embed_0" => Some("time_embedding_linear_1"),
        "time_embed_2" => Some("time_embedding_linear_2"),
        "label_emb_0_0" => Some("add_embedding_linear_1"),
        "label_emb_0_2" => Some("add_embedding_linear_2"),
        "out_2" => Some("conv_out"),
        _ => None,
    };
    if let Some(fixed) = fixed {
        return Some(fixed.to_owned());
    }
    if let Some(rest) = flat.strip_prefix("middle_block_") {
        let (part, rest) = number(rest)?;
        return match part {
            0 => Some(format!("mid_block_resnets_0_{}", in_resnet(rest)?)),
            1 => Some(format!("mid_block_attentions_0_{rest}")),
            2 => Some(format!("mid_block_resnets_1_{}", in_resnet(rest)?)),
            _ => None,
        };
    }
    let (down, rest) = match flat.strip_prefix("input_blocks_") {
        Some(rest) => (true, rest),
        None => (false, flat.strip_prefix("output_blocks_")?),
    };
    let (index, rest) = number(rest)?;
    let (part, rest) = number(rest)?;
    // On the way down block 0 is the first convolution, and every third one halves the resolution; on the way up every
    // third one also doubles it, after its attention if there is one.
    let index = if down { index.checked_sub(1)? } else { index };
    let (level, layer) = (index / 3, index % 3);
    let side = if down { "down" } else { "up" };
    let block = format!("{side}_blocks_{level}");
    match (down, layer, part, rest) {
        (true, 2, 0, "op") => Some(format!("{block}_downsamplers_0_conv")),
        (true, 2, ..) => None,
        (false, 2, 1 | 2, "conv") => Some(format!("{block}_upsamplers_0_conv")),
        (_, _, 0, rest) => Some(format!("{block}_resnets_{layer}_{}", in_resnet(rest)?)),
        (_, _, 1, rest) => Some(format!("{block}_attentions_{layer}_{rest}")),
        _ => None,
    }
}

fn in_resnet(rest: &str) -> Option<&'static str> {
    match rest {
        "in_layers_2" => Some("conv1"),
        "emb_layers_1" => Some("time_emb_proj"),
        "out_layers_3" => Some("conv2"),
        "skip_connection" => Some("conv_shortcut"),
        _ => None,
    }
}

/// A number, and what comes after the underscore behind it.
fn number(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('_')?;
    let parsed: usize = number.parse().ok()?;
    // No leading zeros or signs, so that two names never mean one module.
    (parsed.to_string() == number).then_some((parsed, rest))
}

#[cfg(test)]
mod tests {
    use super::super::names::by_grammar;
    use super::*;

    #[test]
    fn the_names_of_sdxl_lead_to_diffusers_modules() {
        for (flat, path) in [
            ("input_blocks_0_0", "conv_in"),
            ("time_embed_2", "time_embedding.linear_2"),
            ("label_emb_0_0", "add_embedding.linear_1"),
            ("out_2", "conv_out"),
            (
                "input_blocks_1_0_in_layers_2",
                "down_blocks.0.resnets.0.conv1",
            ),
            ("input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
            (
                "input_blocks_4_0_skip_connection",
                "down_blocks.1.resnets.0.conv_shortcut",
            ),
            (
                "input_blocks_4_1_transformer_blocks_0_attn1_to_q",
                "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
            ),
            (
                "input_blocks_8_1_transformer_blocks_9_ff_net_0_proj",
                "down_blocks.2.attentions.1.transformer_blocks.9.ff.net.0.proj",
            ),
            (
                "middle_block_1_transformer_blocks_3_attn2_to_out_0",
                "mid_block.attentions.0.transformer_blocks.3.attn2.to_out.0",
            ),
            (
                "middle_block_2_emb_layers_1",
                "mid_block.resnets.1.time_emb_proj",
            ),
            (
                "output_blocks_0_1_proj_in",
                "up_blocks.0.attentions.0.proj_in",
            ),
            ("output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
            ("output_blocks_2_1_conv", "up_blocks.0.upsamplers.0.conv"),
            (
                "output_blocks_5_1_proj_out",
                "up_blocks.1.attentions.2.proj_out",
            ),
            (
                "output_blocks_8_0_out_layers_3",
                "up_blocks.2.resnets.2.conv2",
            ),
        ] {
            let found = by_grammar("unet", flat);
            assert_eq!(found, Some(format!("unet.{path}")), "{flat}");
        }
    }

    #[test]
    fn other_names_are_not_guessed() {
        for flat in [
            "input_blocks_0_1_proj_in",
            "input_blocks_3_1_proj_in",
            "input_blocks_04_1_proj_in",
            "input_blocks_4_2_proj_in",
            "input_blocks_4_1_proj_up",
            "input_blocks_4_0_in_layers_0",
            "middle_block_3_proj_in",
            "output_blocks_1_2_conv",
            "output_blocks_1_1_conv",
            "time_embed_1",
        ] {
            assert_eq!(by_grammar("unet", flat), None, "{flat}");
        }
        assert_eq!(diffusers_name("conv_in"), None);
    }

    /// What the original layout calls a module of the UNet, the other way round and by another rule.
    fn original_name(path: &str) -> Option<String> {
        let fixed = match path {
            "conv_in" => "input_blocks_0_0",
            "conv_out" => "out_2",
            "time_embedding.linear_1" => "time_embed_0",
            "time_embedding.linear_2" => "time_embed_2",
            "add_embedding.linear_1" => "label_emb_0_0",
            "add_embedding.linear_2" => "label_emb_0_2",
            _ => "",
        };
        if !fixed.is_empty() {
            return Some(fixed.to_owned());
        }
        let parts: Vec<&str> = path.split('.').collect();
        let (block, kind, layer, rest) = match parts[..] {
            ["mid_block", kind, layer, ref rest @ ..] => ("middle".to_owned(), kind, layer, rest),
            [side, block, kind, layer, ref rest @ ..] => {
                (format!("{side} {block}"), kind, layer, rest)
            }
            _ => return None,
        };
        let rest = rest.join("_");
        let layer: usize = layer.parse().ok()?;
        let in_resnet = match rest.as_str() {
            "conv1" => "in_layers_2",
            "conv2" => "out_layers_3",
            "time_emb_proj" => "emb_layers_1",
            "conv_shortcut" => "skip_connection",
            other => other,
        };
        if block == "middle" {
            return Some(match kind {
                "resnets" => format!("middle_block_{}_{in_resnet}", 2 * layer),
                _ => format!("middle_block_1_{rest}"),
            });
        }
        let (side, level) = block.split_once(' ')?;
        let level: usize = level.parse().ok()?;
        let down = side == "down_blocks";
        let (name, at) = if down {
            ("input_blocks", 3 * level + layer + 1)
        } else {
            ("output_blocks", 3 * level + layer)
        };
        Some(match kind {
            "resnets" => format!("{name}_{at}_0_{in_resnet}"),
            "attentions" => format!("{name}_{at}_1_{rest}"),
            "downsamplers" => format!("{name}_{}_0_op", 3 * level + 3),
            _ => format!("{name}_{}_2_conv", 3 * level + 2),
        })
    }

    #[test]
    fn every_module_of_the_published_models_is_found_by_its_original_name() {
        for model in crate::Model::ALL {
            let names = model.names().unwrap();
            let mut seen = std::collections::BTreeSet::new();
            let modules = model.modules().iter().map(|(path, _)| path);
            for path in modules.filter_map(|path| path.strip_prefix("unet.")) {
                let flat = original_name(path).unwrap();
                assert!(seen.insert(flat.clone()), "{flat}");
                let full = Some(format!("unet.{path}"));
                assert_eq!(names.resolve("unet", &flat), full, "{model:?} {flat}");
                assert_eq!(by_grammar("unet", &flat), full, "{model:?} {flat}");
            }
            assert!(seen.len() > 200, "{model:?}: {}", seen.len());
        }
    }
}
