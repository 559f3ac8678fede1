//! `model_index.json`.

use std::path::Path;

use serde_json::Value;

use crate::config::{ConfigError, read_json};

/// Pipelines with one text encoder. What a folder is saved by does not change its components.
const STABLE_DIFFUSION: [&str; 2] = ["StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline"];
/// Pipelines with two.
const STABLE_DIFFUSION_XL: [&str; 2] = [
    "StableDiffusionXLPipeline",
    "StableDiffusionXLImg2ImgPipeline",
];

/// Checks that a folder is a Stable Diffusion pipeline: whether of SDXL, and whether zeros stand for a negative prompt
/// that is not given.
///
/// # Errors
///
/// If the file is missing or damaged, or describes another kind of pipeline, or the refiner of SDXL.
pub(super) fn read_index(folder: &Path) -> Result<(bool, bool), ConfigError> {
    let path = folder.join("model_index.json");
    let index: Value = read_json(&path)?;
    let wrong = |field, expected: &str, found: &str| {
        Err(ConfigError::invalid(field, expected, found).in_file(&path))
    };
    let flag = |name: &str| index.get(name).and_then(Value::as_bool);
    let class = index.get("_class_name").and_then(Value::as_str);
    let class = class.unwrap_or("nothing");
    let xl = STABLE_DIFFUSION_XL.contains(&class);
    if !xl && !STABLE_DIFFUSION.contains(&class) {
        let expected = [STABLE_DIFFUSION, STABLE_DIFFUSION_XL].concat().join(", ");
        return wrong("_class_name", &format!("one of {expected}"), class);
    }
    if flag("requires_aesthetics_score") == Some(true) {
        let expected = "false: the refiner of Stable Diffusion XL is not read";
        return wrong("requires_aesthetics_score", expected, "true");
    }
    // True is diffusers' default.
    let zeros = flag("force_zeros_for_empty_prompt").unwrap_or(true);
    Ok((xl, xl && zeros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(bool, bool), String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model_index.json"), json).unwrap();
        read_index(folder.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn folders_of_sibling_pipelines_are_read() {
        for (class, xl) in [
            ("StableDiffusionPipeline", false),
            ("StableDiffusionImg2ImgPipeline", false),
            ("StableDiffusionXLPipeline", true),
            ("StableDiffusionXLImg2ImgPipeline", true),
        ] {
            let json = format!(r#"{{"_class_name": "{class}"}}"#);
            assert_eq!(read(&json), Ok((xl, xl)), "{class}");
        }
    }

    #[test]
    fn other_pipelines_and_the_refiner_are_refused_by_name() {
        for (json, part) in [
            (
                r#"{"_class_name": "StableDiffusionInpaintPipeline"}"#,
                "Inpaint",
            ),
            ("{}", "nothing"),
            (
                r#"{"_class_name": "StableDiffusionXLImg2ImgPipeline", "requires_aesthetics_score": true}"#,
                "refiner",
            ),
        ] {
            let error = read(json).unwrap_err();
            assert!(
                error.contains("model_index.json") && error.contains(part),
                "{error}"
            );
        }
    }
}
