//! What several tests need.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "every test uses a part of it, and may fail"
)]

use std::{collections::BTreeMap, path::PathBuf};

use ndarray::Array2;
use safetensors::tensor::TensorView;
use safetensors::{Dtype as Stored, SafeTensors};
use selma_lora::{Adapter, init};

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// Dense updates recorded in double precision, by module, of the cases that begin with `prefix`.
pub fn recorded(file: &str, prefix: &str) -> BTreeMap<String, Array2<f64>> {
    let bytes = std::fs::read(fixture(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let updates: BTreeMap<_, _> = file
        .iter()
        .filter_map(|(name, tensor)| {
            let module = name.strip_prefix(prefix)?.strip_prefix('.')?;
            let (numbers, _) = tensor.data().as_chunks::<4>();
            let values = numbers.iter().map(|&b| f64::from(f32::from_le_bytes(b)));
            let shape = (tensor.shape()[0], tensor.shape()[1]);
            let update = Array2::from_shape_vec(shape, values.collect()).unwrap();
            Some((module.to_owned(), update))
        })
        .collect();
    assert!(!updates.is_empty());
    updates
}

/// Frobenius norm of the difference, relative to `y`.
pub fn relative(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    let norm = |x: &Array2<f64>| x.mapv(|x| x * x).sum().sqrt();
    norm(&(x - y)) / norm(y)
}

pub const TO_Q: &str = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
pub const CONV: &str = "unet.up_blocks.1.resnets.2.conv_shortcut";
pub const TEXT: &str = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj";

pub fn adapter(alpha: f64) -> Adapter {
    let shapes: [(&str, &[usize], usize); 3] = [
        (TO_Q, &[6, 8], 4),
        (CONV, &[5, 4, 3, 3], 2),
        (TEXT, &[7, 7], 4),
    ];
    let mut adapter = Adapter::new(shapes.map(|(path, shape, rank)| {
        let mut module = init::gaussian(path, shape, rank, alpha, 3).unwrap();
        module
            .b
            .iter_mut()
            .enumerate()
            .for_each(|(i, x)| *x = (i as f32 - 7.0) / 8.0);
        (path.to_owned(), module)
    }));
    adapter
        .metadata
        .insert("note".into(), "a \"quoted\" line\n".into());
    adapter
}

/// A file made of tensors given as name, type, shape and bytes.
pub fn file(tensors: &[(&str, Stored, &[usize], Vec<u8>)]) -> Vec<u8> {
    let views: BTreeMap<&str, TensorView<'_>> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            (
                *name,
                TensorView::new(*dtype, shape.to_vec(), bytes).unwrap(),
            )
        })
        .collect();
    safetensors::serialize(views, None).unwrap()
}

pub fn ones(count: usize) -> Vec<u8> {
    vec![1.0_f32; count]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect()
}
