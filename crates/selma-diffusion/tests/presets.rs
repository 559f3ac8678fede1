//! The presets against the published `config.json` files.
//!
//! Those of SD 1.5, SD 2.1 and SDXL in `published_configs.json` were compared, field by field, with the copies in `backend/huggingface` of
//! lllyasviel/stable-diffusion-webui-forge at dfdcbab6. Of SD 1.4, 2, 2 base and 2.1 base no copy was at hand there; they differ from
//! those in the size of the pictures, the prediction type and what wrote them.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::fixture;
use selma_diffusion::models::{AutoencoderKLConfig, ClipTextConfig, UNet2DConditionModelConfig};
use selma_diffusion::presets::{Family, Preset};
use selma_diffusion::schedulers::SchedulerConfig;
use serde_json::{Map, Value};

fn published() -> BTreeMap<String, BTreeMap<String, Value>> {
    serde_json::from_slice(&fs::read(fixture("published_configs.json")).unwrap()).unwrap()
}

fn parse<C: serde::de::DeserializeOwned>(value: &Value) -> C {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn presets_are_the_published_configurations() {
    let all = published();
    assert_eq!(all.len(), Preset::ALL.len());
    for preset in Preset::ALL {
        let name = preset.name();
        let files = all.get(name).unwrap();
        let unet: UNet2DConditionModelConfig = parse(files.get("unet").unwrap());
        unet.validate().unwrap();
        // What the network does not have fields for was checked to be as diffusers' default.
        let unet = UNet2DConditionModelConfig {
            rest: Map::new(),
            ..unet
        };
        assert_eq!(preset.unet(), unet, "{name}");
        assert_eq!(Family::of_unet(&unet), Some(preset.family()), "{name}");
        let vae: AutoencoderKLConfig = parse(files.get("vae").unwrap());
        vae.validate().unwrap();
        let vae = AutoencoderKLConfig {
            rest: Map::new(),
            ..vae
        };
        assert_eq!(preset.vae(), vae, "{name}");
        let text: ClipTextConfig = parse(files.get("text_encoder").unwrap());
        text.validate().unwrap();
        let text = ClipTextConfig {
            rest: Map::new(),
            ..text
        };
        assert_eq!(preset.text_encoder(), text, "{name}");
        let second = files.get("text_encoder_2").map(|file| ClipTextConfig {
            rest: Map::new(),
            ..parse(file)
        });
        assert_eq!(preset.text_encoder_2(), second, "{name}");
        let scheduler: SchedulerConfig = parse(files.get("scheduler").unwrap());
        assert_eq!(preset.scheduler(), scheduler, "{name}");
        assert_eq!(name.parse::<Preset>().unwrap(), preset);
    }
    assert!("sd3".parse::<Preset>().is_err());
}
