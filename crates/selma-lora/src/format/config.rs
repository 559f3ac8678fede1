//! Ranks and alphas in the metadata entry `lora_adapter_metadata` of diffusers.
//!
//! The entry is the JSON of PEFT's `LoraConfig` of every component, its keys prefixed with the
//! component: `unet.r`, `unet.lora_alpha`, `unet.rank_pattern`, ... (diffusers
//! `loaders/lora_base.py`, `_pack_dict_with_prefix`).

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::{LoraError, LoraModule};

pub(super) const METADATA_KEY: &str = "lora_adapter_metadata";

/// What the metadata says about the modules of every component.
#[derive(Debug, Default)]
pub(super) struct AdapterConfig {
    components: BTreeMap<String, ComponentConfig>,
}

#[derive(Debug, Default)]
struct ComponentConfig {
    rank: Option<f64>,
    alpha: Option<f64>,
    rank_patterns: Vec<(Regex, f64)>,
    alpha_patterns: Vec<(Regex, f64)>,
    rslora: bool,
}

impl AdapterConfig {
    pub(super) fn parse(text: &str) -> Result<Self, LoraError> {
        let entries: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| LoraError::Metadata {
                reason: error.to_string(),
            })?;
        let mut config = Self::default();
        for (key, value) in &entries {
            let Some((component, field)) = key.split_once('.') else {
                continue;
            };
            let component = config.components.entry(component.to_owned()).or_default();
            match field {
                "r" => component.rank = Some(number(key, value)?),
                "lora_alpha" => component.alpha = Some(number(key, value)?),
                "rank_pattern" => component.rank_patterns = patterns(key, value)?,
                "alpha_pattern" => component.alpha_patterns = patterns(key, value)?,
                "use_rslora" => component.rslora = value == &Value::Bool(true),
                "use_dora" if value == &Value::Bool(true) => {
                    return Err(LoraError::Unsupported {
                        key: METADATA_KEY.to_owned(),
                        kind: "DoRA",
                    });
                }
                // The rest (dropout, target modules, initialisation..) does not change the result.
                _ => {}
            }
        }
        Ok(config)
    }

    /// The alpha of a module of rank `found`; the rank where the metadata says nothing.
    pub(super) fn alpha(&self, module: &str, found: usize) -> Result<f64, LoraError> {
        let rank = found as f64;
        let Some((config, path)) = module
            .split_once('.')
            .and_then(|(component, path)| Some((self.components.get(component)?, path)))
        else {
            return Ok(rank);
        };
        let expected = first_match(&config.rank_patterns, path).or(config.rank);
        if let Some(expected) = expected
            && expected != rank
        {
            return Err(LoraError::MetadataRank {
                expected: expected as usize,
                found,
            });
        }
        let alpha = first_match(&config.alpha_patterns, path)
            .or(config.alpha)
            .unwrap_or(rank);
        // rsLoRA scales by alpha / sqrt(r), which is (alpha * sqrt(r)) / r.
        Ok(if config.rslora {
            alpha * rank.sqrt()
        } else {
            alpha
        })
    }
}

fn number(key: &str, value: &Value) -> Result<f64, LoraError> {
    value.as_f64().ok_or_else(|| LoraError::Metadata {
        reason: format!("{key} is {value}, expected a number"),
    })
}

/// Patterns in the order of the file: PEFT takes the first that matches.
fn patterns(key: &str, value: &Value) -> Result<Vec<(Regex, f64)>, LoraError> {
    let Some(entries) = value.as_object() else {
        return Err(LoraError::Metadata {
            reason: format!("{key} is {value}, expected an object"),
        });
    };
    entries
        .iter()
        .map(|(pattern, value)| {
            // PEFT `utils/other.py`, `get_pattern_key`.
            let regex = Regex::new(&format!(r"^(?:.*\.)?(?:{pattern})$")).map_err(|error| {
                LoraError::Metadata {
                    reason: format!("{key}: {error}"),
                }
            })?;
            Ok((regex, number(key, value)?))
        })
        .collect()
}

