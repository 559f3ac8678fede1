//! Whole models in one file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_diffusion::single_file::SingleFile;
use selma_diffusion::weights::Weights;

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    if let Ok(weights) = Weights::open(file.path())
        && let Ok(single) = SingleFile::new(&weights, None)
    {
        drop(single.unet().config.validate());
        drop(single.vae().config.validate());
        drop(single.text_encoder().config.validate());
    }
});
