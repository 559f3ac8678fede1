//! Files that tests make of the fixtures.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::fixture;

/// Tensors by name: number type, shape and bytes.
pub type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

pub fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), tensor)
        })
        .collect()
}

pub fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
        (name, view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// The single file in the original layout that a pipeline of the fixtures makes, as `original_layout.json` says.
pub fn original(pipeline: &str) -> Tensors {
    type Row = (String, String, String, Vec<String>);
    let text = fs::read(fixture("original_layout.json")).unwrap();
    let mut rows: BTreeMap<String, Vec<Row>> = serde_json::from_slice(&text).unwrap();
    let mut components: BTreeMap<String, Tensors> = BTreeMap::new();
    let mut made = Tensors::new();
    for (name, form, component, keys) in rows.remove(pipeline).unwrap() {
        let source = components.entry(component.clone()).or_insert_with(|| {
            let stem = if component.starts_with("text") {
                "model"
            } else {
                "diffusion_pytorch_model"
            };
            tensors(
                &fixture(pipeline)
                    .join(&component)
                    .join(format!("{stem}.safetensors")),
            )
        });
        let parts: Vec<_> = keys.iter().map(|key| source.get(key).unwrap()).collect();
        let (dtype, mut shape, mut bytes) = (*parts.first().unwrap()).clone();
        match form.as_str() {
            "same" => {}
            "conv" => shape.extend([1, 1]),
            "rows" => {
                for (_, other, more) in parts.iter().skip(1) {
                    *shape.first_mut().unwrap() += other.first().unwrap();
                    bytes.extend(more);
                }
            }
            "turned" => {
                let [rows, columns] = *shape.as_slice() else {
                    panic!("{name} is no matrix");
                };
                let size = dtype.bitsize() / 8;
                let elements: Vec<&[u8]> = bytes.chunks(size).collect();
                let order = (0..columns)
                    .flat_map(|column| (0..rows).map(move |row| row * columns + column));
                let turned = order
                    .flat_map(|at| elements.get(at).unwrap().to_vec())
                    .collect();
                shape.reverse();
                bytes = turned;
            }
            other => panic!("unknown form {other}"),
        }
        made.insert(name, (dtype, shape, bytes));
    }
    made
}
