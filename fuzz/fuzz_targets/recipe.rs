//! Recipes of merges, up to a merge of two small modules.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::{Merge, init, merge::Term};

fuzz_target!(|bytes: &[u8]| {
    let Ok(merge) = serde_json::from_slice::<Merge>(bytes) else {
        return;
    };
    let path = "unet.conv_in";
    let module = init::gaussian(path, &[4, 3, 3, 3], 2, 2.0, 0).unwrap();
    let term = |weight| {
        Some(Term {
            module: &module,
            weight,
        })
    };
    if merge.validate([1.0, -0.5].into_iter()).is_ok() {
        drop(merge.module(path, &[term(1.0), term(-0.5)]));
    }
});
