use std::{collections::BTreeMap, fs};

use ndarray::Array2;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use selma_durable::sha256;
use tempfile::TempDir;

use super::*;
use crate::{Adapter, LoraModule, init};

type Tensors = BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>;

fn bytes(dtype: Dtype, values: &[f32]) -> Vec<u8> {
    crate::Dtype::from_safetensors(dtype)
        .unwrap()
        .encode(values)
        .unwrap()
}

fn ramp(dtype: Dtype, shape: &[usize]) -> (Dtype, Vec<usize>, Vec<u8>) {
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|i| (i % 13) as f32 * 0.25 - 1.0)
        .collect();
    (dtype, shape.to_vec(), bytes(dtype, &values))
}

fn write(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let notes = [("format".to_owned(), "pt".to_owned())].into();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, safetensors::serialize(views, Some(notes)).unwrap()).unwrap();
}

/// The values of a tensor, whatever its number type.
fn read(path: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(name).unwrap();
    crate::Dtype::from_safetensors(view.dtype())
        .unwrap()
        .decode(view.data())
}

/// An update with nothing but ordinary numbers.
fn module(path: &str, weight: &[usize], rank: usize, alpha: f64) -> LoraModule {
    let mut module = init::gaussian(path, weight, rank, alpha, 7).unwrap();
    let shape = module.b.raw_dim();
    let b = init::gaussian_a(path, weight[0], rank, 8);
    module.b = b.into_shape_with_order(shape).unwrap();
    module
}

/// A UNet of three layers and a norm, one of them in half precision.
fn unet() -> Tensors {
    BTreeMap::from([
        ("conv.bias", ramp(Dtype::F32, &[6])),
        ("conv.weight", ramp(Dtype::F32, &[6, 2, 3, 3])),
        ("linear.weight", ramp(Dtype::F16, &[5, 4])),
        ("norm.weight", ramp(Dtype::F32, &[6])),
        ("other.weight", ramp(Dtype::BF16, &[3, 3])),
        ("steps", (Dtype::I64, vec![1], vec![1, 0, 0, 0, 0, 0, 0, 0])),
    ])
}

fn adapters() -> [Adapter; 2] {
    let conv = "unet.conv";
    let linear = "unet.linear";
    [
        Adapter::new([
            (conv.to_owned(), module(conv, &[6, 2, 3, 3], 2, 1.0)),
            (linear.to_owned(), module(linear, &[5, 4], 1, 3.0)),
        ]),
        Adapter::new([(conv.to_owned(), module(conv, &[6, 2, 3, 3], 3, -2.0))]),
    ]
}

fn weighted(adapters: &[Adapter; 2]) -> [Weighted<'_>; 2] {
    let [one, two] = adapters;
    [
        Weighted {
            adapter: one,
            weight: 0.5,
        },
        Weighted {
            adapter: two,
            weight: -1.5,
        },
    ]
}

