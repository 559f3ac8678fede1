//! From the underscored module names of kohya files back to dotted paths.
//!
//! Names of modules contain underscores themselves (`to_q`, `down_blocks`), so replacing characters
//! would be guessing. A name is looked up in the list of a model's modules or, without a list,
//! parsed by the exact grammar of diffusers' `UNet2DConditionModel` and transformers' CLIP text
//! models, or of the UNet's original layout; anything else is an error.

use std::collections::BTreeMap;

use super::keys::KOHYA_PREFIXES;
use super::sgm::diffusers_name;
use crate::LoraError;

/// The modules of a model, by the names that kohya files give them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModuleNames {
    /// Component and underscored name to the dotted path.
    paths: BTreeMap<(String, String), String>,
}

impl ModuleNames {
    /// Takes the dotted paths of modules, component included (`unet.conv_in`). Of models other than Stable Diffusion the
    /// component is what their files call it (`transformer.`); where these have none, as those of PEFT for language
    /// models, it is a word of your choice in front.
    ///
    /// # Errors
    /// [`LoraError::AmbiguousName`] when two paths are the same once dots are underscores.
    pub fn new<S: Into<String>>(paths: impl IntoIterator<Item = S>) -> Result<Self, LoraError> {
        let mut names = Self::default();
        for path in paths {
            let path = path.into();
            let (component, rest) = path.split_once('.').unwrap_or(("", &path));
            let key = (component.to_owned(), rest.replace('.', "_"));
            if let Some(first) = names.paths.insert(key, path.clone())
                && first != path
            {
                return Err(LoraError::AmbiguousName {
                    first,
                    second: path,
                });
            }
        }
        Ok(names)
    }

    /// The path of the module that `component` calls `flat`.
    pub(super) fn resolve(&self, component: &str, flat: &str) -> Option<String> {
        let find = |name: String| self.paths.get(&(component.to_owned(), name));
        let original = || diffusers_name(flat).filter(|_| component == "unet");
        // Some files lack the `text_model` level, and so do the modules of some text encoders.
        find(flat.to_owned())
            .or_else(|| find(format!("text_model_{flat}")))
            .or_else(|| find(flat.strip_prefix("text_model_")?.to_owned()))
            .or_else(|| find(original()?))
            .cloned()
    }
}

impl ModuleNames {
    /// True when the list has this path.
    pub(super) fn contains(&self, path: &str) -> bool {
        let (component, rest) = path.split_once('.').unwrap_or(("", path));
        let key = (component.to_owned(), rest.replace('.', "_"));
        self.paths.get(&key).is_some_and(|found| found == path)
    }

    /// The full path of the only module that is called `path` without its component.
    pub(super) fn component_of(&self, path: &str) -> Option<String> {
        let levels = [path.to_owned(), format!("text_model.{path}")];
        let mut found = self.paths.values().filter(|full| {
            let rest = full.split_once('.').map_or("", |(_, rest)| rest);
            levels.iter().any(|level| level == rest)
        });
        let first = found.next()?;
        found.next().is_none().then(|| first.clone())
    }
}

/// The kohya name of a module, or `None` when kohya has no prefix for its component.
pub(super) fn kohya_name(path: &str, two_text_encoders: bool) -> Option<String> {
    let (component, rest) = path.split_once('.')?;
    let prefix = match component {
        "text_encoder" if two_text_encoders => "lora_te1_",
        _ => {
            KOHYA_PREFIXES
                .iter()
                .find(|(_, named)| *named == component)?
                .0
        }
    };
    Some(format!("{prefix}{}", rest.replace('.', "_")))
}

/// `{}` stands for a number.
const BLOCKS: [&str; 3] = ["down_blocks.{}", "up_blocks.{}", "mid_block"];

const IN_BLOCK: [&str; 22] = [
    "attentions.{}.proj_in",
    "attentions.{}.proj_out",
    "attentions.{}.to_q",
    "attentions.{}.to_k",
    "attentions.{}.to_v",
    "attentions.{}.to_out.0",
    "attentions.{}.transformer_blocks.{}.attn1.to_q",
    "attentions.{}.transformer_blocks.{}.attn1.to_k",
    "attentions.{}.transformer_blocks.{}.attn1.to_v",
    "attentions.{}.transformer_blocks.{}.attn1.to_out.0",
    "attentions.{}.transformer_blocks.{}.attn2.to_q",
    "attentions.{}.transformer_blocks.{}.attn2.to_k",
    "attentions.{}.transformer_blocks.{}.attn2.to_v",
    "attentions.{}.transformer_blocks.{}.attn2.to_out.0",
    "attentions.{}.transformer_blocks.{}.ff.net.0.proj",
    "attentions.{}.transformer_blocks.{}.ff.net.2",
    "resnets.{}.conv1",
    "resnets.{}.conv2",
    "resnets.{}.time_emb_proj",
    "resnets.{}.conv_shortcut",
    "downsamplers.{}.conv",
    "upsamplers.{}.conv",
];

