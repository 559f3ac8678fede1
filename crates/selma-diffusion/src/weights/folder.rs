//! The weight file of a component's folder.

use std::path::{Path, PathBuf};

use super::error::WeightsError;
use super::sharded;
use crate::DiffusionError;

/// The names without ending that diffusers and transformers save weights under.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];

/// A weight file, or the index of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightFile {
    /// What [`Weights::open`](super::Weights::open) takes.
    pub(crate) path: PathBuf,
    /// The files with values, in the order of their names.
    pub(crate) files: Vec<PathBuf>,
}

/// The weight file of a component, of the variant that is asked for (`fp16`, `non_ema`, ..).
///
/// Safetensors go before PyTorch's files, and whole files before sharded ones. Where the variant is not there, the plain
/// file is taken. Without a variant the plain file is taken, or the only variant where there is no plain file.
///
/// # Errors
///
/// If there is none, with the names that were looked for and those that are there.
pub(crate) fn find(folder: &Path, variant: Option<&str>) -> Result<WeightFile, DiffusionError> {
    let there = candidates(folder)?;
    let named = |names: &[String]| {
        let found = names.iter().find(|name| there.contains(name));
        found.map(|name| folder.join(name))
    };
    let names = names(variant);
    let path = match (named(&names), variant) {
        (Some(path), _) => Some(path),
        (None, Some(_)) => named(&self::names(None)),
        (None, None) => only_variant(&there).and_then(|variant| named(&self::names(Some(variant)))),
    };
    let Some(path) = path else {
        return Err(WeightsError::NoWeights {
            folder: folder.to_owned(),
            expected: expected(variant),
            found: listed(&there),
        }
        .into());
    };
    let files = files_of(&path)?;
    Ok(WeightFile { path, files })
}

/// The files with the values of a weight file, or of the shards that an index names.
///
/// # Errors
///
/// If the index cannot be read.
pub(crate) fn files_of(path: &Path) -> Result<Vec<PathBuf>, DiffusionError> {
    if path.extension().is_some_and(|ending| ending == "json") {
        return sharded::shards(path);
    }
    Ok(vec![path.to_owned()])
}

/// Sees that a variant is not asked for in vain.
///
/// # Errors
///
/// If no component of the pipeline has it, with the weight files that are there.
pub(crate) fn require_variant(
    pipeline: &Path,
    components: &[&str],
    variant: &str,
) -> Result<(), DiffusionError> {
    let wanted = names(Some(variant));
    let mut there = Vec::new();
    for component in components {
        let files = candidates(&pipeline.join(component))?;
        if files.iter().any(|name| wanted.contains(name)) {
            return Ok(());
        }
        there.extend(files.iter().map(|name| format!("{component}/{name}")));
    }
    Err(WeightsError::NoVariant {
        folder: pipeline.to_owned(),
        variant: variant.to_owned(),
        found: listed(&there),
    }
    .into())
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}

/// File names, the preferred one first. A variant stands before the last ending, as diffusers has it.
fn names(variant: Option<&str>) -> Vec<String> {
    let variant = variant.map(|name| format!(".{name}")).unwrap_or_default();
    let mut names = Vec::new();
    for ending in ["safetensors", "bin"] {
        names.extend(STEMS.iter().map(|stem| format!("{stem}{variant}.{ending}")));
        let index = |stem| format!("{stem}.{ending}.index{variant}.json");
        names.extend(STEMS.map(index));
    }
    names
}

fn expected(variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("a file of the variant {variant:?}, such as diffusion_pytorch_model.{variant}.safetensors, or the plain one"),
        None => "diffusion_pytorch_model.safetensors, model.safetensors, an index of shards, or the same as .bin".to_owned(),
    }
}

/// The weight files and indices of a folder, sorted; none if there is no such folder.
fn candidates(folder: &Path) -> Result<Vec<String>, DiffusionError> {
    let unreadable = |source| DiffusionError::Io {
        action: "read",
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(unreadable)?.file_name();
        if let Some(name) = name.to_str()
            && (name.ends_with(".safetensors") || name.ends_with(".bin") || is_index(name))
        {
            names.push(name.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn is_index(name: &str) -> bool {
    name.ends_with(".json") && name.contains(".index")
}

/// The variant of all files of a folder, if they are of one.
fn only_variant(there: &[String]) -> Option<&str> {
    let mut variants: Vec<&str> = there.iter().filter_map(|name| variant_of(name)).collect();
    variants.sort_unstable();
    variants.dedup();
    match variants.as_slice() {
        &[variant] => Some(variant),
        _ => None,
    }
}

fn variant_of(name: &str) -> Option<&str> {
    let rest = STEMS.iter().find_map(|stem| name.strip_prefix(stem))?;
    if let Some(index) = rest.strip_suffix(".json") {
        let (_, variant) = index.split_once(".index.")?;
        return Some(variant);
    }
    let whole = rest
        .strip_suffix(".safetensors")
        .or_else(|| rest.strip_suffix(".bin"))?;
    let variant = whole.strip_prefix('.')?;
    // A shard is named by the index.
    (!variant.contains("-of-")).then_some(variant)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), "{\"weight_map\": {}}").unwrap();
        }
        folder
    }

    fn found(names: &[&str], variant: Option<&str>) -> Result<String, String> {
        let folder = folder(names);
        match find(folder.path(), variant) {
            Ok(file) => Ok(file.path.file_name().unwrap().to_str().unwrap().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn safetensors_and_whole_files_go_first() {
        let all = [
            "model.bin",
            "model.safetensors",
            "model.fp16.safetensors",
            "model.safetensors.index.json",
            "model.safetensors.index.fp16.json",
        ];
        assert_eq!(found(&all, None).unwrap(), all[1]);
        assert_eq!(found(&all, Some("fp16")).unwrap(), all[2]);
        assert_eq!(found(&[all[0], all[3]], None).unwrap(), all[3]);
        assert_eq!(found(&[all[0], all[4]], Some("fp16")).unwrap(), all[4]);
        assert_eq!(found(&[all[0]], None).unwrap(), all[0]);
        // What lacks the variant is taken as it is.
        assert_eq!(found(&[all[0]], Some("fp16")).unwrap(), all[0]);
        assert_eq!(found(&all[..2], Some("fp16")).unwrap(), all[1]);
    }

    #[test]
    fn a_lone_variant_serves_and_several_are_a_question() {
        let fp16 = "diffusion_pytorch_model.fp16.safetensors";
        let ema = "diffusion_pytorch_model.non_ema.bin";
        assert_eq!(found(&[fp16], None).unwrap(), fp16);
        assert_eq!(
            found(
                &[
                    "model.safetensors.index.fp16.json",
                    "model.fp16-00001-of-00002.safetensors"
                ],
                None
            )
            .unwrap(),
            "model.safetensors.index.fp16.json"
        );
        let error = found(&[fp16, ema], None).unwrap_err();
        assert!(error.contains(fp16) && error.contains(ema), "{error}");
        let error = found(&[fp16], Some("bf16")).unwrap_err();
        assert!(error.contains("bf16") && error.contains(fp16), "{error}");
        let error = found(&[], None).unwrap_err();
        assert!(error.contains("found none"), "{error}");
    }
}
