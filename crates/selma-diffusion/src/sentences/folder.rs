//! What sentence-transformers keeps beside a model: how a sentence's vector is made of those of its tokens.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::config::{ConfigError, read_json, require_default};

/// The list of the parts that a sentence goes through.
const MODULES: &str = "modules.json";
/// Where the pooling stands without that list.
const POOLING: &str = "1_Pooling";

/// One part. The others of its fields number and name it.
#[derive(Debug, Deserialize)]
struct Module {
    /// A class of Python.
    r#type: String,
    /// Its folder.
    #[serde(default)]
    path: String,
}

/// How long sentences are, and what is done to them before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sentences {
    max_seq_length: Option<usize>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Refuses models whose sentences are other than the mean of their tokens, or go through further networks. A folder that says nothing of it is taken.
///
/// # Errors
///
/// The first file and field that says so.
pub(super) fn require_mean(folder: &Path, width: usize) -> Result<(), ConfigError> {
    let path = folder.join(MODULES);
    let modules: Option<Vec<Module>> = if_there(&path)?;
    let mut pooling = Some(POOLING.to_owned());
    if let Some(modules) = modules {
        pooling = None;
        for (number, module) in modules.into_iter().enumerate() {
            match module.r#type.rsplit('.').next() {
                Some("Transformer" | "Normalize") => {}
                Some("Pooling") => pooling = Some(module.path),
                _ => {
                    let field = format!("[{number}].type");
                    let expected = "Transformer, Pooling or Normalize";
                    let error = ConfigError::invalid(field, expected, module.r#type);
                    return Err(error.in_file(&path));
                }
            }
        }
    }
    if let Some(pooling) = pooling {
        let path = folder.join(pooling).join("config.json");
        if let Some(fields) = if_there(&path)? {
            mean(&fields, width).map_err(|error| error.in_file(&path))?;
        }
    }
    let path = folder.join("config_sentence_transformers.json");
    if let Some(fields) = if_there(&path)? {
        let prompt = require_default(&fields, &[("default_prompt_name", Value::Null)]);
        prompt.map_err(|error| error.in_file(&path))?;
    }
    Ok(())
}

/// The most tokens of a sentence, if a file says so.
///
/// # Errors
///
/// If the file cannot be understood, or texts are to be changed before.
pub(super) fn longest(folder: &Path) -> Result<Option<usize>, ConfigError> {
    let path = folder.join("sentence_bert_config.json");
    let sentences: Sentences = if_there(&path)?.unwrap_or_default();
    let plain = require_default(&sentences.rest, &[("do_lower_case", Value::from(false))]);
    plain.map_err(|error| error.in_file(&path))?;
    Ok(sentences.max_seq_length)
}

/// Older files have a flag for each way, of which several may be on; newer ones name one.
fn mean(fields: &Map<String, Value>, width: usize) -> Result<(), ConfigError> {
    for (field, found) in fields {
        let expected = match field.as_str() {
            "pooling_mode" => json!("mean"),
            "pooling_mode_mean_tokens" => json!(true),
            "word_embedding_dimension" | "embedding_dimension" => json!(width),
            other if other.starts_with("pooling_mode_") => json!(false),
            _ => continue,
        };
        if *found != expected {
            return Err(ConfigError::invalid(field, expected, found));
        }
    }
    Ok(())
}

fn if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ConfigError> {
    path.is_file().then(|| read_json(path)).transpose()
}
