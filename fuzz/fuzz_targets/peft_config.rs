//! Configurations of PEFT beside weights that are in order.

#![no_main]

use std::{fs, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use selma_lora::{Adapter, AdapterFile, Dtype, Format, init};

static WEIGHTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = "unet.conv_in";
    let module = init::gaussian(path, &[4, 3, 3, 3], 2, 2.0, 0).unwrap();
    let adapter = Adapter::new([(path.to_owned(), module)]);
    adapter.to_bytes(Format::Peft, Dtype::F32).unwrap()
});

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    fs::write(path.join("adapter_model.safetensors"), &*WEIGHTS).unwrap();
    fs::write(path.join("adapter_config.json"), bytes).unwrap();
    drop(Adapter::load(path));
    drop(AdapterFile::load(path, None));
});
