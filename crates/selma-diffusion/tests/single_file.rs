//! Files in the original layout against the pipelines in diffusers' layout that they are made of.
//!
//! `tools/original_layout_fixtures.py` says which tensors make such a file, and checked that diffusers converts it back.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use common::files::{Tensors, original, write};
use common::fixture;
use common::torch::torch_file;
use safetensors::Dtype;
use selma_diffusion::presets::{Family, Preset};
use selma_diffusion::schedulers::{PredictionType, SchedulerKind, TimestepSpacing};
use selma_diffusion::single_file::SingleFile;
use selma_diffusion::weights::Weights;
use selma_diffusion::{Checkpoint, CheckpointOptions, ConfigSource, StableDiffusion};

const PIPELINES: [(&str, Family); 3] = [
    ("tiny-sd", Family::Sd1),
    ("tiny-sd-v", Family::Sd2),
    ("tiny-sdxl", Family::Sdxl),
];

fn file(tensors: &Tensors) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write(&path, tensors);
    (folder, path)
}

/// Heads and groups of a tiny model are not those of its family, so they come from its folder.
fn open(path: &Path, pipeline: &str) -> Result<Checkpoint, String> {
    let options = CheckpointOptions {
        config: Some(ConfigSource::Folder(fixture(pipeline))),
        ..CheckpointOptions::default()
    };
    Checkpoint::open_with(path, options).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Values(Vec<Vec<f32>>);

impl ModuleVisitor for Values {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(param.val().into_data().try_to_vec().unwrap());
    }
}

fn values<M: Module>(module: &M) -> Vec<Vec<f32>> {
    let mut values = Values::default();
    module.visit(&mut values);
    values.0
}

#[test]
fn a_single_file_is_the_folder_it_was_made_of() {
    let device = Device::flex();
    for (pipeline, family) in PIPELINES {
        let (_folder, path) = file(&original(pipeline));
        let single = open(&path, pipeline).unwrap();
        let folder = Checkpoint::open(fixture(pipeline)).unwrap();
        assert_eq!(single.single_file().unwrap().family(), family);
        let (a, b) = (single.unet(&device).unwrap(), folder.unet(&device).unwrap());
        assert_eq!(values(&a.model), values(&b.model), "{pipeline}: unet");
        let (a, b) = (single.vae(&device).unwrap(), folder.vae(&device).unwrap());
        assert_eq!(values(&a.model), values(&b.model), "{pipeline}: vae");
        let (a, b) = (
            single.text_encoder(&device).unwrap(),
            folder.text_encoder(&device).unwrap(),
        );
        assert_eq!(values(&a.model), values(&b.model), "{pipeline}: text");
        if family == Family::Sdxl {
            let (a, b) = (
                single.text_encoder_2(&device).unwrap(),
                folder.text_encoder_2(&device).unwrap(),
            );
            assert_eq!(values(&a.model), values(&b.model), "{pipeline}: text 2");
        }
        let pipeline = StableDiffusion::from_checkpoint(&single, &device).unwrap();
        assert_eq!(pipeline.scheduler, Some(folder.scheduler().unwrap().0));
    }
}

#[test]
fn sizes_come_from_the_shapes() {
    for (pipeline, family) in PIPELINES {
        let (_folder, path) = file(&original(pipeline));
        let layers = (family == Family::Sd2).then_some(2);
        let single = SingleFile::new(&Weights::open(&path).unwrap(), layers).unwrap();
        let folder = Checkpoint::open(fixture(pipeline)).unwrap();
        let (found, expected) = (&single.unet().config, folder.stored_unet().unwrap().config);
        assert_eq!(found.block_out_channels, expected.block_out_channels);
        assert_eq!(found.layers_per_block, expected.layers_per_block);
        assert_eq!(found.down_block_types, expected.down_block_types);
        assert_eq!(found.up_block_types, expected.up_block_types);
        assert_eq!(found.cross_attention_dim, expected.cross_attention_dim);
        assert_eq!(found.use_linear_projection, expected.use_linear_projection);
        let (found, expected) = (&single.vae().config, folder.stored_vae().unwrap().config);
        assert_eq!(found.block_out_channels, expected.block_out_channels);
        assert_eq!(found.layers_per_block, expected.layers_per_block);
        assert_eq!(found.latent_channels, expected.latent_channels);
        let found = &single.text_encoder().config;
        let expected = folder.stored_text_encoder().unwrap().config;
        assert_eq!(found.vocab_size, expected.vocab_size);
        assert_eq!(found.hidden_size, expected.hidden_size);
        assert_eq!(found.intermediate_size, expected.intermediate_size);
        assert_eq!(found.num_hidden_layers, expected.num_hidden_layers);
        assert_eq!(
            found.max_position_embeddings,
            expected.max_position_embeddings
        );
    }
}

