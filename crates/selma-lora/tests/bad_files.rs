//! Adapter files that are damaged, or hold what is not understood, are refused by name.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use common::{adapter, file, ones};
use safetensors::Dtype as Stored;
use selma_lora::{Adapter, AdapterReader, Dtype, Format, LoraError};

const A: &str = "lora_unet_conv_in.lora_down.weight";
const B: &str = "lora_unet_conv_in.lora_up.weight";
const ALPHA: &str = "lora_unet_conv_in.alpha";
fn error_of(tensors: &[(&str, Stored, &[usize], Vec<u8>)]) -> LoraError {
    Adapter::from_bytes(&file(tensors), None).unwrap_err()
}
#[test]
fn alpha_may_be_absent_zero_or_of_any_type() {
    let pair = |alpha: Option<(Stored, &'static [usize], Vec<u8>)>| {
        let mut tensors: Vec<(&str, Stored, &[usize], Vec<u8>)> = vec![
            (A, Stored::F32, &[2, 3], ones(6)),
            (B, Stored::F32, &[4, 2], ones(8)),
        ];
        if let Some((dtype, shape, bytes)) = alpha {
            tensors.push((ALPHA, dtype, shape, bytes));
        }
        Adapter::from_bytes(&file(&tensors), None)
            .map(|adapter| adapter.modules["unet.conv_in"].alpha)
    };
    assert_eq!(pair(None).unwrap(), 2.0);
    assert_eq!(
        pair(Some((Stored::F32, &[], 0.0_f32.to_le_bytes().into()))).unwrap(),
        2.0
    );
    assert_eq!(
        pair(Some((Stored::F32, &[1], 8.0_f32.to_le_bytes().into()))).unwrap(),
        8.0
    );
    assert_eq!(
        pair(Some((Stored::F16, &[], vec![0x00, 0x3e]))).unwrap(),
        1.5
    );
    assert_eq!(
        pair(Some((Stored::I64, &[], 16_i64.to_le_bytes().into()))).unwrap(),
        16.0
    );
    assert_eq!(
        pair(Some((Stored::F64, &[], 0.25_f64.to_le_bytes().into()))).unwrap(),
        0.25
    );
    for (dtype, shape, bytes) in [
        (Stored::F32, &[2][..], ones(2)),
        (Stored::F32, &[], f32::NAN.to_le_bytes().into()),
        (Stored::U8, &[], vec![1]),
    ] {
        let error = pair(Some((dtype, shape, bytes))).unwrap_err().to_string();
        assert!(error.contains(ALPHA), "{error}");
    }
}

