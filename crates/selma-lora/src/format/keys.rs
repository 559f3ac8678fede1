//! What a tensor name says: scheme, module, and which part of it.

use super::{Format, ModuleNames};
use crate::LoraError;

/// One part of a module in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    A,
    B,
    Alpha,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
            Self::Alpha => "alpha",
        }
    }
}

/// A tensor name taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// `None` for a dotted `.alpha`, which both diffusers schemes allow.
    pub(super) format: Option<Format>,
    /// Dotted path with the component.
    pub(super) module: String,
    pub(super) part: Part,
}

/// Components by the prefix that kohya gives them. The first prefix of a component is the one
/// written for Stable Diffusion 1 and 2.
pub(super) const KOHYA_PREFIXES: [(&str, &str); 4] = [
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
];

const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

const SUFFIXES: [(&str, Part, Option<Format>); 9] = [
    (".lora_A.weight", Part::A, Some(Format::Diffusers)),
    (".lora_B.weight", Part::B, Some(Format::Diffusers)),
    (".lora.down.weight", Part::A, Some(Format::DiffusersScript)),
    (".lora.up.weight", Part::B, Some(Format::DiffusersScript)),
    (
        ".lora_linear_layer.down.weight",
        Part::A,
        Some(Format::DiffusersScript),
    ),
    (
        ".lora_linear_layer.up.weight",
        Part::B,
        Some(Format::DiffusersScript),
    ),
    (".lora_down.weight", Part::A, Some(Format::Kohya)),
    (".lora_up.weight", Part::B, Some(Format::Kohya)),
    (".alpha", Part::Alpha, None),
];

/// Parts of names that give away what is not a plain LoRA.
const UNSUPPORTED: [(&str, &str); 12] = [
    (".dora_scale", "DoRA"),
    (".lora_magnitude_vector", "DoRA"),
    (".hada_", "LoHa"),
    (".lokr_", "LoKr"),
    (
        ".lora_mid.",
        "a Tucker-decomposed convolution (LoCon with lora_mid)",
    ),
    (".lora_B.bias", "LoRA with a bias"),
    (".lora_up.bias", "LoRA with a bias"),
    (".lora_embedding_", "LoRA of an embedding"),
    (".diff_b", "a full difference"),
    (".diff", "a full difference"),
    (".w_norm", "a trained norm"),
    (".b_norm", "a trained norm"),
];

/// Takes a tensor name apart.
pub(super) fn parse(key: &str, names: Option<&ModuleNames>) -> Result<Key, LoraError> {
    if let Some((_, kind)) = UNSUPPORTED.iter().find(|(part, _)| key.contains(part)) {
        return Err(LoraError::Unsupported {
            key: key.to_owned(),
            kind,
        });
    }
    let unknown = || LoraError::UnknownKey {
        key: key.to_owned(),
    };
    let (module, part, format) = SUFFIXES
        .iter()
        .find_map(|&(suffix, part, format)| Some((key.strip_suffix(suffix)?, part, format)))
        .ok_or_else(unknown)?;

    if let Some((name, component)) = KOHYA_PREFIXES
        .iter()
        .find_map(|&(prefix, component)| Some((module.strip_prefix(prefix)?, component)))
    {
        if !matches!(format, Some(Format::Kohya) | None) {
            return Err(unknown());
        }
        let path = match names {
            Some(names) => names.resolve(component, name),
            None => super::names::by_grammar(component, name),
        };
        return Ok(Key {
            format: Some(Format::Kohya),
            module: path.ok_or_else(|| LoraError::UnknownModule {
                key: key.to_owned(),
                name: name.to_owned(),
            })?,
            part,
        });
    }

    let (component, path) = module.split_once('.').ok_or_else(unknown)?;
    if format == Some(Format::Kohya) || !COMPONENTS.contains(&component) || path.is_empty() {
        return Err(unknown());
    }
    Ok(Key {
        format,
        module: canonical(component, path),
        part,
    })
}