fn in_unet(tensor: &str) -> Option<Place> {
    module_of("unet", tensor)
}

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn updates_are_added_and_the_rest_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    write(&from, &unet());
    let adapters = adapters();
    let inputs = weighted(&adapters);
    let report = fuse_file(&from, &to, in_unet, &inputs).unwrap();
    assert_eq!((report.modules, report.files[0].tensors), (2, 2));
    assert!(report.zero.is_empty() && report.left_out.is_empty());

    for (name, path, tolerance) in [
        ("conv.weight", "unet.conv", 1e-7),
        ("linear.weight", "unet.linear", 1e-3),
    ] {
        let mut expected: Vec<f64> = read(&from, name).iter().map(|&x| f64::from(x)).collect();
        for input in &inputs {
            if let Some(module) = input.adapter.modules.get(path) {
                let delta = module.delta_f64().unwrap();
                for (sum, update) in expected.iter_mut().zip(&delta) {
                    *sum += input.weight * update;
                }
            }
        }
        let found = read(&to, name);
        assert_ne!(found, read(&from, name));
        for (found, expected) in found.iter().zip(&expected) {
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= tolerance * expected.abs().max(0.1),
                "{name}: {found} {expected}"
            );
        }
    }
    let (old, new) = (fs::read(&from).unwrap(), fs::read(&to).unwrap());
    let (old, whole) = (
        SafeTensors::deserialize(&old).unwrap(),
        SafeTensors::deserialize(&new).unwrap(),
    );
    for name in ["conv.bias", "norm.weight", "other.weight", "steps"] {
        assert_eq!(old.tensor(name).unwrap(), whole.tensor(name).unwrap());
    }
    let (_, header) = SafeTensors::read_metadata(&new).unwrap();
    let notes = header.metadata().clone().unwrap();
    assert_eq!(notes["format"], "pt");
    let recipe: serde_json::Value = serde_json::from_str(&notes["selma_fuse"]).unwrap();
    assert_eq!(recipe["base"], hex::encode(sha256(&from).unwrap()));
    assert_eq!(recipe["adapters"][1]["sha256"], adapters[1].sha256());
    assert_eq!(recipe["adapters"][1]["weight"], -1.5);

    // The same bytes again, also in place of the old ones.
    fuse_file(&from, &from, in_unet, &inputs).unwrap();
    assert_eq!(fs::read(&from).unwrap(), new);
    assert_eq!(names(&folder), ["a", "b"]);
}

#[test]
fn rows_and_transposes_are_parts_of_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    write(
        &from,
        &BTreeMap::from([
            ("in_proj", ramp(Dtype::F32, &[9, 3])),
            ("projection", ramp(Dtype::F32, &[3, 2])),
        ]),
    );
    let places = |tensor: &str| {
        let rows = |index: usize, name| Place {
            module: format!("text_encoder.{name}"),
            part: Part::Rows(index * 3..index * 3 + 3),
        };
        match tensor {
            "in_proj" => vec![rows(0, "q"), rows(1, "k"), rows(2, "v")],
            _ => vec![Place {
                module: "text_encoder.projection".to_owned(),
                part: Part::Transposed,
            }],
        }
    };
    let adapter = Adapter::new(
        [("k", [3, 3]), ("projection", [2, 3])].map(|(name, shape)| {
            let path = format!("text_encoder.{name}");
            (path.clone(), module(&path, &shape, 2, 2.0))
        }),
    );
    fuse_file(&from, &to, places, &[Weighted::from(&adapter)]).unwrap();
    let difference = |name: &str| -> Vec<f32> {
        let (old, new) = (read(&from, name), read(&to, name));
        old.iter().zip(&new).map(|(x, y)| y - x).collect()
    };
    let close = |found: &[f32], expected: Array2<f32>| {
        assert_eq!(found.len(), expected.len());
        for (x, y) in found.iter().zip(&expected) {
            assert!((x - y).abs() < 1e-6, "{x} {y}");
        }
    };
    let delta = |name: &str| adapter.modules[name].delta().unwrap();
    let rows = difference("in_proj");
    assert!(rows[..9].iter().chain(&rows[18..]).all(|&x| x == 0.0));
    close(&rows[9..18], delta("text_encoder.k"));
    close(
        &difference("projection"),
        delta("text_encoder.projection").reversed_axes(),
    );
}

