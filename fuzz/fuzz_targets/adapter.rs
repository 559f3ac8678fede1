//! Adapter files of every kind, up to their dense updates.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ndarray::{ArrayD, IxDyn};
use selma_lora::{Adapter, AdapterFile, AdapterReader, Dtype, Format, Model, ModuleNames};

static NAMES: LazyLock<ModuleNames> = LazyLock::new(|| Model::Sdxl.names().unwrap());

fuzz_target!(|bytes: &[u8]| {
    if let Ok(adapter) = Adapter::from_bytes(bytes, None) {
        drop(adapter.summary());
        // What was read can be written, unless a path is of no component that has a name in files.
        if let Ok(written) = adapter.to_bytes(Format::Diffusers, Dtype::F32) {
            Adapter::from_bytes(&written, None).unwrap();
        }
    }
    drop(Adapter::from_bytes(bytes, Some(&NAMES)));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    if let Ok(reader) = AdapterReader::open(file.path()) {
        for path in reader.paths() {
            drop(reader.module(path));
        }
    }
    if let Ok(file) = AdapterFile::from_bytes(bytes, None) {
        for update in file.updates.values() {
            let shape = update.weight_shape();
            // A few bytes of factors can stand for any size of update.
            if shape.iter().fold(1, |x: usize, &y| x.saturating_mul(y)) < 1 << 20 {
                drop(update.delta());
                drop(update.delta_on(&ArrayD::zeros(IxDyn(&shape)).view()));
            }
        }
    }
});
