//! Ranks and alphas as PEFT's configurations give them.
//!
//! They are found in `adapter_config.json` of PEFT and in the metadata entry
//! `lora_adapter_metadata` of diffusers, which is the same JSON for every component, its keys
//! prefixed with the component: `unet.r`, `unet.lora_alpha`, `unet.rank_pattern`, ... (diffusers
//! `loaders/lora_base.py`, `_pack_dict_with_prefix`).

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::LoraError;

pub(super) const METADATA_KEY: &str = "lora_adapter_metadata";

/// What is said about the modules of every component.
#[derive(Debug, Default)]
pub(super) struct AdapterConfig {
    components: BTreeMap<String, ComponentConfig>,
    /// For the components that have no configuration of their own.
    any: Option<ComponentConfig>,
}

#[derive(Debug, Default)]
struct ComponentConfig {
    rank: Option<f64>,
    alpha: Option<f64>,
    rank_patterns: Vec<(Regex, f64)>,
    alpha_patterns: Vec<(Regex, f64)>,
    rslora: bool,
    dora: bool,
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
            component.set(METADATA_KEY, key, field, value)?;
        }
        Ok(config)
    }

    /// Reads `adapter_config.json`, which holds for all modules of the file beside it.
    pub(super) fn parse_peft(text: &[u8]) -> Result<Self, LoraError> {
        let unusable = |reason| LoraError::PeftConfig { reason };
        let entries: Map<String, Value> =
            serde_json::from_slice(text).map_err(|error| unusable(error.to_string()))?;
        match entries.get("peft_type").and_then(Value::as_str) {
            Some("LORA" | "LOHA" | "LOKR") => {}
            Some(other) => {
                return Err(unusable(format!(
                    "peft_type is {other}, expected LORA, LOHA or LOKR"
                )));
            }
            None => return Err(unusable("it has no peft_type".to_owned())),
        }
        let mut config = ComponentConfig::default();
        for (field, value) in &entries {
            let set = config.set("adapter_config.json", field, field, value);
            set.map_err(|error| match error {
                LoraError::Metadata { reason } => unusable(reason),
                other => other,
            })?;
        }
        Ok(Self {
            components: BTreeMap::new(),
            any: Some(config),
        })
    }

    /// What is said about a module, and its path without the component.
    fn of<'a>(&self, module: &'a str) -> Option<(&ComponentConfig, &'a str)> {
        let (component, path) = module.split_once('.')?;
        let config = self.components.get(component).or(self.any.as_ref())?;
        Some((config, path))
    }

    /// True when the module is a DoRA.
    pub(super) fn dora(&self, module: &str) -> bool {
        self.of(module).is_some_and(|(config, _)| config.dora)
    }

    /// True when the modules of some component are DoRAs.
    pub(super) fn any_dora(&self) -> bool {
        let mut all = self.components.values().chain(&self.any);
        all.any(|config| config.dora)
    }

    /// Alpha divided by the rank where neither can be seen from the tensors; 1 where nothing is said.
    pub(super) fn scale(&self, module: &str) -> f64 {
        let scale = self.of(module).and_then(|(config, path)| {
            let rank = first_match(&config.rank_patterns, path).or(config.rank)?;
            let alpha = first_match(&config.alpha_patterns, path).or(config.alpha)?;
            Some(alpha / rank)
        });
        scale.unwrap_or(1.0)
    }

    /// The alpha of a module of rank `found`; the rank where the metadata says nothing.
    pub(super) fn alpha(&self, module: &str, found: usize) -> Result<f64, LoraError> {
        let rank = found as f64;
        let Some((config, path)) = self.of(module) else {
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

impl ComponentConfig {
    /// Takes over one entry; `file` is where it stands and `key` what it is called there.
    fn set(&mut self, file: &str, key: &str, field: &str, value: &Value) -> Result<(), LoraError> {
        let unsupported = |kind| {
            Err(LoraError::Unsupported {
                key: format!("{key} of {file}"),
                kind,
            })
        };
        let on = value == &Value::Bool(true);
        match field {
            "r" => self.rank = Some(number(key, value)?),
            // LoHa and LoKr have it without the prefix.
            "lora_alpha" | "alpha" => self.alpha = Some(number(key, value)?),
            "rank_pattern" => self.rank_patterns = patterns(key, value)?,
            "alpha_pattern" => self.alpha_patterns = patterns(key, value)?,
            "use_rslora" => self.rslora = on,
            "use_dora" => self.dora = on,
            // Of layers that keep their weight as [in, out], as GPT-2 does.
            "fan_in_fan_out" if on => return unsupported("LoRA of a transposed weight"),
            "use_qalora" if on => return unsupported("QA-LoRA"),
            "lora_bias" if on => return unsupported("LoRA with a bias"),
            "layer_replication" if !value.is_null() => {
                return unsupported("LoRA of replicated layers");
            }
            "use_bdlora"
            | "kasa_config"
            | "monteclora_config"
            | "arrow_config"
            | "alora_invocation_tokens"
                if !value.is_null() && value != &Value::Bool(false) =>
            {
                return unsupported("a variant of LoRA with a forward pass of its own");
            }
            "init_lora_weights" => {
                // These change the base weights too, and PEFT does so again on loading.
                let name = value.as_str().unwrap_or_default().to_lowercase();
                let changed = ["pissa", "olora", "corda", "loftq", "lora_ga"];
                if changed.iter().any(|other| name.starts_with(other)) {
                    return unsupported(
                        "LoRA on a changed base (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)",
                    );
                }
            }
            // The rest (dropout, target modules, ..) does not change the result.
            _ => {}
        }
        Ok(())
    }
}

fn number(key: &str, value: &Value) -> Result<f64, LoraError> {
    value.as_f64().ok_or_else(|| LoraError::Metadata {
        reason: format!("{key} is {value}, expected a number"),
    })
}

/// Patterns in the order of the file: PEFT takes the first that matches.
fn patterns(key: &str, value: &Value) -> Result<Vec<(Regex, f64)>, LoraError> {
    if value.is_null() {
        return Ok(Vec::new());
    }
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
    // The pattern may have been written for a text encoder without the level.
    let short = short(path);
    patterns
        .iter()
        .find(|(pattern, _)| pattern.is_match(path) || pattern.is_match(short))
        .map(|&(_, value)| value)
}

/// The metadata of modules whose alpha is their rank, which is how the diffusers formats are written.
pub(super) fn describe<'a>(ranks: impl Iterator<Item = (&'a String, usize)>) -> String {
    let mut components: BTreeMap<&str, Vec<Described<'_>>> = BTreeMap::new();
    for (module, rank) in ranks {
        if let Some((component, path)) = module.split_once('.') {
            let entry = components.entry(component).or_default();
            entry.push(Described {
                path: short(path),
                rank,
                alpha: rank as f64,
            });
        }
    }
    let mut entries = Map::new();
    for (component, modules) in components {
        for (field, value) in fields(&modules) {
            entries.insert(format!("{component}.{field}"), value);
        }
    }
    Value::Object(entries).to_string()
}

