//! PyTorch checkpoints, and every tensor in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_diffusion::weights::Weights;

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    if let Ok(weights) = Weights::open(file.path()) {
        for name in weights.names() {
            drop((weights.floats(name), weights.integers(name)));
        }
    }
});