/// Files made with transformers 5 lack the `text_model.` level that checkpoints and older files have.
fn canonical(component: &str, path: &str) -> String {
    if component != "unet" && path.starts_with("encoder.layers.") {
        format!("{component}.text_model.{path}")
    } else {
        format!("{component}.{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_leads_to_the_same_module() {
        let to_q = "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
        let flat = "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q";
        for (key, format, part) in [
            (
                format!("{to_q}.lora_A.weight"),
                Some(Format::Diffusers),
                Part::A,
            ),
            (
                format!("{to_q}.lora.up.weight"),
                Some(Format::DiffusersScript),
                Part::B,
            ),
            (format!("{to_q}.alpha"), None, Part::Alpha),
            (
                format!("{flat}.lora_down.weight"),
                Some(Format::Kohya),
                Part::A,
            ),
            (
                format!("{flat}.lora_up.weight"),
                Some(Format::Kohya),
                Part::B,
            ),
            (format!("{flat}.alpha"), Some(Format::Kohya), Part::Alpha),
        ] {
            let parsed = parse(&key, None).unwrap();
            assert_eq!(parsed.module, to_q);
            assert_eq!((parsed.format, parsed.part), (format, part));
        }
    }

    #[test]
    fn text_encoders_have_one_path() {
        let path = "text_encoder.text_model.encoder.layers.3.self_attn.out_proj";
        for key in [
            "text_encoder.text_model.encoder.layers.3.self_attn.out_proj.lora_A.weight",
            "text_encoder.encoder.layers.3.self_attn.out_proj.lora_A.weight",
            "lora_te_text_model_encoder_layers_3_self_attn_out_proj.lora_down.weight",
            "lora_te1_text_model_encoder_layers_3_self_attn_out_proj.lora_down.weight",
            "lora_te_encoder_layers_3_self_attn_out_proj.lora_down.weight",
        ] {
            assert_eq!(parse(key, None).unwrap().module, path, "{key}");
        }
        assert_eq!(
            parse("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", None)
                .unwrap()
                .module,
            "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"
        );
    }

    #[test]
    fn other_kinds_are_named() {
        let base = "lora_unet_mid_block_attentions_0_proj_in";
        for (suffix, kind) in [
            ("dora_scale", "DoRA"),
            ("hada_w1_a", "LoHa"),
            ("lokr_w2", "LoKr"),
            ("lora_mid.weight", "Tucker"),
            ("diff", "full difference"),
            ("diff_b", "full difference"),
            ("w_norm", "norm"),
        ] {
            let error = parse(&format!("{base}.{suffix}"), None).unwrap_err();
            assert!(matches!(error, LoraError::Unsupported { .. }));
            assert!(error.to_string().contains(kind), "{error}");
        }
        let error = parse("unet.mid_block.x.lora_magnitude_vector", None).unwrap_err();
        assert!(matches!(error, LoraError::Unsupported { .. }));
        let error = parse("unet.mid_block.x.lora_B.bias", None).unwrap_err();
        assert!(error.to_string().contains("bias"));
    }

    #[test]
    fn foreign_names_are_refused() {
        for key in [
            "down_blocks.0.attentions.0.proj_in.lora_A.weight",
            "base_model.model.conv_in.lora_A.weight",
            "unet.conv_in.weight",
            "unet.conv_in.lora_down.weight",
            "lora_unet_conv_in.lora_A.weight",
            "unet..lora_A.weight.x",
            "unet.lora_A.weight",
            "",
        ] {
            let error = parse(key, None).unwrap_err();
            assert!(
                matches!(error, LoraError::UnknownKey { .. }),
                "{key}: {error}"
            );
        }
        let error = parse("lora_unet_conv_im.lora_down.weight", None).unwrap_err();
        assert!(matches!(error, LoraError::UnknownModule { ref name, .. } if name == "conv_im"));
    }
}
