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
use safetensors::SafeTensors;

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
