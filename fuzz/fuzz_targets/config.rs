//! Configurations: networks whose weights are not drawn, and the first steps of every scheduler.

#![no_main]

use libfuzzer_sys::fuzz_target;
use selma_diffusion::device;
use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use selma_diffusion::schedulers::{SchedulerConfig, SchedulerKind, build};

/// More layers than this take long to name, though none is filled.
const LAYERS: usize = 50;

fuzz_target!(|bytes: &[u8]| {
    let device = device("flex").unwrap();
    if let Ok(config) = serde_json::from_slice::<UNet2DConditionModelConfig>(bytes) {
        let valid = config.validate().is_ok();
        let depth = |level| config.transformer_layers_per_block.get(level).unwrap_or(0);
        let deepest = (0..config.block_out_channels.len()).map(depth).max();
        if valid && config.layers_per_block * deepest.unwrap_or(0).max(1) <= LAYERS {
            config.init(&device).unwrap();
        }
    }
    if let Ok(config) = serde_json::from_slice::<AutoencoderKLConfig>(bytes)
        && config.validate().is_ok()
        && config.layers_per_block <= LAYERS
    {
        config.init(&device).unwrap();
    }
    if let Ok(config) = serde_json::from_slice::<ClipTextConfig>(bytes)
        && config.validate().is_ok()
        && config.num_hidden_layers <= LAYERS
    {
        config.init(&device).unwrap();
    }
    if let Ok(config) = serde_json::from_slice::<SchedulerConfig>(bytes) {
        drop(config.kind());
        for kind in SchedulerKind::ALL {
            steps(kind, &config);
        }
    }
});

/// The first steps of short runs, of which any may be refused.
fn steps(kind: SchedulerKind, config: &SchedulerConfig) {
    for count in [1, 5] {
        let Ok(mut scheduler) = build(kind, config, count) else {
            continue;
        };
        let mut sample = [0.5, -0.25];
        for index in 0..scheduler.timesteps().len().min(3) {
            let mut input = sample;
            scheduler.scale_model_input(&mut input, index).unwrap();
            let noise = &mut |noise: &mut [f32]| noise.fill(0.5);
            drop(scheduler.step(&input, index, &mut sample, noise));
        }
    }
}