fn first_match(patterns: &[(Regex, f64)], path: &str) -> Option<f64> {
    // The pattern may have been written for a text encoder without the `text_model` level.
    let short = path.strip_prefix("text_model.").unwrap_or(path);
    patterns
        .iter()
        .find(|(pattern, _)| pattern.is_match(path) || pattern.is_match(short))
        .map(|&(_, value)| value)
}

/// The metadata of modules whose alpha is their rank, which is how the diffusers formats are written.
pub(super) fn describe(modules: &BTreeMap<String, LoraModule>) -> String {
    let mut components: BTreeMap<&str, Vec<(&str, usize)>> = BTreeMap::new();
    for (module, pair) in modules {
        if let Some((component, path)) = module.split_once('.') {
            // Suffixes match with and without the `text_model` level, as PEFT compares them.
            let path = path.strip_prefix("text_model.").unwrap_or(path);
            let entry = components.entry(component).or_default();
            entry.push((path, pair.rank()));
        }
    }
    let mut entries = Map::new();
    for (component, modules) in components {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        for (_, rank) in &modules {
            *counts.entry(*rank).or_default() += 1;
        }
        let usual = counts
            .iter()
            .max_by_key(|&(rank, count)| (count, rank))
            .map_or(0, |(&rank, _)| rank);
        let others: Map<String, Value> = modules
            .iter()
            .filter(|(_, rank)| *rank != usual)
            .map(|(path, rank)| ((*path).to_owned(), json!(rank)))
            .collect();
        let targets: Vec<&str> = modules.iter().map(|(path, _)| *path).collect();
        for (field, value) in [
            ("alpha_pattern", json!(others)),
            ("lora_alpha", json!(usual)),
            ("r", json!(usual)),
            ("rank_pattern", json!(others)),
            ("target_modules", json!(targets)),
            ("use_dora", json!(false)),
            ("use_rslora", json!(false)),
        ] {
            entries.insert(format!("{component}.{field}"), value);
        }
    }
    Value::Object(entries).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_follow_peft() {
        let config = AdapterConfig::parse(
            r#"{"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": false, "unet.use_dora": false,
                "unet.rank_pattern": {"attn1.to_q": 2, "^conv_in": 6},
                "unet.alpha_pattern": {"mid_block.attentions.0.attn1.to_q": 1, "to_q": 3, "to_.": 5},
                "text_encoder.r": 16, "text_encoder.lora_alpha": 4, "text_encoder.use_rslora": true,
                "text_encoder.rank_pattern": {"^encoder.layers.0.mlp.fc1": 4}}"#,
        )
        .unwrap();
        for (module, rank, alpha) in [
            ("unet.mid_block.attentions.0.attn1.to_q", 2, 1.0),
            ("unet.down_blocks.0.attn1.to_q", 2, 3.0),
            ("unet.down_blocks.0.attn1.to_k", 4, 5.0),
            ("unet.conv_in", 6, 8.0),
            ("unet.x.conv_in", 4, 8.0),
            ("text_encoder.text_model.encoder.layers.1.mlp.fc1", 16, 16.0),
            ("text_encoder.text_model.encoder.layers.0.mlp.fc1", 4, 8.0),
            ("text_encoder_2.anything", 7, 7.0),
        ] {
            assert_eq!(config.alpha(module, rank).unwrap(), alpha, "{module}");
        }
        assert!(matches!(
            config.alpha("unet.conv_in", 4),
            Err(LoraError::MetadataRank {
                expected: 6,
                found: 4
            })
        ));
    }

    #[test]
    fn unusable_metadata_is_an_error() {
        for text in [
            "no json",
            "[1]",
            r#"{"unet.r": "four"}"#,
            r#"{"unet.alpha_pattern": 3}"#,
            r#"{"unet.alpha_pattern": {"a": "b"}}"#,
            r#"{"unet.alpha_pattern": {"(": 1}}"#,
        ] {
            let error = AdapterConfig::parse(text).unwrap_err();
            assert!(matches!(error, LoraError::Metadata { .. }), "{text}");
        }
        let error = AdapterConfig::parse(r#"{"unet.use_dora": true}"#).unwrap_err();
        assert!(matches!(error, LoraError::Unsupported { kind: "DoRA", .. }));
    }
}
