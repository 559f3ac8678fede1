//! What a tensor name says: scheme, module, and which part of it.

use std::borrow::Cow;

use super::{Format, ModuleNames, names, parts::Part};
use crate::LoraError;

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

/// What PEFT puts before the paths of the model that it wraps.
pub(super) const PEFT_PREFIX: &str = "base_model.model.";

pub(crate) const COMPONENTS: [&str; 3] = ["unet", "text_encoder", "text_encoder_2"];

/// Endings, the part each is, and the scheme that has it; `None` where more than one does.
const SUFFIXES: [(&str, Part, Option<Format>); 29] = [
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
    (OLD_DOWN, Part::A, Some(Format::DiffusersScript)),
    (OLD_UP, Part::B, Some(Format::DiffusersScript)),
    (".lora_down.weight", Part::A, Some(Format::Kohya)),
    (".lora_up.weight", Part::B, Some(Format::Kohya)),
    (".lora_mid.weight", Part::Mid, Some(Format::Kohya)),
    (".alpha", Part::Alpha, None),
    (".hada_w1_a", Part::HadaW1A, None),
    (".hada_w1_b", Part::HadaW1B, None),
    (".hada_w2_a", Part::HadaW2A, None),
    (".hada_w2_b", Part::HadaW2B, None),
    (".hada_t1", Part::HadaT1, None),
    (".hada_t2", Part::HadaT2, None),
    (".lokr_w1", Part::LokrW1, None),
    (".lokr_w1_a", Part::LokrW1A, None),
    (".lokr_w1_b", Part::LokrW1B, None),
    (".lokr_w2", Part::LokrW2, None),
    (".lokr_w2_a", Part::LokrW2A, None),
    (".lokr_w2_b", Part::LokrW2B, None),
    (".lokr_t2", Part::LokrT2, None),
    (".diff", Part::Diff, None),
    (".dora_scale", Part::DoraScale, None),
    (
        ".lora_magnitude_vector",
        Part::MagnitudeVector,
        Some(Format::Diffusers),
    ),
    // A layer of its own since PEFT 0.12.
    (
        ".lora_magnitude_vector.weight",
        Part::MagnitudeVector,
        Some(Format::Diffusers),
    ),
];

/// The attention processors of diffusers up to 0.21: `attn1.processor.to_q_lora.down.weight`.
const OLD_DOWN: &str = "_lora.down.weight";
const OLD_UP: &str = "_lora.up.weight";

/// Parts of names that give away what no update of a weight can say.
const UNSUPPORTED: [(&str, &str); 14] = [
    (".lora_B.bias", "LoRA with a bias"),
    (".lora_up.bias", "LoRA with a bias"),
    (".lora_embedding_", "LoRA of an embedding"),
    (".diff_b", "the difference of a bias"),
    (".w_norm", "a trained norm"),
    (".b_norm", "a trained norm"),
    (".oft_", "OFT"),
    (".boft_", "BOFT"),
    (".on_input", "(IA)^3"),
    (".ia3_l", "(IA)^3"),
    (".vera_lambda_", "VeRA"),
    (".a1.weight", "GLoRA"),
    (".bm.weight", "GLoRA"),
    // OneTrainer: `bundle_emb.<word>.<text encoder>`.
    ("bundle_emb.", "a trained embedding"),
];

/// What is trained beside a LoRA and saved as it is: PEFT with `bias="all"` and `modules_to_save`.
const WHOLE: [(&str, &str); 2] = [
    (".bias", "a trained bias"),
    (".weight", "a whole weight (modules_to_save)"),
];

/// Parts of names behind which PEFT puts the name of its adapter, where a trainer saved the layers' own parameters.
const NAMED_PARTS: [&str; 3] = [".lora_A.", ".lora_B.", ".lora_magnitude_vector."];