#[test]
fn tensors_larger_than_a_batch_are_done_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    let shape = [1501, 1000];
    write(
        &from,
        &BTreeMap::from([("x.weight", ramp(Dtype::BF16, &shape))]),
    );
    let module = module("unet.x", &shape, 1, 100.0);
    let adapter = Adapter::new([("unet.x".to_owned(), module)]);
    fuse_file(&from, &to, in_unet, &[Weighted::from(&adapter)]).unwrap();
    let delta = adapter.modules["unet.x"].delta_f64().unwrap();
    let (old, new) = (read(&from, "x.weight"), read(&to, "x.weight"));
    for ((old, new), delta) in old.iter().zip(&new).zip(&delta) {
        let sum = (f64::from(*old) + delta) as f32;
        assert_eq!(*new, half::bf16::from_f32(sum).to_f32());
    }
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    write(&from, &unet());
    let fuse = |adapter: &Adapter, weight| {
        let error = fuse_file(&from, &to, in_unet, &[Weighted { adapter, weight }]);
        assert_eq!(names(&folder), ["a"]);
        error.unwrap_err()
    };
    let one = |path: &str, shape: &[usize]| {
        Adapter::new([
            ("unet.linear".to_owned(), module("", &[5, 4], 1, 1.0)),
            (path.to_owned(), module(path, shape, 1, 1.0)),
        ])
    };
    let error = fuse(&one("unet.none", &[3, 3]), 1.0);
    assert!(matches!(error, LoraError::NotStrict { .. }), "{error}");
    let error = fuse(&one("unet.conv", &[6, 2]), 1.0);
    assert!(
        error.to_string().contains("unet.conv: model [6, 2, 3, 3]"),
        "{error}"
    );
    let error = fuse(&Adapter::default(), 1.0);
    assert!(matches!(error, LoraError::NothingMatched { .. }), "{error}");
    let error = fuse(&one("unet.other", &[3, 3]), f64::NAN);
    assert!(
        matches!(error, LoraError::BadWeight { index: 0, .. }),
        "{error}"
    );
    let mut wide = one("unet.other", &[3, 3]);
    wide.modules.get_mut("unet.linear").unwrap().alpha = 1e9;
    let error = fuse(&wide, 1.0).to_string();
    assert!(
        error.contains("linear.weight") && error.contains("f16"),
        "{error}"
    );
    assert!(fuse_file(&from, &to, in_unet, &[]).is_err());

    let mut odd = unet();
    odd.insert("linear.weight", (Dtype::F64, vec![5, 4], vec![0; 160]));
    write(&from, &odd);
    let error = fuse(&one("unet.other", &[3, 3]), 1.0).to_string();
    assert!(
        error.contains("linear.weight") && error.contains("F64"),
        "{error}"
    );
}

#[test]
fn damaged_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    write(&from, &unet());
    let whole = fs::read(&from).unwrap();
    let adapters = adapters();
    let inputs = weighted(&adapters);
    let huge = [&u64::MAX.to_le_bytes(), b"{}".as_slice()].concat();
    for bytes in [
        &whole[..4],
        &whole[..40],
        &whole[..whole.len() - 1],
        &[whole.as_slice(), b"x"].concat(),
        &huge,
        b"not a safetensors file",
    ] {
        fs::write(&from, bytes).unwrap();
        let error = fuse_file(&from, &to, in_unet, &inputs).unwrap_err();
        assert!(matches!(error, LoraError::InFile { .. }), "{error}");
        assert!(!to.exists());
    }
    let error = fuse_file(&folder.path().join("none"), &to, in_unet, &inputs).unwrap_err();
    assert!(matches!(error, LoraError::Io { .. }), "{error}");
}

const UNET_FILE: &str = "unet/diffusion_pytorch_model.safetensors";

/// A pipeline with a whole UNet, a sharded text encoder, and other files.
fn pipeline(folder: &Path) {
    write(&folder.join(UNET_FILE), &unet());
    for (shard, name) in [("one", "encoder.a.weight"), ("two", "encoder.b.weight")] {
        let tensors = BTreeMap::from([(name, ramp(Dtype::F32, &[3, 3]))]);
        write(
            &folder.join(format!("text_encoder/{shard}.safetensors")),
            &tensors,
        );
    }
    let index = r#"{"metadata": {}, "weight_map":
        {"encoder.a.weight": "one.safetensors", "encoder.b.weight": "two.safetensors"}}"#;
    fs::write(
        folder.join("text_encoder/model.safetensors.index.json"),
        index,
    )
    .unwrap();
    fs::create_dir(folder.join("vae")).unwrap();
    fs::write(folder.join("vae/diffusion_pytorch_model.bin"), "vae").unwrap();
    fs::write(folder.join("model_index.json"), "{}").unwrap();
}

