//! Adapters read and merged module by module, against the same done in memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use ndarray::Array;
use selma_lora::{
    Adapter, AdapterReader, Dtype, Format, LoraError, LoraModule, Merge, Method, ModuleNames,
    WeightedFile, init, merge::Weighted,
};

const PATHS: [&str; 4] = [
    "text_encoder.text_model.encoder.layers.1.self_attn.q_proj",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2",
    "unet.mid_block.resnets.0.conv1",
];

/// Factors of small whole numbers, of a rank of its own for every module.
fn adapter(seed: usize, paths: &[&str]) -> Adapter {
    let modules = paths.iter().enumerate().map(|(index, path)| {
        let rank = 2 + (seed + index) % 3;
        let kernel: &[usize] = if path.contains("conv") { &[3, 3] } else { &[] };
        let ones: &[usize] = if path.contains("conv") { &[1, 1] } else { &[] };
        let mut next = seed * 31 + index * 17;
        let mut number = || {
            next = next * 1_103_515_245 % 2_147_483_647 + 12345;
            (next % 17) as f32 / 8.0 - 1.0
        };
        let a = Array::from_shape_simple_fn([&[rank, 6], kernel].concat(), &mut number);
        let b = Array::from_shape_simple_fn([&[9, rank], ones].concat(), &mut number);
        let module = LoraModule::new(a, b, seed as f64 + 0.5).unwrap();
        ((*path).to_owned(), module)
    });
    Adapter::new(modules)
}

#[test]
fn a_module_is_what_the_whole_file_says_it_is() {
    let folder = tempfile::tempdir().unwrap();
    for (format, paths) in [
        (Format::Kohya, &PATHS[..]),
        (Format::Diffusers, &PATHS),
        (Format::DiffusersScript, &PATHS),
        (Format::Peft, &PATHS),
        (Format::Peft, &PATHS[1..]),
    ] {
        for dtype in [Dtype::F32, Dtype::F16] {
            let path = folder
                .path()
                .join(format!("{format}_{dtype}_{}", paths.len()));
            adapter(1, paths).save(&path, format, dtype).unwrap();
            let whole = Adapter::load(&path).unwrap();
            let reader = AdapterReader::open(&path).unwrap();
            let source = whole.source.unwrap();
            assert_eq!(reader.format(), source.format);
            assert_eq!(reader.sha256().unwrap(), source.sha256);
            assert!(reader.paths().eq(whole.modules.keys()));
            for (path, module) in &whole.modules {
                assert_eq!(reader.module(path).unwrap().as_ref(), Some(module));
            }
            assert_eq!(reader.module("unet.conv_in").unwrap(), None);
        }
    }
}

#[test]
fn names_are_resolved_by_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let odd = "unet.some_module.of_mine";
    adapter(1, &[odd])
        .save(&path, Format::Kohya, Dtype::F32)
        .unwrap();
    assert!(AdapterReader::open(&path).is_err());
    let reader = AdapterReader::open_with(&path, &ModuleNames::new([odd]).unwrap()).unwrap();
    assert!(reader.module(odd).unwrap().is_some());
}

