//! Weight files of every form against what PyTorch saved, and files that are not in order.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use common::files::{copy_folder, tensors, write};
use common::torch::torch_file;
use common::{draw, fixture};
use selma_diffusion::weights::{Dtype, Weights};
use selma_diffusion::{Checkpoint, CheckpointOptions, StableDiffusion, TextToImage};

fn refused(path: &Path, parts: &[&str]) {
    let error = Weights::open(path).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// What `tools/torch_file_fixtures.py` put into the files.
fn check(weights: &Weights) {
    let a = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    let expected: [(&str, &[usize], Dtype, &[f32]); 8] = [
        ("a", &[2, 3], Dtype::F32, &a),
        ("tied", &[2, 3], Dtype::F32, &a),
        (
            "turned",
            &[3, 2],
            Dtype::F32,
            &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0],
        ),
        ("column", &[2], Dtype::F32, &[1.0, 4.0]),
        ("half", &[2], Dtype::F16, &[0.5, -2.0]),
        ("brain", &[2, 1], Dtype::BF16, &[1.5, 3.0]),
        ("parameter", &[2], Dtype::F32, &[0.125, 0.125]),
        ("empty", &[0, 4], Dtype::F32, &[]),
    ];
    for (name, shape, dtype, values) in expected {
        assert_eq!(weights.shape(name), Some(shape), "{name}");
        assert_eq!(weights.dtype(name), Some(dtype), "{name}");
        assert_eq!(weights.floats(name).unwrap(), values, "{name}");
    }
    assert_eq!(weights.integers("count").unwrap(), [7]);
    assert_eq!(weights.names().count(), 9);
}

#[test]
fn checkpoints_of_pytorch_are_read_in_all_forms() {
    check(&Weights::open(fixture("torch/plain.bin")).unwrap());
    check(&Weights::open(fixture("torch/legacy.bin")).unwrap());
    let lightning = Weights::open(fixture("torch/lightning.ckpt")).unwrap();
    check(&lightning);
    assert_eq!(lightning.integer("global_step"), Some(875_000));
    assert_eq!(lightning.integer("callbacks"), None);
}

#[test]
fn what_is_no_tensor_is_refused_by_name_and_never_called() {
    refused(&fixture("torch/harmful.bin"), &["harmful.bin", "system"]);
    refused(
        &fixture("torch/not_a_tensor.bin"),
        &["\"odd\"", "ModelCheckpoint", "not called"],
    );
    refused(
        &fixture("torch/quantised.bin"),
        &["\"a\"", "_rebuild_qtensor"],
    );
    refused(&fixture("torch/big_endian.bin"), &["byte order", "big"]);
    refused(&fixture("torch/compressed.bin"), &["without compression"]);
}

#[test]
fn other_formats_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for (content, part) in [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:30ebc\nsize 1680\n".as_slice(),
            "Git LFS",
        ),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x80\x04\x95\x0b\0\0\0\0\0\0\0K\x01.", "pickle"),
        (b"PK\x03\x04", "complete PyTorch checkpoint"),
        (b"", "complete safetensors"),
    ] {
        fs::write(&path, content).unwrap();
        refused(&path, &["model.safetensors", part]);
    }
}

/// Every prefix, and every byte changed in several ways: an error or tensors, never a panic.
#[test]
fn damaged_files_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let open = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        if let Ok(weights) = Weights::open(&path) {
            for name in weights.names() {
                drop((weights.floats(name), weights.integers(name)));
            }
        }
    };
    for name in [
        "torch/plain.bin",
        "torch/legacy.bin",
        "torch/lightning.ckpt",
    ] {
        let bytes = fs::read(fixture(name)).unwrap();
        for length in (0..bytes.len()).step_by(7) {
            open(&bytes[..length]);
        }
        // A generator of numbers that need not be good, only the same every time.
        let mut state = 1u64;
        for _ in 0..4000 {
            let mut changed = bytes.clone();
            for _ in 0..3 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let at = (state >> 33) as usize % changed.len();
                changed[at] = (state >> 25) as u8;
            }
            open(&changed);
        }
    }
}

/// A copy of the tiny pipeline whose UNet is in two shards.
fn sharded() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("tiny-sd"), folder.path());
    let unet = folder.path().join("unet");
    let whole = unet.join("diffusion_pytorch_model.safetensors");
    let mut first = tensors(&whole);
    let middle = first.keys().nth(first.len() / 2).unwrap().clone();
    let second = first.split_off(&middle);
    fs::remove_file(&whole).unwrap();
    let mut map = BTreeMap::new();
    for (number, part) in [first, second].iter().enumerate() {
        let name = format!(
            "diffusion_pytorch_model-{:05}-of-00002.safetensors",
            number + 1
        );
        write(&unet.join(&name), part);
        map.extend(part.keys().map(|key| (key.clone(), name.clone())));
    }
    let index = unet.join("diffusion_pytorch_model.safetensors.index.json");
    let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    fs::write(&index, text).unwrap();
    (folder, index)
}