#[test]
fn what_is_no_part_of_a_model_is_ignored_and_what_stands_in_its_place_refused() {
    let mut tensors = original("tiny-sd");
    let number = |value: f32| (Dtype::F32, vec![1], value.to_le_bytes().to_vec());
    for extra in [
        "model_ema.diffusion_modelinput_blocks00weight",
        "model_ema.decay",
        "betas",
        "alphas_cumprod",
        "cond_stage_model.logit_scale",
    ] {
        tensors.insert(extra.to_owned(), number(1.0));
    }
    let (_folder, path) = file(&tensors);
    let single = open(&path, "tiny-sd").unwrap();
    let unused = single.single_file().unwrap().unused();
    // These, and the positions that old versions of transformers saved.
    assert_eq!(unused.len(), 6, "{unused:?}");
    single.unet(&Device::flex()).unwrap();

    let strays = ["control_model.x", "cond_stage_model.y", "surprise"];
    for stray in strays {
        tensors.insert(stray.to_owned(), number(1.0));
    }
    let (_folder, path) = file(&tensors);
    let single = open(&path, "tiny-sd").unwrap();
    let mut found = single.single_file().unwrap().strays().to_vec();
    found.sort_unstable_by_key(|name| strays.iter().position(|stray| stray == name));
    assert_eq!(found, strays);
    assert_eq!(single.single_file().unwrap().unused().len(), 6);
    StableDiffusion::from_checkpoint(&single, &Device::flex()).unwrap();

    let odd = ["model.diffusion_model.odd.weight", "first_stage_model.odd"];
    for name in odd {
        tensors.insert(name.to_owned(), number(1.0));
    }
    // Its level plus one has no place in a machine word.
    let endless = format!(
        "first_stage_model.decoder.up.{}.block.0.conv1.weight",
        u64::MAX
    );
    tensors.insert(endless.clone(), number(1.0));
    let (_folder, path) = file(&tensors);
    let single = open(&path, "tiny-sd").unwrap();
    let unet = single.unet(&Device::flex()).map(drop);
    let vae = single.vae(&Device::flex()).map(drop);
    for (result, parts) in [
        (unet, ["0 missing, 1 unused", odd[0]]),
        (vae, ["0 missing, 2 unused", odd[1]]),
    ] {
        let error = result.unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
        assert!(!error.contains("surprise"), "{error}");
    }
    let fits = single.fits(&Device::flex()).unwrap();
    let unused = |component| {
        fits.iter()
            .find(|fit| fit.0 == component)
            .unwrap()
            .1
            .unused
            .clone()
    };
    assert_eq!(unused("unet"), [odd[0]]);
    assert_eq!(unused("vae"), [endless.as_str(), odd[1]]);
    assert!(unused("text_encoder").is_empty());
}

#[test]
fn the_text_encoder_of_sd_2_loses_its_last_layer() {
    let mut tensors = original("tiny-sd-v");
    let last: Tensors = tensors
        .iter()
        .filter(|(name, _)| name.contains(".resblocks.1."))
        .map(|(name, tensor)| {
            (
                name.replace(".resblocks.1.", ".resblocks.2."),
                tensor.clone(),
            )
        })
        .collect();
    tensors.extend(last);
    let (_folder, path) = file(&tensors);
    let single = SingleFile::new(&Weights::open(&path).unwrap(), None).unwrap();
    assert_eq!(single.text_encoder().config.num_hidden_layers, 2);
    assert_eq!(single.unused().len(), 12);
    open(&path, "tiny-sd-v")
        .unwrap()
        .text_encoder(&Device::flex())
        .unwrap();
}

#[test]
fn a_file_that_says_how_it_was_trained_is_believed() {
    let mut tensors = original("tiny-sd");
    tensors.insert("v_pred".to_owned(), (Dtype::F32, vec![0], Vec::new()));
    tensors.insert("ztsnr".to_owned(), (Dtype::F32, vec![0], Vec::new()));
    let (_folder, path) = file(&tensors);
    let (kind, config) = Checkpoint::open(&path).unwrap().scheduler().unwrap();
    // Not the family's PNDM, which has no such option; and from pure noise on.
    assert_eq!(kind, SchedulerKind::Ddim);
    assert_eq!(config.timestep_spacing, Some(TimestepSpacing::Trailing));
    assert_eq!(config.prediction_type(), PredictionType::VPrediction);
    assert_eq!(config.rescale_betas_zero_snr, Some(true));
    tensors.remove("ztsnr");
    let (_folder, path) = file(&tensors);
    let (kind, config) = Checkpoint::open(&path).unwrap().scheduler().unwrap();
    assert_eq!((kind, config.timestep_spacing), (SchedulerKind::Pndm, None));
}