#[test]
fn the_merged_file_has_the_bytes_of_the_merge_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    // One lacks a module that the others have, and the other way round.
    for (index, paths) in [&PATHS[..], &PATHS[1..], &PATHS[..3]].iter().enumerate() {
        let path = file(&format!("{index}"));
        let format = [Format::Kohya, Format::Diffusers, Format::Peft][index];
        adapter(index, paths)
            .save(path, format, Dtype::F32)
            .unwrap();
    }
    let adapters: Vec<Adapter> = (0..3)
        .map(|i| Adapter::load(file(&i.to_string())).unwrap())
        .collect();
    let readers: Vec<AdapterReader> = (0..3)
        .map(|i| AdapterReader::open(file(&i.to_string())).unwrap())
        .collect();
    let weights = [0.7, -0.4, 1.1];
    let in_memory: Vec<Weighted<'_>> = adapters
        .iter()
        .zip(weights)
        .map(|(adapter, weight)| Weighted { adapter, weight })
        .collect();
    let on_disk: Vec<WeightedFile<'_>> = readers
        .iter()
        .zip(weights)
        .map(|(adapter, weight)| WeightedFile { adapter, weight })
        .collect();
    let with = |method| Merge::new(method);
    for merge in [
        with(Method::Mean),
        Merge {
            lambda: Some(0.3),
            ..with(Method::Sum)
        },
        with(Method::Svd),
        with(Method::Svd).with_rank(3),
        with(Method::MkTaskArithmetic),
        with(Method::MkTaskArithmetic).with_rank(2),
        // Their ranks depend on the values.
        with(Method::KnotsSum),
        with(Method::CoreIso),
        with(Method::Tsv),
        with(Method::Robust),
    ] {
        for format in [Format::Kohya, Format::Diffusers, Format::DiffusersScript] {
            for dtype in [Dtype::F32, Dtype::BF16] {
                let inputs = match merge.method {
                    // It needs equal ranks, which one adapter has.
                    Method::Robust => (&in_memory[..1], &on_disk[..1]),
                    _ => (&in_memory[..], &on_disk[..]),
                };
                let (merged, expected) = merge.run(inputs.0).unwrap();
                let mut report = merge
                    .run_files(inputs.1, file("merged"), format, dtype)
                    .unwrap();
                // Only a file has a number type to round to.
                assert_eq!(report.rounding > 0.0, dtype == Dtype::BF16);
                report.rounding = 0.0;
                report.modules.iter_mut().for_each(|m| m.rounding = 0.0);
                assert_eq!(report, expected);
                let expected = merged.to_bytes(format, dtype).unwrap();
                let found = fs::read(file("merged")).unwrap();
                assert!(found == expected, "{} {format} {dtype}", merge.method);
            }
        }
    }
    let mean = with(Method::Mean);
    mean.run_files(&on_disk, file("peft"), Format::Peft, Dtype::F32)
        .unwrap();
    let (merged, _) = mean.run(&in_memory).unwrap();
    assert_eq!(Adapter::load(file("peft")).unwrap().modules, merged.modules);
    // Nothing temporary is left.
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|x| x.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["0", "1", "2", "merged", "peft"]);
}

#[test]
fn an_input_may_be_replaced_by_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    adapter(1, &PATHS)
        .save(&path, Format::Kohya, Dtype::F32)
        .unwrap();
    let reader = AdapterReader::open(&path).unwrap();
    let inputs = [WeightedFile {
        adapter: &reader,
        weight: 1.0,
    }; 2];
    Merge::new(Method::Sum)
        .run_files(&inputs, &path, Format::Kohya, Dtype::F32)
        .unwrap();
    assert_eq!(
        Adapter::load(&path).unwrap().modules[PATHS[1]].rank(),
        2 * reader.module(PATHS[1]).unwrap().unwrap().rank()
    );
}

#[test]
fn what_fails_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    adapter(1, &PATHS)
        .save(file("a"), Format::Kohya, Dtype::F32)
        .unwrap();
    // The last value of the file is not a number: the header does not tell.
    let mut bytes = fs::read(file("a")).unwrap();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(file("b"), &bytes).unwrap();
    fs::write(file("merged"), b"older").unwrap();
    let (good, bad) = (
        AdapterReader::open(file("a")).unwrap(),
        AdapterReader::open(file("b")).unwrap(),
    );
    let inputs = [&good, &bad].map(|adapter| WeightedFile {
        adapter,
        weight: 1.0,
    });
    let error = Merge::new(Method::Mean)
        .run_files(&inputs, file("merged"), Format::Kohya, Dtype::F32)
        .unwrap_err();
    assert!(error.to_string().contains("finite"), "{error}");
    assert_eq!(fs::read(file("merged")).unwrap(), b"older");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);

    // Cut off, and with a header that is longer than the file.
    for bytes in [
        &bytes[..end - 1],
        &bytes[..7],
        b"\xff\xff\x00\x00\x00\x00\x00\x00{}",
    ] {
        fs::write(file("b"), bytes).unwrap();
        let error = AdapterReader::open(file("b")).unwrap_err();
        assert!(
            matches!(&error, LoraError::InFile { error, .. } if matches!(**error, LoraError::NotSafetensors { .. })),
            "{error}"
        );
    }
    assert!(matches!(
        AdapterReader::open(file("none")).unwrap_err(),
        LoraError::InFile { .. } | LoraError::Io { .. }
    ));
    let none: [WeightedFile<'_>; 0] = [];
    let error =
        Merge::new(Method::Mean).run_files(&none, file("merged"), Format::Kohya, Dtype::F32);
    assert!(matches!(error, Err(LoraError::NoAdapters)));
}