const UNET: [&str; 7] = [
    "conv_in",
    "conv_out",
    "time_embedding.linear_1",
    "time_embedding.linear_2",
    "add_embedding.linear_1",
    "add_embedding.linear_2",
    "class_embedding.linear_1",
];

const CLIP: [&str; 7] = [
    "text_model.encoder.layers.{}.self_attn.q_proj",
    "text_model.encoder.layers.{}.self_attn.k_proj",
    "text_model.encoder.layers.{}.self_attn.v_proj",
    "text_model.encoder.layers.{}.self_attn.out_proj",
    "text_model.encoder.layers.{}.mlp.fc1",
    "text_model.encoder.layers.{}.mlp.fc2",
    "text_projection",
];

/// Parses an underscored name of a Stable Diffusion module; the result has the component.
pub(super) fn by_grammar(component: &str, flat: &str) -> Option<String> {
    let path = if component == "unet" {
        in_unet(flat).or_else(|| in_unet(&diffusers_name(flat)?))
    } else {
        CLIP.iter()
            .find_map(|template| parse(template, flat))
            .or_else(|| {
                let flat = format!("text_model_{flat}");
                CLIP.iter().find_map(|template| parse(template, &flat))
            })
    }?;
    Some(format!("{component}.{path}"))
}

fn in_unet(flat: &str) -> Option<String> {
    let in_block = |block: &&str| {
        IN_BLOCK
            .iter()
            .find_map(|rest| parse(&format!("{block}.{rest}"), flat))
    };
    UNET.iter()
        .find_map(|template| parse(template, flat))
        .or_else(|| BLOCKS.iter().find_map(in_block))
}

/// Matches the whole of `flat` against a template whose dots are written as underscores.
fn parse(template: &str, flat: &str) -> Option<String> {
    let mut pieces = template.split("{}");
    let first = pieces.next()?;
    let mut rest = flat.strip_prefix(&first.replace('.', "_"))?;
    let mut path = first.to_owned();
    for piece in pieces {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        if number.is_empty() || (number.len() > 1 && number.starts_with('0')) {
            return None;
        }
        rest = after.strip_prefix(&piece.replace('.', "_"))?;
        path.push_str(number);
        path.push_str(piece);
    }
    rest.is_empty().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_inverts_flattening() {
        for path in [
            "unet.conv_in",
            "unet.time_embedding.linear_1",
            "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
            "unet.up_blocks.3.attentions.12.transformer_blocks.9.ff.net.0.proj",
            "unet.up_blocks.3.attentions.2.transformer_blocks.0.ff.net.2",
            "unet.down_blocks.1.resnets.0.time_emb_proj",
            "unet.down_blocks.1.resnets.0.conv_shortcut",
            "unet.down_blocks.0.downsamplers.0.conv",
            "unet.up_blocks.0.upsamplers.0.conv",
            "unet.down_blocks.1.attentions.0.proj_in",
            "text_encoder.text_model.encoder.layers.11.mlp.fc2",
            "text_encoder_2.text_projection",
        ] {
            let (component, rest) = path.split_once('.').unwrap();
            let flat = rest.replace('.', "_");
            assert_eq!(by_grammar(component, &flat).as_deref(), Some(path));
        }
    }

    #[test]
    fn the_grammar_does_not_guess() {
        for flat in [
            "",
            "conv_in_",
            "xconv_in",
            "down_blocks_0",
            "down_blocks__attentions_0_proj_in",
            "down_blocks_00_attentions_0_proj_in",
            "down_blocks_0_attentions_0_proj_in_2",
        ] {
            assert_eq!(by_grammar("unet", flat), None, "{flat}");
        }
    }

    #[test]
    fn a_list_of_modules_decides() {
        let names = ModuleNames::new(["unet.my_block.0.to_q", "text_encoder.layers.0.fc"]).unwrap();
        assert_eq!(
            names.resolve("unet", "my_block_0_to_q").as_deref(),
            Some("unet.my_block.0.to_q")
        );
        assert_eq!(
            names
                .resolve("text_encoder", "text_model_layers_0_fc")
                .as_deref(),
            Some("text_encoder.layers.0.fc")
        );
        assert_eq!(names.resolve("text_encoder", "my_block_0_to_q"), None);

        let error = ModuleNames::new(["unet.a_b", "unet.a.b"]).unwrap_err();
        assert!(matches!(error, LoraError::AmbiguousName { .. }));
        assert!(ModuleNames::new(["unet.a_b", "unet.a_b"]).is_ok());
    }

    #[test]
    fn kohya_names_have_the_prefix_of_their_component() {
        let path = "text_encoder.text_model.encoder.layers.0.mlp.fc1";
        assert_eq!(
            kohya_name(path, false).unwrap(),
            "lora_te_text_model_encoder_layers_0_mlp_fc1"
        );
        assert_eq!(
            kohya_name(path, true).unwrap(),
            "lora_te1_text_model_encoder_layers_0_mlp_fc1"
        );
        assert_eq!(
            kohya_name("unet.conv_in", true).unwrap(),
            "lora_unet_conv_in"
        );
        assert_eq!(kohya_name("vae.conv_in", false), None);
    }
}
