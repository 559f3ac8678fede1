//! Configurations, up to the check that comes before a model is built.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use selma_diffusion::schedulers::SchedulerConfig;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(config) = serde_json::from_slice::<UNet2DConditionModelConfig>(bytes) {
        drop(config.validate());
    }
    if let Ok(config) = serde_json::from_slice::<AutoencoderKLConfig>(bytes) {
        drop(config.validate());
    }
    if let Ok(config) = serde_json::from_slice::<ClipTextConfig>(bytes) {
        drop(config.validate());
    }
    if let Ok(config) = serde_json::from_slice::<SchedulerConfig>(bytes) {
        drop(config.kind());
    }
});
