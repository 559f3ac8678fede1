//! The attacks on headers that safetensors' own tests know, and more, against every reader of the crate:
//! each gives an error of its own kind that names the file.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use std::{fs, path::Path};

use common::fixture;
use safetensors::SafeTensorError;
use selma_lora::{
    Adapter, AdapterFile, AdapterReader, LoraError, Model, Weighted,
    fuse::{fuse_file, module_of},
    init,
    merge::{Calibration, Masks},
};

const A: &str = "unet.conv_in.lora_A.weight";
const B: &str = "unet.conv_in.lora_B.weight";

/// A file of this header and so many bytes of data.
fn raw(header: impl AsRef<[u8]>, data: usize) -> Vec<u8> {
    let header = header.as_ref();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, &vec![0; data]].concat()
}

fn entry(name: &str, dtype: &str, shape: &str, start: usize, end: usize) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}"#)
}

/// A header of `A [1, 2]` and `B [3, 1]` with these offsets.
fn pair(a: (usize, usize), b: (usize, usize)) -> String {
    let (a, b) = (
        entry(A, "F32", "[1,2]", a.0, a.1),
        entry(B, "F32", "[3,1]", b.0, b.1),
    );
    format!("{{{a},{b}}}")
}

/// What is wrong, a file, and the errors that fit.
type Attack = (&'static str, Vec<u8>, fn(&SafeTensorError) -> bool);

type Reader = fn(&Path) -> Result<(), LoraError>;

/// Everything that reads a safetensors file; the last takes it for the weights of a folder of PEFT.
const READERS: [(&str, Reader); 8] = [
    ("Adapter::load", |path| Adapter::load(path).map(drop)),
    ("Adapter::load_with", |path| {
        Adapter::load_with(path, &Model::Sd1.names()?).map(drop)
    }),
    ("AdapterFile::load", |path| {
        AdapterFile::load(path, None).map(drop)
    }),
    ("AdapterReader::open", |path| {
        let reader = AdapterReader::open(path)?;
        let read = |module| reader.module(module).map(drop);
        reader.paths().map(String::as_str).try_for_each(read)
    }),
    ("Masks::load", |path| Masks::load(path).map(drop)),
    ("Calibration::load", |path| {
        Calibration::load(path).map(drop)
    }),
    ("fuse_file", |path| {
        let update = init::gaussian("unet.conv_in", &[3, 2], 1, 1.0, 0)?;
        let adapter = Adapter::new([("unet.conv_in".to_owned(), update)]);
        let places = |tensor: &str| module_of("unet", tensor);
        let fused = path.with_extension("fused");
        match fuse_file(path, &fused, places, &[Weighted::from(&adapter)]) {
            // A sound file of something else.
            Err(LoraError::NothingMatched { .. }) => Ok(()),
            other => other.map(drop),
        }
    }),
    ("a folder of PEFT", |path| {
        let folder = path.with_extension("folder");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(path, folder.join("adapter_model.safetensors")).unwrap();
        fs::write(
            folder.join("adapter_config.json"),
            r#"{"peft_type":"LORA"}"#,
        )
        .unwrap();
        Adapter::load(&folder).map(drop)
    }),
];

/// What every reader says of a file, without the file around it.
fn errors(bytes: &[u8]) -> Vec<(&'static str, Option<LoraError>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("attacked.safetensors");
    fs::write(&path, bytes).unwrap();
    let cause = |error: LoraError| match error {
        LoraError::InFile { path, error } => {
            let name = path.to_string_lossy();
            assert!(name.contains("attacked") && name.ends_with(".safetensors"));
            *error
        }
        other => panic!("no file in {other}"),
    };
    READERS
        .iter()
        .map(|(name, read)| (*name, read(&path).err().map(cause)))
        .collect()
}

#[test]
fn files_that_are_none_are_refused_by_every_reader() {
    use SafeTensorError as E;
    let good = pair((0, 8), (8, 20));
    let twice = format!(
        "{{{},{},{}}}",
        entry(A, "F32", "[1,2]", 0, 8),
        entry(A, "F32", "[1,2]", 8, 16),
        entry(B, "F32", "[3,1]", 16, 28)
    );
    let many: Vec<String> = (0..10)
        .map(|i| entry(&format!("weight_{i}"), "F32", "[2,2]", 0, 16))
        .collect();
    let one = |dtype: &str, shape: &str, end| format!("{{{}}}", entry(A, dtype, shape, 0, end));
    let huge = |length: u64| [&length.to_le_bytes()[..], good.as_bytes(), &[0; 20]].concat();
    let cases: [Attack; 27] = [
        ("nothing", vec![], |e| matches!(e, E::HeaderTooSmall)),
        ("half a length", vec![1, 0, 0, 0], |e| {
            matches!(e, E::HeaderTooSmall)
        }),
        ("only a length", raw(&good, 0)[..8].to_vec(), |e| {
            matches!(e, E::InvalidHeaderLength)
        }),
        ("half a header", raw(&good, 0)[..60].to_vec(), |e| {
            matches!(e, E::InvalidHeaderLength)
        }),
        ("a length of 2^64", huge(u64::MAX), |e| {
            matches!(e, E::HeaderTooLarge | E::InvalidHeaderLength)
        }),
        ("a length near 2^63", huge(u64::MAX / 2 - 4), |e| {
            matches!(e, E::HeaderTooLarge)
        }),
        ("a length over the limit", huge(100_000_001), |e| {
            matches!(e, E::HeaderTooLarge)
        }),
        ("no UTF-8", raw([0xff], 0), |e| {
            matches!(e, E::InvalidHeader(_))
        }),
        (
            "no UTF-8 in a name",
            raw([&b"{\"\xc3\x28\":"[..], &b"0}"[..]].concat(), 0),
            |e| matches!(e, E::InvalidHeader(_)),
        ),
        ("no JSON", raw("{", 0), |e| {
            matches!(e, E::InvalidHeaderDeserialization(_))
        }),
        ("no object", raw("[1]", 0), |e| {
            matches!(e, E::InvalidHeaderDeserialization(_))
        }),
        ("deep nesting", raw("[".repeat(100_000), 0), |e| {
            matches!(e, E::InvalidHeaderDeserialization(_))
        }),
        ("an unknown type", raw(one("F33", "[1,2]", 8), 8), |e| {
            matches!(e, E::InvalidHeaderDeserialization(_))
        }),
        ("a negative length", raw(one("F32", "[-1,2]", 8), 8), |e| {
            matches!(e, E::InvalidHeaderDeserialization(_))
        }),
        (
            "notes that are no text",
            raw(r#"{"__metadata__":{"format":1}}"#, 0),
            |e| matches!(e, E::InvalidHeaderDeserialization(_)),
        ),
        (
            "one place for all",
            raw(format!("{{{}}}", many.join(",")), 16),
            |e| matches!(e, E::InvalidOffset(_)),
        ),
        ("an overlap", raw(pair((0, 8), (4, 16)), 16), |e| {
            matches!(e, E::InvalidOffset(_))
        }),
        ("a hole", raw(pair((0, 8), (12, 24)), 24), |e| {
            matches!(e, E::InvalidOffset(_))
        }),
        (
            "a start after the end",
            raw(pair((8, 0), (8, 20)), 20),
            |e| matches!(e, E::InvalidOffset(_)),
        ),
        ("a name twice", raw(twice, 28), |e| {
            matches!(e, E::InvalidOffset(_))
        }),
        ("data missing", raw(&good, 16), |e| {
            matches!(e, E::MetadataIncompleteBuffer)
        }),
        ("data left over", raw(&good, 24), |e| {
            matches!(e, E::MetadataIncompleteBuffer)
        }),
        ("an end outside", raw(pair((0, 8), (8, 1 << 40)), 20), |e| {
            matches!(e, E::TensorInvalidInfo | E::MetadataIncompleteBuffer)
        }),
        (
            "more shape than data",
            raw(one("F32", "[1,3]", 8), 8),
            |e| matches!(e, E::TensorInvalidInfo),
        ),
        (
            "a product of lengths that overflows",
            raw(one("F32", "[2,18446744073709551614]", 16), 16),
            |e| matches!(e, E::ValidationOverflow),
        ),
        (
            "a number of bytes that overflows",
            raw(one("F32", "[2,9223372036854775807]", 16), 16),
            |e| matches!(e, E::ValidationOverflow),
        ),
        ("half bytes", raw(one("F4", "[1,3]", 2), 2), |e| {
            matches!(e, E::MisalignedSlice | E::TensorInvalidInfo)
        }),
    ];
    for (attack, bytes, fits) in &cases {
        for (reader, error) in errors(bytes) {
            match &error {
                Some(LoraError::NotSafetensors { error }) => {
                    // Reading the header alone, the check of its offsets is a part of parsing it.
                    let parsed = reader == "AdapterReader::open"
                        && matches!(error, E::InvalidHeaderDeserialization(_));
                    assert!(fits(error) || parsed, "{attack}, {reader}: {error:?}");
                }
                other => panic!("{attack}, {reader}: {other:?}"),
            }
        }
    }
}

#[test]
fn names_that_come_twice_are_refused_by_every_reader() {
    // In one place, so that nothing else is wrong with the file: as two floats or as four halves.
    let halves = entry(A, "F16", "[1,4]", 0, 8);
    let floats = entry(A, "F32", "[1,2]", 0, 8);
    let notes = r#""__metadata__":{"lora_adapter_metadata":"{}","lora_adapter_metadata":"{}"}"#;
    for (header, name) in [
        (format!("{{{floats},{halves}}}"), A),
        (format!("{{{notes},{floats}}}"), "lora_adapter_metadata"),
    ] {
        for (reader, error) in errors(&raw(header, 8)) {
            match error {
                Some(LoraError::RepeatedName { name: found }) => assert_eq!(found, name),
                other => panic!("{reader}: {other:?}"),
            }
        }
    }
}

/// Statistics say what they are, which no adapter does.
fn is_no_calibration(reader: &str, error: &LoraError) -> bool {
    let says_so =
        matches!(error, LoraError::CalibrationFile { key, .. } if key == "selma_calibration");
    says_so && reader == "Calibration::load"
}

#[test]
fn what_a_sound_header_may_still_hold_is_refused_by_name() {
    let two = |dtype: &str, a: &str, b: &str, size: usize| {
        let product = |shape: &str| -> usize {
            let lengths: Vec<u128> = serde_json::from_str(shape).unwrap();
            lengths.iter().product::<u128>() as usize * size
        };
        let (middle, end) = (product(a), product(a) + product(b));
        let header = format!(
            "{{{},{}}}",
            entry(A, dtype, a, 0, middle),
            entry(B, dtype, b, middle, end)
        );
        raw(header, end)
    };
    for (attack, bytes, text) in [
        ("nothing in it", raw("{}", 0), "no LoRA factors"),
        ("blanks around it", raw("\t\n{}\r ", 0), "no LoRA factors"),
        (
            "notes alone",
            raw(r#"{"__metadata__":{"a":"b"}}"#, 0),
            "no LoRA factors",
        ),
        ("zero length", two("F32", "[0,2]", "[3,0]", 4), "[0, 2]"),
        (
            "zero length beside an immense one",
            two("F32", "[0,1099511627776,1099511627776]", "[3,0]", 4),
            "1099511627776",
        ),
        ("a number", two("F32", "[]", "[]", 4), "[]"),
        (
            "shapes of other modules",
            two("F32", "[1,2]", "[3,2]", 4),
            "[3, 2]",
        ),
        ("integers", two("I32", "[1,2]", "[3,1]", 4), "stored as I32"),
        ("doubles", two("F64", "[1,2]", "[3,1]", 8), "stored as F64"),
        (
            "eight bits",
            two("F8_E4M3", "[1,2]", "[3,1]", 1),
            "stored as F8_E4M3",
        ),
        (
            "truth values",
            two("BOOL", "[1,2]", "[3,1]", 1),
            "stored as BOOL",
        ),
    ] {
        for (reader, error) in errors(&bytes) {
            if reader == "fuse_file" {
                // A checkpoint may hold anything.
                assert!(error.is_none(), "{attack}: {error:?}");
                continue;
            }
            if reader == "Masks::load" {
                // Masks may be of any name and shape, but of no other type.
                let fits = error
                    .as_ref()
                    .is_none_or(|e| matches!(e, LoraError::MaskDtype { .. }));
                assert!(fits, "{attack}: {error:?}");
                continue;
            }
            let error = error.unwrap_or_else(|| panic!("{attack}, {reader}: read"));
            if is_no_calibration(reader, &error) {
                continue;
            }
            let found = error.to_string();
            assert!(found.contains(text), "{attack}, {reader}: {found}");
            let named = found.contains("conv_in") || text == "no LoRA factors";
            assert!(named, "{attack}, {reader}: {found}");
        }
    }
}

#[test]
fn sound_files_are_read_by_every_reader() {
    // Else the tests above would prove nothing.
    let header = pair((0, 8), (8, 20));
    for header in [header.clone(), format!(" {header}\n  ")] {
        for (reader, error) in errors(&raw(header, 20)) {
            let as_it_should = error.as_ref().is_none_or(|error| {
                let masks = matches!(error, LoraError::MaskDtype { .. });
                (masks && reader == "Masks::load") || is_no_calibration(reader, error)
            });
            assert!(as_it_should, "{reader}: {error:?}");
        }
    }
    let mask = raw(format!("{{{}}}", entry("m.0.dW", "BOOL", "[2,2]", 0, 4)), 4);
    assert!(
        errors(&mask)
            .iter()
            .any(|(reader, error)| *reader == "Masks::load" && error.is_none())
    );
    assert!(Adapter::load(fixture("expert_a.safetensors")).is_ok());
}