/// A module as a configuration describes it.
#[derive(Debug)]
pub(super) struct Described<'a> {
    /// Without the component and the `text_model` level: PEFT compares suffixes, so that this names
    /// the module with and without the level.
    pub(super) path: &'a str,
    pub(super) rank: usize,
    pub(super) alpha: f64,
}

/// The fields of PEFT's `LoraConfig` that say which modules there are, and their ranks and alphas.
pub(super) fn fields(modules: &[Described<'_>]) -> [(&'static str, Value); 7] {
    let (rank, ranks) = usual_and_others(modules, |module| json!(module.rank));
    let (alpha, alphas) = usual_and_others(modules, |module| {
        // Whole numbers as such: PEFT's alpha is an integer.
        if module.alpha.fract() == 0.0 && module.alpha.abs() < 1e15 {
            json!(module.alpha as i64)
        } else {
            json!(module.alpha)
        }
    });
    let targets: Vec<&str> = modules.iter().map(|module| module.path).collect();
    [
        ("alpha_pattern", alphas),
        ("lora_alpha", alpha),
        ("r", rank),
        ("rank_pattern", ranks),
        ("target_modules", json!(targets)),
        ("use_dora", json!(false)),
        ("use_rslora", json!(false)),
    ]
}

/// The most frequent value (of several the largest), and an object of the modules with another.
fn usual_and_others<'a>(
    modules: &[Described<'a>],
    value: impl Fn(&Described<'a>) -> Value,
) -> (Value, Value) {
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let mut counts: Vec<(usize, Value)> = Vec::new();
    for module in modules {
        let value = value(module);
        match counts.iter_mut().find(|(_, known)| *known == value) {
            Some((count, _)) => *count += 1,
            None => counts.push((1, value)),
        }
    }
    let usual = counts
        .into_iter()
        .max_by(|(n, x), (m, y)| n.cmp(m).then(number(x).total_cmp(&number(y))))
        .map_or(Value::Null, |(_, value)| value);
    let others: Map<String, Value> = modules
        .iter()
        .map(|module| (module.path, value(module)))
        .filter(|(_, value)| *value != usual)
        .map(|(path, value)| (pattern(path, modules), value))
        .collect();
    (usual, Value::Object(others))
}

/// The regular expression by which a configuration means this module and no other: PEFT lets it match the
/// end of a path.
fn pattern(path: &str, modules: &[Described<'_>]) -> String {
    let plain = |c: char| c.is_alphanumeric() || ['.', '_', '-'].contains(&c);
    let escaped = if path.chars().all(plain) {
        // The dots of the paths people know are written as they are, as in files of PEFT.
        path.to_owned()
    } else {
        regex::escape(path)
    };
    let ends_so = |other: &Described<'_>| {
        let start = other.path.strip_suffix(path);
        start.is_some_and(|start| start.ends_with('.'))
    };
    if modules.iter().any(ends_so) {
        format!("^{escaped}")
    } else {
        escaped
    }
}

/// A module's path without the `text_model` level, which not every text encoder has.
pub(super) fn short(path: &str) -> &str {
    path.strip_prefix("text_model.").unwrap_or(path)
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
        let error = AdapterConfig::parse(r#"{"unet.use_qalora": true}"#).unwrap_err();
        assert!(matches!(
            error,
            LoraError::Unsupported {
                kind: "QA-LoRA",
                ..
            }
        ));
    }

    #[test]
    fn dora_is_said_for_each_component() {
        let config =
            AdapterConfig::parse(r#"{"unet.use_dora": true, "text_encoder.r": 4}"#).unwrap();
        assert!(config.dora("unet.conv_in") && config.any_dora());
        assert!(!config.dora("text_encoder.x") && !config.dora("text_encoder_2.x"));
        assert!(
            !AdapterConfig::parse(r#"{"unet.use_dora": false}"#)
                .unwrap()
                .any_dora()
        );
    }
}