#[test]
fn a_checkpoint_of_pytorch_is_the_model_that_its_step_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.ckpt");
    let tensors = original("tiny-sd-v");
    for (step, preset, prediction) in [
        (875_000, Preset::Sd2Base, PredictionType::Epsilon),
        (110_000, Preset::Sd21, PredictionType::VPrediction),
    ] {
        fs::write(&path, torch_file(&tensors, Some(step))).unwrap();
        let single = Checkpoint::open(&path).unwrap();
        assert_eq!(single.single_file().unwrap().preset(), preset);
        let config = single.scheduler_config().unwrap();
        assert_eq!(config.prediction_type(), prediction);
    }
    let device = Device::flex();
    let single = open(&path, "tiny-sd-v").unwrap();
    let single = StableDiffusion::from_checkpoint(&single, &device).unwrap();
    let folder = StableDiffusion::load(fixture("tiny-sd-v"), &device).unwrap();
    assert_eq!(values(&single.unet), values(&folder.unet));
    assert_eq!(values(&single.vae), values(&folder.vae));
    let text = |pipeline: &StableDiffusion| values(&pipeline.text_encoder.model);
    assert_eq!(text(&single), text(&folder));
}

#[test]
fn without_options_the_family_decides() {
    let (_folder, path) = file(&original("tiny-sd-v"));
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.single_file().unwrap().preset(), Preset::Sd21);
    let (kind, config) = checkpoint.scheduler().unwrap();
    assert_eq!(kind, SchedulerKind::Ddim);
    assert_eq!(config.prediction_type(), PredictionType::VPrediction);
    // The standard vocabulary is too large for the tiny text encoder.
    let error = checkpoint.tokenizer().unwrap_err().to_string();
    assert!(error.contains("634") && error.contains("49408"), "{error}");
    let base = CheckpointOptions {
        config: Some(ConfigSource::Preset(Preset::Sd2Base)),
        tokenizer: Some(fixture("tiny-sd-v/tokenizer")),
        ..CheckpointOptions::default()
    };
    let checkpoint = Checkpoint::open_with(&path, base).unwrap();
    let (_, config) = checkpoint.scheduler().unwrap();
    assert_eq!(config.prediction_type(), PredictionType::Epsilon);
    assert_eq!(checkpoint.tokenizer().unwrap().vocab_size(), 634);
}

#[test]
fn other_models_are_refused_by_name() {
    let whole = original("tiny-sd");
    let only = |prefix: &str| -> Tensors {
        let named = whole.iter().filter(|(name, _)| name.starts_with(prefix));
        named
            .map(|(name, tensor)| (name.clone(), tensor.clone()))
            .collect()
    };
    let named = |name: &str| Tensors::from([(name.to_owned(), (Dtype::F32, vec![0], Vec::new()))]);
    let mut inpainting = whole.clone();
    let first = "model.diffusion_model.input_blocks.0.0.weight".to_owned();
    inpainting.insert(first, (Dtype::F32, vec![8, 9, 0, 3], Vec::new()));
    for (tensors, part) in [
        (only("model.diffusion_model."), "only a UNet"),
        (only("first_stage_model."), "only a VAE"),
        (named("lora_unet_down_blocks_0.lora_down.weight"), "LoRA"),
        (named("control_model.time_embed.0.weight"), "ControlNet"),
        (
            named("model.diffusion_model.joint_blocks.0.x"),
            "Stable Diffusion 3",
        ),
        (
            named("double_blocks.0.img_attn.norm.key_norm.scale"),
            "Flux",
        ),
        (
            named("conditioner.embedders.0.model.ln_final.weight"),
            "refiner",
        ),
        (named("down_blocks.0.resnets.0.conv1.weight"), "diffusers"),
        (named("hello"), "hello"),
        (inpainting, "inpainting"),
    ] {
        let (_folder, path) = file(&tensors);
        let error = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// Headers with bytes changed: an error or a model, never a panic.
#[test]
fn damaged_files_do_no_harm() {
    let (_folder, path) = file(&original("tiny-sd-v"));
    let bytes = fs::read(&path).unwrap();
    let header = u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    let mut state = 7u64;
    for _ in 0..400 {
        let mut changed = bytes.clone();
        for _ in 0..2 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = 8 + (state >> 33) as usize % header;
            changed[at] = b"0123456789abcdef,.[]{}\":"[(state >> 20) as usize % 24];
        }
        fs::write(&path, &changed).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            drop(checkpoint.unet(&Device::flex()));
            drop(checkpoint.vae(&Device::flex()));
            drop(checkpoint.text_encoder(&Device::flex()));
        }
    }
}
