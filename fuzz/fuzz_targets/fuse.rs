//! Checkpoints that an adapter is fused into.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::{
    Adapter, Weighted,
    fuse::{fuse_file, module_of},
    init,
};

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    std::fs::write(&from, bytes).unwrap();
    let path = "unet.conv_in";
    let mut module = init::gaussian(path, &[2, 3], 1, 1.0, 0).unwrap();
    module.b.fill(0.5);
    let adapter = Adapter::new([(path.to_owned(), module)]);
    let places = |tensor: &str| module_of("unet", tensor);
    // Whole or not at all.
    let fused = fuse_file(&from, &to, places, &[Weighted::from(&adapter)]);
    assert_eq!(fused.is_ok(), to.exists());
});
