//! Merges of what was read, by every method.
//!
//! The first two bytes choose the method and a weight, the rest is an adapter file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_lora::{Adapter, Merge, Method, Weighted};

fuzz_target!(|bytes: &[u8]| {
    let [method, weight, file @ ..] = bytes else {
        return;
    };
    let Ok(adapter) = Adapter::from_bytes(file, None) else {
        return;
    };
    // A few bytes of factors can stand for any size of update.
    let numbers = |module: &selma_lora::LoraModule| {
        let shape = module.weight_shape();
        shape.iter().fold(1, |x: usize, &y| x.saturating_mul(y))
    };
    if adapter
        .modules
        .values()
        .any(|module| numbers(module) > 1 << 14)
    {
        return;
    }
    let plain = Merge::new(Method::ALL[usize::from(*method) % Method::ALL.len()]);
    let half = Merge {
        density: Some(0.5),
        ..plain.clone()
    };
    let weight = f64::from(*weight as i8) / 16.0;
    let merge = match half.validate([1.0, weight].into_iter()) {
        Ok(()) => half,
        Err(_) => plain,
    };
    let other = Weighted {
        adapter: &adapter,
        weight,
    };
    if let Ok((merged, _)) = merge.run(&[Weighted::from(&adapter), other]) {
        assert!(merged.modules.values().all(|module| module.is_finite()));
    }
});