#[test]
fn shards_are_one_model() {
    let (folder, _) = sharded();
    let device = Device::flex();
    let one = Checkpoint::open(fixture("tiny-sd")).unwrap();
    let two = Checkpoint::open(folder.path()).unwrap();
    let (one, two) = (one.unet(&device).unwrap(), two.unet(&device).unwrap());
    let weight = |unet: &selma_diffusion::models::UNet2DConditionModel| {
        unet.conv_out
            .weight
            .val()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap()
    };
    assert_eq!(weight(&one.model), weight(&two.model));
}

#[test]
fn shards_that_do_not_fit_their_index_are_refused() {
    let (folder, index) = sharded();
    let unet = folder.path().join("unet");
    let shard = |number| {
        unet.join(format!(
            "diffusion_pytorch_model-{number:05}-of-00002.safetensors"
        ))
    };
    let (first, second) = (tensors(&shard(1)), tensors(&shard(2)));

    let mut both = second.clone();
    both.extend(
        first
            .iter()
            .take(1)
            .map(|(name, tensor)| (name.clone(), tensor.clone())),
    );
    write(&shard(2), &both);
    refused(&index, &[first.keys().next().unwrap(), "00001", "00002"]);

    let mut fewer = second.clone();
    let (absent, _) = fewer.pop_last().unwrap();
    write(&shard(2), &fewer);
    refused(&index, &["only the index has", &absent]);

    let mut more = second.clone();
    more.insert("zzz".to_owned(), second[&absent].clone());
    write(&shard(2), &more);
    refused(&index, &["only the shard has zzz"]);

    fs::remove_file(shard(2)).unwrap();
    refused(&index, &["00002", "missing"]);

    write(&shard(2), &second);
    let bytes = fs::read(shard(2)).unwrap();
    fs::write(shard(2), &bytes[..bytes.len() - 1]).unwrap();
    refused(&index, &["00002", "complete safetensors"]);

    let text = fs::read_to_string(&index).unwrap();
    fs::write(
        &index,
        text.replacen("diffusion_pytorch_model-00001", "../x", 1),
    )
    .unwrap();
    refused(&index, &["weight_map", "../x"]);
}

#[test]
fn a_variant_is_taken_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("tiny-sd"), folder.path());
    let file = |name: &str| folder.path().join("vae").join(name);
    let plain = file("diffusion_pytorch_model.safetensors");
    let mut other = tensors(&plain);
    for (_, _, bytes) in other.values_mut() {
        bytes.fill(0);
    }
    write(&file("diffusion_pytorch_model.zero.safetensors"), &other);
    let bias = |variant: Option<&str>| {
        let options = CheckpointOptions {
            variant: variant.map(str::to_owned),
            ..CheckpointOptions::default()
        };
        let checkpoint = Checkpoint::open_with(folder.path(), options);
        let vae = checkpoint.and_then(|checkpoint| checkpoint.vae(&Device::flex()));
        let sum = |vae: selma_diffusion::models::AutoencoderKL| {
            vae.encoder
                .conv_in
                .weight
                .val()
                .abs()
                .sum()
                .into_scalar::<f32>()
        };
        vae.map(|vae| sum(vae.model))
            .map_err(|error| error.to_string())
    };
    assert!(bias(None).unwrap() > 0.0);
    assert_eq!(bias(Some("zero")).unwrap(), 0.0);
    // The UNet and the text encoder have no such variant, and are taken as they are.
    let zero = CheckpointOptions {
        variant: Some("zero".to_owned()),
        ..CheckpointOptions::default()
    };
    let mixed = Checkpoint::open_with(folder.path(), zero).unwrap();
    StableDiffusion::from_checkpoint(&mixed, &Device::flex()).unwrap();
    let error = bias(Some("fp16")).unwrap_err();
    let plain = "unet/diffusion_pytorch_model.safetensors";
    let other = "vae/diffusion_pytorch_model.zero.safetensors";
    for part in ["\"fp16\"", "no component", plain, other] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

#[test]
fn a_pipeline_of_pytorch_files_draws_the_same_picture() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("tiny-sd"), folder.path());
    for (component, old, new) in [
        ("text_encoder", "model", "pytorch_model"),
        ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"),
    ] {
        let component = folder.path().join(component);
        let whole = component.join(format!("{old}.safetensors"));
        let file = torch_file(&tensors(&whole), None);
        fs::write(component.join(format!("{new}.bin")), file).unwrap();
        fs::remove_file(whole).unwrap();
    }
    let request = TextToImage {
        steps: 2,
        ..TextToImage::new(vec!["a red circle".to_owned()], vec![3])
    };
    let pictures = [folder.path(), &fixture("tiny-sd")].map(|folder| {
        let pipeline = StableDiffusion::load(folder, &Device::flex()).unwrap();
        draw(&pipeline, &request).unwrap().images
    });
    assert_eq!(pictures[0], pictures[1]);
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("tiny-sd"), folder.path());
    let path = folder
        .path()
        .join("unet/diffusion_pytorch_model.safetensors");
    let whole = tensors(&path);
    for (value, text) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let mut changed = whole.clone();
        let (_, _, bytes) = changed.get_mut("conv_in.weight").unwrap();
        bytes[20..24].copy_from_slice(&value.to_le_bytes());
        write(&path, &changed);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let error = checkpoint.unet(&Device::flex()).unwrap_err().to_string();
        for part in ["unet/diffusion", "\"conv_in.weight\"", text, "element 5"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}