#[test]
fn rounding_to_the_type_of_the_file_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = "unet.conv_in";
    let file = folder.path().join("a.safetensors");
    let mut module = init::gaussian(path, &[8, 4, 3, 3], 2, 2.0, 0).unwrap();
    module.b.fill(0.3);
    // Below the smallest number of f16.
    let mut tiny = module.clone();
    tiny.b.fill(1e-9);
    for (module, dtype, least, most) in [
        (&module, Dtype::F32, 0.0, 0.0),
        (&module, Dtype::F16, 1e-5, 1e-3),
        (&module, Dtype::BF16, 1e-4, 1e-2),
        (&tiny, Dtype::F16, 1.0, 1.0),
    ] {
        Adapter::new([(path.to_owned(), module.clone())])
            .save(&file, Format::Kohya, Dtype::F32)
            .unwrap();
        let adapter = AdapterReader::open(&file).unwrap();
        let inputs = [WeightedFile {
            adapter: &adapter,
            weight: 1.0,
        }];
        for (format, name) in [(Format::Kohya, "k.safetensors"), (Format::Peft, "peft")] {
            let out = folder.path().join(name);
            let report = Merge::new(Method::Sum)
                .run_files(&inputs, out, format, dtype)
                .unwrap();
            let found = report.modules[0].rounding;
            assert!(
                (least..=most).contains(&found),
                "{format} {dtype:?}: {found}"
            );
            assert_eq!(report.rounding, found);
        }
    }
}

#[test]
fn what_all_inputs_say_of_the_model_stays_and_hashes_of_values_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = "unet.conv_in";
    let mut module = init::gaussian(path, &[8, 4, 3, 3], 2, 2.0, 0).unwrap();
    module.b.fill(0.3);
    let files = ["sd_1.5", "sd_2.1"].map(|version| {
        let mut adapter = Adapter::new([(path.to_owned(), module.clone())]);
        for (key, value) in [
            ("ss_base_model_version", version),
            ("modelspec.architecture", "stable-diffusion-v1/lora"),
            ("sshs_model_hash", "0123"),
            ("ss_tag_frequency", "{}"),
        ] {
            adapter.metadata.insert(key.to_owned(), value.to_owned());
        }
        let file = folder.path().join(version);
        adapter.save(&file, Format::Kohya, Dtype::F32).unwrap();
        file
    });
    let loaded = files.each_ref().map(|file| Adapter::load(file).unwrap());
    assert!(!loaded[0].metadata.contains_key("sshs_model_hash"));
    assert!(loaded[0].metadata.contains_key("ss_tag_frequency"));
    let opened = files
        .each_ref()
        .map(|file| AdapterReader::open(file).unwrap());
    let inputs = opened.each_ref().map(|adapter| WeightedFile {
        adapter,
        weight: 1.0,
    });
    let out = folder.path().join("merged");
    let merge = Merge::new(Method::Sum);
    merge
        .run_files(&inputs, &out, Format::Diffusers, Dtype::F32)
        .unwrap();
    let on_disk = Adapter::load(&out).unwrap().metadata;
    let (in_memory, _) = merge.run(&loaded.each_ref().map(Weighted::from)).unwrap();
    assert_eq!(on_disk, in_memory.metadata);
    let keys: Vec<&String> = on_disk.keys().collect();
    assert_eq!(keys, ["modelspec.architecture", "selma_merge"]);
}