#[test]
fn a_folder_is_copied_with_its_changed_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    pipeline(&from);
    let half: Tensors = unet()
        .into_iter()
        .map(|(name, (_, shape, _))| (name, ramp(Dtype::F16, &shape)))
        .collect();
    write(
        &from.join("unet/diffusion_pytorch_model.fp16.safetensors"),
        &half,
    );
    fs::write(from.join("unet/diffusion_pytorch_model.bin"), "old").unwrap();
    fs::write(from.join("whole.ckpt"), "old").unwrap();
    let path = "text_encoder.text_model.encoder.b";
    let [mut one, two] = adapters();
    one.modules
        .insert(path.to_owned(), module(path, &[3, 3], 1, 1.0));
    let adapters = [one, two];
    let inputs = weighted(&adapters);
    let report = fuse_folder(&from, &to, &inputs).unwrap();

    let inside = |paths: Vec<PathBuf>| -> Vec<String> {
        let inside = paths.iter().map(|path| path.strip_prefix(&from).unwrap());
        inside
            .map(|path| path.to_str().unwrap().to_owned())
            .collect()
    };
    let changed = report.files.iter().map(|file| file.path.clone()).collect();
    assert_eq!(
        inside(changed),
        [
            "text_encoder/two.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            UNET_FILE
        ]
    );
    assert_eq!(
        inside(report.left_out),
        ["unet/diffusion_pytorch_model.bin", "whole.ckpt"]
    );
    for same in [
        "model_index.json",
        "vae/diffusion_pytorch_model.bin",
        "text_encoder/one.safetensors",
        "text_encoder/model.safetensors.index.json",
    ] {
        assert_eq!(
            fs::read(from.join(same)).unwrap(),
            fs::read(to.join(same)).unwrap()
        );
    }
    let single = folder.path().join("single");
    let only_unet = adapters.each_ref().map(|adapter| {
        let unet = adapter
            .modules
            .iter()
            .filter(|(path, _)| path.starts_with("unet."));
        Adapter::new(unet.map(|(path, module)| (path.clone(), module.clone())))
    });
    fuse_file(
        &from.join(UNET_FILE),
        &single,
        in_unet,
        &weighted(&only_unet),
    )
    .unwrap();
    let fused = to.join(UNET_FILE);
    assert_eq!(read(&fused, "conv.weight"), read(&single, "conv.weight"));
    assert_eq!(names(&folder), ["a", "b", "single"]);
}

#[test]
fn a_folder_that_cannot_be_fused_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("a"), folder.path().join("b"));
    pipeline(&from);
    let adapters = adapters();
    let inputs = weighted(&adapters);
    let fails = |to: &Path, part: &str| {
        let error = fuse_folder(&from, to, &inputs).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(!folder.path().join("b").exists());
        assert_eq!(names(&folder), ["a"]);
    };
    fails(&from.join("b"), "in the checkpoint itself");
    fails(&from, "exists already");
    fails(&folder.path().join("none/b"), "none/b");
    // A variant that lacks a layer.
    let mut part = unet();
    part.remove("conv.weight");
    let variant = from.join("unet/diffusion_pytorch_model.fp16.safetensors");
    write(&variant, &part);
    fails(&to, "unet.conv");
    fs::remove_file(variant).unwrap();
    let index = from.join("text_encoder/model.safetensors.index.json");
    let good = fs::read(&index).unwrap();
    for (text, cause) in [
        ("{", "is no index"),
        (
            r#"{"weight_map": {"a": "../x.safetensors"}}"#,
            "is no index",
        ),
        (r#"{"weight_map": {"a": "x.safetensors"}}"#, "x.safetensors"),
    ] {
        fs::write(&index, text).unwrap();
        fails(&to, cause);
    }
    fs::write(&index, good).unwrap();
    fs::rename(from.join(UNET_FILE), from.join("unet/model.bin")).unwrap();
    fails(&to, "no weights in safetensors files");
    fs::remove_dir_all(from.join("unet")).unwrap();
    fails(&to, "unet.conv");
}
