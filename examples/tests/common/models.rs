//! Models and adapters that tests make of the tiny pipelines.

use std::fs;
use std::path::{Path, PathBuf};

use selma_lora::{Adapter, init};

#[path = "../../../crates/selma-diffusion/tests/common/files.rs"]
pub mod files;

use files::{tensors, write};

/// A file or folder among the fixtures of `selma-diffusion`.
pub fn fixture(name: &str) -> PathBuf {
    super::fixture(&format!("selma-diffusion/tests/fixtures/{name}")).into()
}

/// The weight file of a component.
pub fn weights(pipeline: &Path, component: &str) -> PathBuf {
    let stem = if component.starts_with("text_encoder") {
        "model"
    } else {
        "diffusion_pytorch_model"
    };
    pipeline.join(component).join(format!("{stem}.safetensors"))
}

/// An adapter of these layers of a pipeline, with updates that can be seen.
pub fn adapter_of(pipeline: &str, layers: &[&str]) -> Adapter {
    let modules = layers.iter().map(|path| {
        let (component, layer) = path.split_once('.').unwrap();
        let tensors = tensors(&weights(&fixture(pipeline), component));
        // One of the pipelines is without the level `text_model`.
        let key = format!("{layer}.weight");
        let (_, shape, _) = tensors
            .get(&key)
            .or_else(|| tensors.get(key.strip_prefix("text_model.")?))
            .unwrap_or_else(|| panic!("{path} is not in {pipeline}"));
        let mut module = init::gaussian(path, shape, 2, 2.0, 0).unwrap();
        let rows = module.b.len();
        for (index, value) in module.b.iter_mut().enumerate() {
            *value = (index % 5) as f32 * 0.2 - 0.3 + index as f32 / rows as f32;
        }
        ((*path).to_owned(), module)
    });
    Adapter::new(modules)
}

/// The whole model in one file, in the original layout.
pub fn single_file(pipeline: &str, path: &Path) {
    write(path, &files::original(pipeline));
}

/// Changes the first value of a tensor of `F32`.
pub fn change(path: &Path, key: &str) {
    let mut tensors = tensors(path);
    let (_, _, bytes) = tensors.get_mut(key).unwrap();
    bytes
        .get_mut(..4)
        .unwrap()
        .copy_from_slice(&7.5_f32.to_le_bytes());
    fs::remove_file(path).unwrap();
    write(path, &tensors);
}
