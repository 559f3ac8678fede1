//! Configurations of PEFT beside weights that are in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::{Adapter, Dtype, Format, init};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let path = "unet.conv_in";
    let module = init::gaussian(path, &[4, 3, 3, 3], 2, 2.0, 0).unwrap();
    let adapter = Adapter::new([(path.to_owned(), module)]);
    adapter.save(folder.path(), Format::Peft, Dtype::F32).unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), bytes).unwrap();
    drop(Adapter::load(folder.path()));
});