#[test]
fn malformed_pairs_are_refused() {
    let a = || (A, Stored::F32, &[2_usize, 3][..], ones(6));
    let b = || (B, Stored::F32, &[4_usize, 2][..], ones(8));

    assert!(matches!(
        error_of(&[a()]),
        LoraError::MissingFactor {
            missing: "B (up)",
            ..
        }
    ));
    assert!(matches!(
        error_of(&[b()]),
        LoraError::MissingFactor {
            missing: "A (down)",
            ..
        }
    ));
    let alone = error_of(&[(ALPHA, Stored::F32, &[], ones(1))]);
    assert!(alone.to_string().contains(ALPHA));
    assert!(matches!(error_of(&[]), LoraError::Empty));

    let rank = error_of(&[a(), (B, Stored::F32, &[4, 3], ones(12))]);
    assert!(rank.to_string().contains("unet.conv_in") && rank.to_string().contains("[4, 3]"));
    let scalar = error_of(&[(A, Stored::F32, &[], ones(1)), b()]);
    assert!(scalar.to_string().contains("[]"), "{scalar}");
    let zero = error_of(&[
        (A, Stored::F32, &[0, 3], vec![]),
        (B, Stored::F32, &[4, 0], vec![]),
    ]);
    assert!(zero.to_string().contains("[0, 3]"));

    let mut nan = ones(8);
    nan[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(matches!(
        error_of(&[a(), (B, Stored::F32, &[4, 2], nan)]),
        LoraError::NonFinite { key } if key == B
    ));
    assert!(matches!(
        error_of(&[a(), (B, Stored::I32, &[4, 2], ones(8))]),
        LoraError::TensorDtype { key, found } if key == B && found == "I32"
    ));
}

#[test]
fn foreign_tensors_are_refused() {
    let a = || (A, Stored::F32, &[2_usize, 3][..], ones(6));
    let b = || (B, Stored::F32, &[4_usize, 2][..], ones(8));
    let with = |name| error_of(&[a(), b(), (name, Stored::F32, &[1], ones(1))]);
    for name in [
        "lora_unet_conv_in.dora_scale",
        "lora_unet_conv_out.hada_w1_a",
    ] {
        let error = with(name);
        assert!(error.to_string().contains("expected a LoRA"), "{error}");
        assert!(matches!(error, LoraError::OtherKind { key, .. } if key == name));
    }
    for name in ["optimizer.step", "lora_unet_conv_in.lora_sideways.weight"] {
        assert!(matches!(with(name), LoraError::UnknownKey { key } if key == name));
    }
    assert!(matches!(
        with("lora_unet_conv_inn.alpha"),
        LoraError::UnknownModule { name, .. } if name == "conv_inn"
    ));
    assert!(matches!(
        with("unet.conv_out.lora_A.weight"),
        LoraError::MixedFormats { first, .. } if first == "lora_unet_conv_in.alpha" || first == A
    ));
    let twice = error_of(&[
        (
            "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
            Stored::F32,
            &[],
            ones(1),
        ),
        (
            "lora_te1_text_model_encoder_layers_0_mlp_fc1.alpha",
            Stored::F32,
            &[],
            ones(1),
        ),
    ]);
    assert!(matches!(twice, LoraError::Duplicate { part: "alpha", .. }));
}

#[test]
fn damaged_files_are_refused_with_their_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.safetensors");
    let good = adapter(4.0).to_bytes(Format::Kohya, Dtype::F32).unwrap();
    let mut long = good.clone();
    long.push(0);
    let mut header = good.clone();
    header[8] = b'!';
    let huge_header = [&u64::MAX.to_le_bytes()[..], b"{}"].concat();
    let overlapping = {
        let json = br#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        [&(json.len() as u64).to_le_bytes()[..], json, &[0; 4]].concat()
    };
    for bytes in [
        &[][..],
        b"<!DOCTYPE html><html></html>",
        &good[..4],
        &good[..good.len() / 2],
        &good[..good.len() - 1],
        &long,
        &header,
        &huge_header,
        &overlapping,
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = Adapter::load(&path).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("damaged.safetensors") && text.contains("safetensors file"),
            "{text}"
        );
    }
    let error = Adapter::load(folder.path().join("missing")).unwrap_err();
    assert!(matches!(error, LoraError::Io { action: "read", .. }));
    assert!(Adapter::load(folder.path()).is_err());
}

#[test]
fn every_truncation_is_an_error_and_never_a_panic() {
    let good = adapter(4.0)
        .to_bytes(Format::Diffusers, Dtype::BF16)
        .unwrap();
    for length in 0..good.len() {
        assert!(Adapter::from_bytes(&good[..length], None).is_err());
    }
}

#[test]
fn files_of_pytorch_are_told_how_to_convert() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapter_model.bin");
    let zip = [&b"PK\x03\x04"[..], &[0; 60]].concat();
    let pickle = [&b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."[..], &[0; 60]].concat();
    for bytes in [&zip[..], &pickle, &zip[..8]] {
        std::fs::write(&path, bytes).unwrap();
        for error in [
            Adapter::load(&path).unwrap_err(),
            AdapterReader::open(&path).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(
                text.contains("adapter_model.bin") && text.contains("torch.load"),
                "{text}"
            );
        }
    }
}
