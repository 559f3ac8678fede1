//! The folders that PEFT loads adapters from.

use std::{collections::BTreeMap, io, path::Path};

use selma_durable::{DurableError, atomic_write, create_folder};
use serde_json::{Map, Value, json};

use super::{
    Format,
    config::{Described, fields, short},
    keys::{COMPONENTS, with_component},
    write::write_with,
};
use crate::{Adapter, Dtype, LoraError};

pub(super) const CONFIG_FILE: &str = "adapter_config.json";
pub(super) const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A module's path as PEFT meets it in the model of its component: without the component, and in the
/// first text encoder (`CLIPTextModel`) without the `text_model` level, which transformers 5 left
/// out there; the second (`CLIPTextModelWithProjection`) has it still.
pub(super) fn in_peft(path: &str) -> &str {
    match path.split_once('.') {
        Some(("text_encoder", rest)) => short(rest),
        Some((_, rest)) => rest,
        None => path,
    }
}

/// Writes a folder for each component, or one alone; see [`Adapter::save`].
pub(crate) fn save(adapter: &Adapter, path: &Path, dtype: Dtype) -> Result<(), LoraError> {
    let mut components: BTreeMap<&str, Adapter> = BTreeMap::new();
    for (name, module) in &adapter.modules {
        let component = name.split('.').next().unwrap_or_default();
        let part = components.entry(component).or_insert_with(|| Adapter {
            metadata: adapter.metadata.clone(),
            ..Adapter::default()
        });
        part.modules.insert(name.clone(), module.clone());
    }
    // A reader looks for no folders of other components.
    let foreign = components.keys().any(|name| !COMPONENTS.contains(name));
    if foreign && components.len() > 1 {
        return Err(LoraError::PeftFolder {
            path: path.to_path_buf(),
            reason: "cannot hold modules of a component of another model beside those of others",
        });
    }
    let alone = components.len() == 1 && (foreign || is_told(adapter, path));
    // Everything that can be wrong with the adapter is found before anything is written.
    let mut folders = Vec::new();
    for (component, part) in &components {
        let folder = if alone {
            path.to_path_buf()
        } else {
            path.join(component)
        };
        let weights = write_with(part, Format::Peft, dtype, |_| true);
        let weights = weights.map_err(|e| e.in_file(&folder.join(WEIGHTS_FILE)))?;
        folders.push((folder, weights, config(part)));
    }
    if folders.is_empty() {
        return Err(LoraError::Empty.in_file(path));
    }
    let stale = |component: &str| {
        let folder = path.join(component);
        folder.join(CONFIG_FILE).exists() && (alone || !components.contains_key(component))
    };
    if COMPONENTS.into_iter().any(stale) || (!alone && path.join(CONFIG_FILE).exists()) {
        return Err(LoraError::PeftFolder {
            path: path.to_path_buf(),
            reason: "holds an older adapter of other components, which would be read with this one",
        });
    }
    for (folder, ..) in &folders {
        create_folder(folder)?;
        let config = folder.join(CONFIG_FILE);
        match std::fs::remove_file(&config) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(DurableError::io("remove", &config)(error).into());
            }
            _ => {}
        }
    }
    for (folder, weights, config) in &folders {
        atomic_write(&folder.join(WEIGHTS_FILE), weights)?;
        atomic_write(&folder.join(CONFIG_FILE), config.as_bytes())?;
    }
    Ok(())
}

/// True when the component of the modules is known to a reader of the folder itself, without a
/// folder in it that is called like the component.
fn is_told(adapter: &Adapter, folder: &Path) -> bool {
    let named = COMPONENTS
        .into_iter()
        .find(|component| folder.file_name().is_some_and(|name| name == *component));
    let mut paths = adapter.modules.keys();
    paths.all(|path| with_component(in_peft(path), None, named).as_ref() == Some(path))
}

/// What PEFT needs to know of the modules of one component.
fn config(adapter: &Adapter) -> String {
    let modules: Vec<Described<'_>> = adapter
        .modules
        .iter()
        .map(|(path, module)| Described {
            path: short(path.split_once('.').map_or(path, |(_, rest)| rest)),
            rank: module.rank(),
            alpha: module.alpha,
        })
        .collect();
    let mut config: Map<String, Value> = fields(&modules)
        .into_iter()
        .map(|(field, value)| (field.to_owned(), value))
        .chain([
            ("bias".to_owned(), json!("none")),
            ("inference_mode".to_owned(), json!(true)),
            ("lora_dropout".to_owned(), json!(0.0)),
            ("peft_type".to_owned(), json!("LORA")),
        ])
        .collect();
    config.sort_keys();
    format!("{:#}\n", Value::Object(config))
}
