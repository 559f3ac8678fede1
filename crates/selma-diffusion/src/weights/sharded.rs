//! Weights in several files with an index, `*.safetensors.index.json` or `*.bin.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::WeightsError;
use super::source::Weights;
use super::tensor::StoredTensor;
use crate::DiffusionError;
use crate::config::{ConfigError, read_json};

/// The index; its `metadata` (a total size) is not needed.
#[derive(Debug, Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names, each once, in the order of their names.
///
/// # Errors
///
/// If the index cannot be read, or names files elsewhere.
pub(super) fn shards(path: &Path) -> Result<Vec<PathBuf>, DiffusionError> {
    let index: Index = read_json(path)?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    names.into_iter().map(|name| beside(path, name)).collect()
}

/// All tensors of all shards.
///
/// # Errors
///
/// If a shard is missing or damaged, two of them have a tensor of one name, or one of them does not hold exactly what
/// the index says.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, StoredTensor>, DiffusionError> {
    let index: Index = read_json(path)?;
    let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, shard) in &index.weight_map {
        listed.entry(shard).or_default().insert(key);
    }
    let mut tensors = BTreeMap::new();
    let mut homes: BTreeMap<String, &str> = BTreeMap::new();
    for (&shard, keys) in &listed {
        let file = beside(path, shard)?;
        if !file.is_file() {
            let index = path.to_owned();
            return Err(WeightsError::MissingShard { index, shard: file }.into());
        }
        let found = Weights::open(&file)?.into_tensors();
        for key in found.keys() {
            if let Some(first) = homes.insert(key.clone(), shard) {
                return Err(WeightsError::TwoShards {
                    index: path.to_owned(),
                    key: key.clone(),
                    first: first.to_owned(),
                    second: shard.to_owned(),
                }
                .into());
            }
        }
        let disagree = |one, keys: Vec<&str>| WeightsError::Shard {
            index: path.to_owned(),
            shard: shard.to_owned(),
            one,
            keys: keys.into_iter().take(8).collect::<Vec<_>>().join(", "),
        };
        let absent: Vec<&str> = keys
            .iter()
            .filter(|&&key| !found.contains_key(key))
            .copied()
            .collect();
        if !absent.is_empty() {
            return Err(disagree("index", absent).into());
        }
        let unlisted: Vec<&str> = found
            .keys()
            .map(String::as_str)
            .filter(|key| !keys.contains(key))
            .collect();
        if !unlisted.is_empty() {
            return Err(disagree("shard", unlisted).into());
        }
        tensors.extend(found);
    }
    Ok(tensors)
}

/// A file in the folder of the index.
fn beside(index: &Path, name: &str) -> Result<PathBuf, DiffusionError> {
    if Path::new(name).file_name() != Some(OsStr::new(name)) {
        let expected = "names of files beside it";
        return Err(ConfigError::invalid("weight_map", expected, name)
            .in_file(index)
            .into());
    }
    Ok(index.with_file_name(name))
}
