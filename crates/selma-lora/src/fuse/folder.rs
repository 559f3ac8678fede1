//! Folders in the layout of diffusers.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use selma_durable::{AtomicFolder, DurableError, create_folder};
use serde::Deserialize;

use super::{FuseReport, checked::Checked, module_of, source::Source};
use crate::{LoraError, Weighted, format::COMPONENTS};

/// Endings of files with weights, in whatever form.
const WEIGHTS: [&str; 10] = [
    "safetensors",
    "bin",
    "ckpt",
    "pt",
    "pth",
    "msgpack",
    "h5",
    "onnx",
    "gguf",
    "onnx_data",
];

/// Which file has a tensor, in `*.safetensors.index.json`.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Adds adapters to the weights of a folder in the layout of diffusers (`unet`, `text_encoder` and `text_encoder_2` with
/// safetensors files, whole or sharded), and writes it as a new folder, which appears when it is complete.
///
/// Of a component with several variants of its weights (`fp16`..) all are fused. Everything else is copied, but for the
/// weights that would then be those of before: files of other formats in a component that an adapter changes, and
/// whole models beside the components; the report lists them. See [`fuse_file`](super::fuse_file) for what the changed
/// files hold.
///
/// # Errors
/// As [`fuse_file`](super::fuse_file); [`LoraError::CheckpointFolder`] when `to` exists already or lies in `from`, when a
/// component that an adapter changes has no safetensors file, or when an index cannot be used.
pub fn fuse_folder(
    from: &Path,
    to: &Path,
    inputs: &[Weighted<'_>],
) -> Result<FuseReport, LoraError> {
    let mut components = Vec::new();
    for component in COMPONENTS {
        if from.join(component).is_dir() {
            components.push((component, variants(from, component)?));
        }
    }
    let has_modules = |component: &str| {
        inputs.iter().any(|input| {
            let mut paths = input.adapter.modules.keys();
            paths.any(|path| {
                path.split_once('.')
                    .is_some_and(|(own, _)| own == component)
            })
        })
    };
    for (component, variants) in &components {
        if variants.is_empty() && has_modules(component) {
            return Err(LoraError::CheckpointFolder {
                path: from.join(component),
                reason: "has no weights in safetensors files, and others cannot be fused",
            });
        }
    }
    // Every variant has to fit, each with the first ones of the other components.
    let firsts = || components.iter().map(|(_, variants)| variants.first());
    let mut checked = Checked::new(inputs, firsts().flatten().flatten())?;
    for (index, (_, variants)) in components.iter().enumerate() {
        for variant in variants.iter().skip(1) {
            let others = firsts()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .filter_map(|(_, first)| first);
            checked = Checked::new(inputs, others.flatten().chain(variant))?;
        }
    }

    let whole = begin(from, to)?;
    let mut fused: BTreeMap<PathBuf, Source> = components
        .into_iter()
        .flat_map(|(_, variants)| variants.into_iter().flatten())
        .filter(|source| checked.touches_any(source))
        .map(|source| (source.path.clone(), source))
        .collect();
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    for path in walk(from)? {
        let inside = path.strip_prefix(from).unwrap_or(&path);
        let target = whole.path().join(inside);
        if let Some(folder) = target.parent() {
            create_folder(folder)?;
        }
        if let Some(source) = fused.remove(&path) {
            files.push(checked.write(source, &target)?);
        } else if holds_weights_of_before(inside, has_modules) {
            left_out.push(path);
        } else {
            fs::copy(&path, &target).map_err(DurableError::io("copy", &path))?;
        }
    }
    whole.commit().map_err(DurableError::io("write", to))?;
    Ok(checked.report(files, left_out))
}

/// Begins the new folder.
fn begin(from: &Path, to: &Path) -> Result<AtomicFolder, LoraError> {
    let wrong = |reason| LoraError::CheckpointFolder {
        path: to.to_path_buf(),
        reason,
    };
    if fs::symlink_metadata(to).is_ok() {
        return Err(wrong("exists already; choose another one"));
    }
    let parent = to.parent().filter(|folder| *folder != Path::new(""));
    let parent = fs::canonicalize(parent.unwrap_or(Path::new(".")))
        .map_err(DurableError::io("write", to))?;
    if parent.starts_with(fs::canonicalize(from).map_err(LoraError::unreadable(from))?) {
        return Err(wrong("would lie in the checkpoint itself"));
    }
    Ok(AtomicFolder::create(to).map_err(DurableError::io("write", to))?)
}

/// The sets of safetensors files that each hold all weights of a component.
fn variants(from: &Path, component: &'static str) -> Result<Vec<Vec<Source>>, LoraError> {
    let folder = from.join(component);
    let mut alone: BTreeSet<PathBuf> = BTreeSet::new();
    let mut indices = Vec::new();
    for path in entries(&folder)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".json") && name.contains(".safetensors.index") {
            indices.push(path);
        } else if name.ends_with(".safetensors") {
            alone.insert(path);
        }
    }
    let mut sets: Vec<BTreeSet<PathBuf>> = Vec::new();
    for path in indices {
        let text = fs::read(&path).map_err(LoraError::unreadable(&path))?;
        let unusable = || LoraError::CheckpointFolder {
            path: path.clone(),
            reason: "is no index of files beside it",
        };
        let index: Index = serde_json::from_slice(&text).map_err(|_| unusable())?;
        let mut shards = BTreeSet::new();
        for name in index.weight_map.values() {
            if Path::new(name).file_name() != Some(OsStr::new(name)) {
                return Err(unusable());
            }
            let shard = folder.join(name);
            alone.remove(&shard);
            shards.insert(shard);
        }
        sets.push(shards);
    }
    // Whole files first: they are what is read when there are both.
    let sets = alone
        .into_iter()
        .map(|path| BTreeSet::from([path]))
        .chain(sets);
    let open = |path: PathBuf| Source::open(&path, |tensor| module_of(component, tensor));
    sets.map(|set| set.into_iter().map(open).collect())
        .collect()
}

/// Whether a file, by its path inside the folder, has weights that the adapters were to change.
fn holds_weights_of_before(inside: &Path, has_modules: impl Fn(&str) -> bool) -> bool {
    let name = inside.file_name().unwrap_or_default().to_string_lossy();
    let ending = inside.extension().unwrap_or_default().to_string_lossy();
    let index = name.ends_with(".json") && name.contains(".bin.index");
    let weights = index || WEIGHTS.contains(&ending.as_ref());
    let mut folders = inside.parent().into_iter().flat_map(Path::components);
    match folders.next() {
        None => weights,
        Some(component) => {
            let component = component.as_os_str().to_string_lossy();
            weights && ending != "safetensors" && has_modules(&component)
        }
    }
}

/// The files below a folder, in order.
fn walk(folder: &Path) -> Result<Vec<PathBuf>, LoraError> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() {
            files.extend(walk(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// What is in a folder, in order.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, LoraError> {
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>, _>>()
        })
        .map_err(LoraError::unreadable(folder))?;
    paths.sort();
    Ok(paths)
}
