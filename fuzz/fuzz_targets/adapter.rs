//! Adapter files of every kind, up to their dense updates.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::{Adapter, AdapterFile};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(adapter) = Adapter::from_bytes(bytes, None) {
        drop(adapter.summary());
    }
    if let Ok(file) = AdapterFile::from_bytes(bytes, None) {
        for update in file.updates.values() {
            // A few bytes of factors can stand for any size of update.
            if update.weight_shape().iter().fold(1, |x: usize, &y| x.saturating_mul(y)) < 1 << 20 {
                drop(update.delta());
            }
        }
    }
});
