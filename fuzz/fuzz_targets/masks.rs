//! Files of masks.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::merge::Masks;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(masks) = Masks::from_bytes(bytes) {
        drop(masks.sha256());
    }
});