/// How ComfyUI calls components, whose UNet has the original layout.
const COMFYUI_PREFIXES: [(&str, &str); 4] = [
    ("diffusion_model.", "unet"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
];

/// What LyCORIS puts before the underscored path of a module in any component.
const LYCORIS_PREFIX: &str = "lycoris_";

/// Takes a tensor name apart. `component` is where a path without a component belongs.
pub(super) fn parse(
    key: &str,
    names: Option<&ModuleNames>,
    component: Option<&str>,
) -> Result<Key, LoraError> {
    let plain = without_adapter_name(key);
    if let Some((_, kind)) = UNSUPPORTED.iter().find(|(part, _)| plain.contains(part)) {
        return Err(LoraError::Unsupported {
            key: key.to_owned(),
            kind,
        });
    }
    let unknown = || LoraError::UnknownKey {
        key: key.to_owned(),
    };
    let (module, suffix, part, format) = SUFFIXES
        .iter()
        .find_map(|&(suffix, part, format)| {
            Some((plain.strip_suffix(suffix)?, suffix, part, format))
        })
        .ok_or_else(|| whole(key, names, component).unwrap_or_else(unknown))?;
    let in_kohya = |path: Option<String>, name: &str| {
        if !matches!(format, Some(Format::Kohya) | None) {
            return Err(unknown());
        }
        Ok(Key {
            format: Some(Format::Kohya),
            module: path.ok_or_else(|| LoraError::UnknownModule {
                key: key.to_owned(),
                name: name.to_owned(),
            })?,
            part,
        })
    };
    let resolve = |component: &str, name: &str| match names {
        Some(names) => names.resolve(component, name),
        None => names::by_grammar(component, name),
    };
    for (prefix, component) in KOHYA_PREFIXES {
        if let Some(name) = module.strip_prefix(prefix) {
            return in_kohya(resolve(component, name), name);
        }
    }
    if let Some(name) = module.strip_prefix(LYCORIS_PREFIX) {
        let mut components = COMPONENTS.iter();
        return in_kohya(
            components.find_map(|component| resolve(component, name)),
            name,
        );
    }
    for (prefix, component) in COMFYUI_PREFIXES {
        if let Some(path) = module.strip_prefix(prefix) {
            return in_kohya(resolve(component, &path.replace('.', "_")), path);
        }
    }

    let (path, in_peft) = match module.strip_prefix(PEFT_PREFIX) {
        Some(path) => (path, true),
        None => (module, false),
    };
    let format = match (in_peft, format, part) {
        (true, None | Some(Format::Diffusers), _) => Some(Format::Peft),
        (true, ..) => return Err(unknown()),
        (false, None, Part::Alpha) => None,
        (false, format, _) => format.or(Some(Format::Diffusers)),
    };
    let path = match suffix {
        OLD_DOWN | OLD_UP => old_attention(path).ok_or_else(unknown)?,
        _ => path.to_owned(),
    };
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(unknown());
    }
    // With a component of another model it is a path of the list as it is; PEFT's paths have none.
    let listed = names.filter(|names| !in_peft && names.contains(&path));
    let module = match listed {
        Some(_) => Some(path.clone()),
        None => with_component(&path, names, component),
    };
    Ok(Key {
        format,
        module: module.ok_or_else(|| LoraError::OtherModel {
            key: key.to_owned(),
            path,
        })?,
        part,
    })
}

/// The key without the name of PEFT's adapter in it.
fn without_adapter_name(key: &str) -> Cow<'_, str> {
    let split = || {
        let (module, part, rest) = NAMED_PARTS.iter().find_map(|part| {
            key.rsplit_once(part)
                .map(|(module, rest)| (module, part, rest))
        })?;
        let (name, end) = rest.split_once('.')?;
        let named = !name.is_empty() && matches!(end, "weight" | "bias");
        named.then(|| format!("{module}{part}{end}"))
    };
    split().map_or(Cow::Borrowed(key), Cow::Owned)
}

/// What a tensor is that belongs to a module of the model but to no LoRA.
fn whole(key: &str, names: Option<&ModuleNames>, component: Option<&str>) -> Option<LoraError> {
    let (path, kind) = WHOLE
        .iter()
        .find_map(|(suffix, kind)| Some((key.strip_suffix(suffix)?, *kind)))?;
    if path.contains("lora") {
        return None;
    }
    // Without any of these it may be a network of a model, which is no adapter at all.
    let of_model = names.is_some() || component.is_some() || {
        let first = path.split_once('.').map(|(first, _)| first);
        first.is_some_and(|first| COMPONENTS.contains(&first))
    };
    let known = path.starts_with(PEFT_PREFIX)
        || path.contains(".modules_to_save.")
        || of_model && with_component(path, names, component).is_some();
    known.then(|| LoraError::Unsupported {
        key: key.to_owned(),
        kind,
    })
}

/// The layer that an old attention processor's LoRA is for.
fn old_attention(path: &str) -> Option<String> {
    let (attention, name) = path.rsplit_once('.')?;
    let (attention, layers) = match attention.strip_suffix(".processor") {
        Some(attention) => (attention, ["to_q", "to_k", "to_v", "to_out.0"]),
        None if attention.ends_with(".self_attn") => {
            (attention, ["q_proj", "k_proj", "v_proj", "out_proj"])
        }
        None => return None,
    };
    ["to_q", "to_k", "to_v", "to_out"]
        .iter()
        .zip(layers)
        .find(|(old, _)| **old == name)
        .map(|(_, layer)| format!("{attention}.{layer}"))
}

/// The path with its component: as it is in the file, as it is known from outside, or as the names
/// of modules tell.
pub(super) fn with_component(
    path: &str,
    names: Option<&ModuleNames>,
    component: Option<&str>,
) -> Option<String> {
    if let Some((first, rest)) = path.split_once('.')
        && COMPONENTS.contains(&first)
    {
        return Some(canonical(first, rest));
    }
    if let Some(component) = component {
        return Some(canonical(component, path));
    }
    match names {
        Some(names) => names.component_of(path),
        None => COMPONENTS.iter().find_map(|component| {
            let full = canonical(component, path);
            let (_, rest) = full.split_once('.')?;
            (names::by_grammar(component, &rest.replace('.', "_"))? == full).then_some(full)
        }),
    }
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
mod tests;
