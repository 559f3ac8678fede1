//! From a path or bytes to the content of an adapter, whichever of the formats it is in.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    ModuleNames,
    config::AdapterConfig,
    keys::COMPONENTS,
    peft::{CONFIG_FILE, WEIGHTS_FILE},
    read::{Hints, LeftOut, Tensors, read},
};
use crate::{Format, LoraError, Source, Update};

/// Which kinds of update are wanted; others are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// LoRAs alone.
    Lora,
    /// Everything that is an update of a weight.
    All,
    /// The same, and what is none is left out and listed.
    Rest,
}

/// What a file or folder holds.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) updates: BTreeMap<String, Update>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) source: Source,
    /// What was not read, of [`Kinds::Rest`].
    pub(crate) left_out: Vec<LeftOut>,
}

pub(crate) fn from_bytes(
    bytes: &[u8],
    names: Option<&ModuleNames>,
    kinds: Kinds,
) -> Result<Content, LoraError> {
    let hints = Hints {
        names,
        kinds,
        component: None,
        config: None,
    };
    let tensors = read(bytes, &hints)?;
    let sha256 = hex::encode(Sha256::digest(bytes));
    Ok(content(tensors, PathBuf::new(), sha256))
}

/// Reads a file, or the folder of PEFT that is at `path` or that the file there belongs to.
pub(crate) fn load(
    path: &Path,
    names: Option<&ModuleNames>,
    kinds: Kinds,
) -> Result<Content, LoraError> {
    let path = match Place::of(path)? {
        Place::Folder(path) => return folder(&path, names, kinds),
        Place::File(path) => path,
    };
    let bytes = read_file(&path)?;
    let mut content = from_bytes(&bytes, names, kinds).map_err(|e| e.in_file(&path))?;
    content.source.path = path;
    Ok(content)
}

/// Where an adapter lies.
#[derive(Debug)]
pub(super) enum Place {
    File(PathBuf),
    /// One that PEFT wrote.
    Folder(PathBuf),
}

impl Place {
    /// What is at `path`, or what the file there belongs to.
    pub(super) fn of(path: &Path) -> Result<Self, LoraError> {
        if path.is_dir() {
            return Self::in_folder(path);
        }
        // Without its configuration the file would be read with another alpha than it was trained with.
        if path.file_name().is_some_and(|name| name == WEIGHTS_FILE)
            && let Some(parent) = path.parent()
            && parent.join(CONFIG_FILE).is_file()
        {
            // A bare file name has an empty parent.
            let here = parent.as_os_str().is_empty();
            let parent = if here { Path::new(".") } else { parent };
            return Ok(Self::Folder(parent.to_path_buf()));
        }
        Ok(Self::File(path.to_path_buf()))
    }

    /// Repositories of LoRAs on the Hub hold a file that diffusers wrote, or one alone.
    fn in_folder(path: &Path) -> Result<Self, LoraError> {
        let configured = |folder: &Path| folder.join(CONFIG_FILE).is_file();
        if configured(path)
            || COMPONENTS
                .into_iter()
                .any(|name| configured(&path.join(name)))
        {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        let usual = path.join(DIFFUSERS_FILE);
        if usual.is_file() {
            return Ok(Self::File(usual));
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(LoraError::unreadable(path))? {
            let file = entry.map_err(LoraError::unreadable(path))?.path();
            let extension = file.extension().is_some_and(|x| x == "safetensors");
            let of_peft = file.file_name().is_some_and(|name| name == WEIGHTS_FILE);
            if extension && !of_peft && file.is_file() {
                files.push(file);
            }
        }
        match (files.pop(), files.is_empty()) {
            (Some(file), true) => Ok(Self::File(file)),
            (found, _) => Err(LoraError::PeftFolder {
                path: path.to_path_buf(),
                reason: if found.is_some() {
                    "has no adapter_config.json and several safetensors files; name one of them"
                } else {
                    "has no adapter_config.json, nor have its folders unet, text_encoder and text_encoder_2, and no file of a LoRA"
                },
            }),
        }
    }
}

/// What `save_lora_weights` of diffusers writes.
const DIFFUSERS_FILE: &str = "pytorch_lora_weights.safetensors";

/// A folder that PEFT wrote, with its component where that is known from the folder's name.
type PeftPart = (PathBuf, Option<&'static str>);

/// The folders of all components, or the one that there is.
pub(super) fn peft_parts(path: &Path) -> Result<Vec<PeftPart>, LoraError> {
    let parts: Vec<PeftPart> = COMPONENTS
        .into_iter()
        .map(|component| (path.join(component), Some(component)))
        .filter(|(folder, _)| folder.join(CONFIG_FILE).is_file())
        .collect();
    let own = path.join(CONFIG_FILE).is_file();
    match (own, parts.is_empty()) {
        // The name of the folder is the only thing that tells apart the two text encoders of SDXL.
        (true, true) => {
            let name = path.file_name();
            let named = COMPONENTS
                .into_iter()
                .find(|component| name.is_some_and(|name| name == *component));
            Ok(vec![(path.to_path_buf(), named)])
        }
        (false, _) => Ok(parts),
        (true, false) => Err(LoraError::PeftFolder {
            path: path.to_path_buf(),
            reason: "has adapter_config.json itself and also in folders for components",
        }),
    }
}

fn folder(path: &Path, names: Option<&ModuleNames>, kinds: Kinds) -> Result<Content, LoraError> {
    let mut hash = Sha256::new();
    let mut all = Tensors {
        updates: BTreeMap::new(),
        metadata: BTreeMap::new(),
        format: Format::Peft,
        dtypes: BTreeSet::new(),
        left_out: Vec::new(),
    };
    for (folder, component) in peft_parts(path)? {
        let file = folder.join(CONFIG_FILE);
        let config = read_file(&file)?;
        let parsed = AdapterConfig::parse_peft(&config).map_err(|e| e.in_file(&file))?;
        let file = folder.join(WEIGHTS_FILE);
        let weights = read_file(&file)?;
        hash.update(&config);
        hash.update(&weights);
        let hints = Hints {
            names,
            kinds,
            component,
            config: Some(&parsed),
        };
        let tensors = read(&weights, &hints).map_err(|e| e.in_file(&file))?;
        if tensors
            .updates
            .keys()
            .any(|path| all.updates.contains_key(path))
        {
            return Err(LoraError::PeftFolder {
                path: path.to_path_buf(),
                reason: "has a module in the folders of two components",
            });
        }
        all.updates.extend(tensors.updates);
        all.metadata.extend(tensors.metadata);
        all.dtypes.extend(tensors.dtypes);
        all.left_out.extend(tensors.left_out);
    }
    let sha256 = hex::encode(hash.finalize());
    Ok(content(all, path.to_path_buf(), sha256))
}

fn content(tensors: Tensors, path: PathBuf, sha256: String) -> Content {
    Content {
        updates: tensors.updates,
        metadata: tensors.metadata,
        source: Source {
            path,
            sha256,
            format: tensors.format,
            dtypes: tensors.dtypes,
        },
        left_out: tensors.left_out,
    }
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, LoraError> {
    std::fs::read(path).map_err(LoraError::unreadable(path))
}
