//! `selma merge`.

mod common;

use std::fs;
use std::sync::Arc;

use common::{Selma, expert};
use ndarray::Array2;
use selma_lora::merge::{Calibration, Majority, ModuleWeight, Statistics};
use selma_lora::{Adapter, Dtype, Format, LoraModule, Merge, Method, Weighted};
use serde_json::Value;

#[test]
fn a_merge_is_that_of_the_library() {
    let selma = Selma::new();
    let (a, b) = (expert('a'), expert('b'));
    let load = |path: &String| Adapter::load(path).unwrap();
    for (method, name) in [
        (Method::Mean, "mean"),
        (Method::Sum, "sum"),
        (Method::Svd, "svd"),
    ] {
        selma
            .run_with(
                &format!("merge --method {name} --out {name}.safetensors"),
                &[&a, &format!("{b}=-0.5")],
            )
            .ok();
        let (adapter_a, adapter_b) = (load(&a), load(&b));
        let inputs = [
            Weighted {
                adapter: &adapter_a,
                weight: 1.0,
            },
            Weighted {
                adapter: &adapter_b,
                weight: -0.5,
            },
        ];
        let (expected, _) = Merge::new(method).run(&inputs).unwrap();
        let expected = expected.to_bytes(Format::Kohya, Dtype::F32).unwrap();
        assert_eq!(
            selma.read(&format!("{name}.safetensors")),
            expected,
            "{name}"
        );
    }
}

#[test]
fn format_type_rank_and_report_are_chosen() {
    let selma = Selma::new();
    let ended = selma
        .run_with(
            "merge --method svd --rank 2 --format diffusers --dtype bf16 --out m.safetensors --report m.json",
            &[&expert('a'), &expert('b'), &expert('c')],
        )
        .ok();
    assert!(
        ended.stderr.contains("truncation error"),
        "{}",
        ended.stderr
    );
    let merged = Adapter::load(selma.path("m.safetensors")).unwrap();
    assert!(merged.modules.values().all(|module| module.rank() <= 2));
    let source = merged.source.unwrap();
    assert_eq!(
        (source.format, source.dtypes),
        (Format::Diffusers, [Dtype::BF16].into())
    );
    let report: Value = serde_json::from_slice(&selma.read("m.json")).unwrap();
    assert_eq!(report["merge"]["method"], "svd");
    assert_eq!(report["inputs"].as_array().unwrap().len(), 3);
    assert_eq!(
        report["modules"].as_array().unwrap().len(),
        merged.modules.len()
    );
}

#[test]
fn options_of_a_method_are_those_of_the_library() {
    let selma = Selma::new();
    let (a, b) = (expert('a'), expert('b'));
    selma.write(
        "weights.json",
        r#"[{"module": "down_blocks", "adapter": 1, "weight": 0.5}]"#,
    );
    let command = "merge --method core_ties --density 0.5 --lambda 0.8 --majority frequency \
        --weights-by-module weights.json --out m.safetensors";
    selma.run_with(command, &[&a, &b]).ok();
    let merge = Merge {
        density: Some(0.5),
        lambda: Some(0.8),
        majority: Majority::Frequency,
        weights_by_module: vec![ModuleWeight {
            module: "down_blocks".to_owned(),
            adapter: Some(1),
            weight: 0.5,
        }],
        ..Merge::new(Method::CoreTies)
    };
    let loaded = [&a, &b].map(|path| Adapter::load(path).unwrap());
    let (expected, _) = merge
        .run(&[Weighted::from(&loaded[0]), Weighted::from(&loaded[1])])
        .unwrap();
    assert_eq!(
        selma.read("m.safetensors"),
        expected.to_bytes(Format::Kohya, Dtype::F32).unwrap()
    );

    let before = selma.names();
    selma.write("weights.json", r#"[{"modul": "x", "weight": 1.0}]"#);
    for (options, cause) in [
        ("peft_ties", "density"),
        ("mean --density 0.5", "does not know it"),
        ("core_ties --density 1.5", "1.5"),
        ("mk_dare_ties --density 0.5 --masks no", "no"),
        ("mean --weights-by-module weights.json", "weights.json"),
    ] {
        selma
            .run_with(&format!("merge --out n --method {options}"), &[&a, &b])
            .failed(&[cause]);
    }
    assert_eq!(selma.names(), before);
}

#[test]
fn statistics_come_from_a_file() {
    let selma = Selma::new();
    let (a, b) = (expert('a'), expert('b'));
    let loaded = [&a, &b].map(|path| Adapter::load(path).unwrap());
    let paths = loaded.iter().flat_map(|adapter| adapter.modules.keys());
    let statistics = paths.map(|path| {
        let modules = loaded
            .iter()
            .filter_map(|adapter| adapter.modules.get(path));
        let ranks: Vec<usize> = modules.map(LoraModule::rank).collect();
        let mut statistics = Statistics::new(&ranks);
        for adapter in 0..ranks.len() {
            let z = Array2::from_shape_fn((40, ranks.iter().sum()), |(i, j)| {
                (i * 7 + j * j * 3 + adapter) as f32 % 5.0 - 2.0
            });
            statistics.add(adapter, &z.view()).unwrap();
        }
        (path.clone(), statistics)
    });
    let hashes = loaded.iter().map(|adapter| adapter.source.as_ref());
    let calibration = Calibration {
        modules: statistics.collect(),
        adapters: hashes
            .map(|source| source.unwrap().sha256.clone())
            .collect(),
    };
    calibration.save(selma.path("statistics")).unwrap();
    let command = "merge --method ssr --ridge 0.01 --calibration statistics --out m.safetensors";
    selma.run_with(command, &[&a, &b]).ok();
    let merge = Merge {
        ridge: Some(0.01),
        calibration: Some(Arc::new(calibration)),
        ..Merge::new(Method::Ssr)
    };
    let (expected, _) = merge
        .run(&[Weighted::from(&loaded[0]), Weighted::from(&loaded[1])])
        .unwrap();
    assert_eq!(
        selma.read("m.safetensors"),
        expected.to_bytes(Format::Kohya, Dtype::F32).unwrap()
    );

    let whole = selma.read("statistics");
    selma.write("torn", &whole[..whole.len() - 8]);
    let before = selma.names();
    for (options, inputs, cause) in [
        ("ssr", [&a, &b], "calibration"),
        ("ssr --calibration no", [&a, &b], "cannot read no"),
        ("ssr --calibration torn", [&a, &b], "torn"),
        ("ssr --calibration statistics", [&b, &a], "SHA-256"),
        (
            "mean --calibration statistics",
            [&a, &b],
            "does not know it",
        ),
        ("mean --dense-limit 5", [&a, &b], "does not know it"),
        ("mk_ties --dense-limit 5", [&a, &b], "at most 5 are allowed"),
    ] {
        selma
            .run_with(
                &format!("merge --out n --method {options}"),
                &inputs.map(String::as_str),
            )
            .failed(&[cause]);
    }
    assert_eq!(selma.names(), before);
}

#[test]
fn a_merge_is_written_for_peft_and_says_where_it_comes_from() {
    let selma = Selma::new();
    for out in ["one", "two"] {
        let ended = selma
            .run_with(
                &format!(
                    "merge --method mean --format peft --dtype f16 --out {out} --report {out}.json"
                ),
                &[&expert('a'), &format!("{}=-0.5", expert('b'))],
            )
            .ok();
        let written = format!("merged 2 adapters by mean into {out} (peft, f16)");
        assert!(ended.stderr.contains(&written), "{}", ended.stderr);
    }
    let merged = Adapter::load(selma.path("one")).unwrap();
    assert_eq!(merged.source.as_ref().unwrap().format, Format::Peft);
    let recipe: Value = serde_json::from_str(&merged.metadata["selma_merge"]).unwrap();
    let hash = |letter| {
        Adapter::load(expert(letter))
            .unwrap()
            .source
            .unwrap()
            .sha256
    };
    assert_eq!(recipe["method"], "mean");
    assert_eq!(recipe["inputs"][0]["sha256"], hash('a'));
    assert_eq!(recipe["inputs"][1]["weight"], -0.5);
    let mut names: Vec<_> = fs::read_dir(selma.path("one"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
    for name in names {
        assert_eq!(
            selma.read(&format!("one/{name}")),
            selma.read(&format!("two/{name}"))
        );
    }
    // A folder of PEFT is an input, too.
    selma
        .run_with("merge --method sum --out m one", &[&expert('c')])
        .ok();
    let before = selma.names();
    selma.write("file", "mine");
    for (out, cause) in [
        ("file", "the format peft is a folder"),
        ("no/m", "no/m"),
        ("-", "standard output"),
    ] {
        selma
            .run_with(
                &format!("merge --method mean --format peft --out {out}"),
                &[&expert('a')],
            )
            .failed(&[cause]);
    }
    fs::remove_file(selma.path("file")).unwrap();
    assert_eq!(selma.names(), before);
}

#[test]
fn a_name_may_hold_an_equals_sign() {
    let selma = Selma::new();
    fs::copy(expert('a'), selma.path("rank=8.safetensors")).unwrap();
    fs::copy(expert('a'), selma.path("x=1")).unwrap();
    selma
        .run("merge --method sum --out one rank=8.safetensors")
        .ok();
    selma
        .run("merge --method sum --out two rank=8.safetensors=1")
        .ok();
    selma.run("merge --method sum --out three x=1=1").ok();
    assert_eq!(selma.read("one"), selma.read("two"));
    assert_eq!(selma.read("one"), selma.read("three"));
}

#[test]
fn what_cannot_be_merged_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    let whole = fs::read(expert('a')).unwrap();
    selma.write("torn.safetensors", &whole[..whole.len() / 2]);
    selma.write("text.safetensors", "not tensors");
    let before = selma.names();
    let merge = "merge --method mean --out m.safetensors --report m.json";
    for (file, cause) in [
        ("torn.safetensors", "not a readable safetensors file"),
        ("text.safetensors", "not a readable safetensors file"),
        ("no.safetensors", "No such file"),
        (".", "adapter_config.json"),
    ] {
        selma
            .run_with(merge, &[&expert('a'), file])
            .failed(&[file, cause]);
    }
    let latents = common::fixture(
        "selma-diffusion/tests/fixtures/tiny-sd/unet/diffusion_pytorch_model.safetensors",
    );
    selma
        .run_with(merge, &[&latents])
        .failed(&["diffusion_pytorch_model.safetensors", "no known naming"]);
    selma
        .run_with(
            "merge --method factor_mean --out m.safetensors",
            &[&expert('a'), &expert('b')],
        )
        .failed(&["rank"]);
    assert_eq!(selma.names(), before);
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let selma = Selma::new();
    fs::copy(expert('a'), selma.path("a.safetensors")).unwrap();
    let whole = selma.read("a.safetensors");
    selma
        .run("merge --method mean --out a.safetensors a.safetensors")
        .failed(&["a.safetensors", "is an input"]);
    selma.write("w", "[]");
    selma
        .run("merge --method mean --out w --weights-by-module w a.safetensors")
        .failed(&["w", "is an input"]);
    fs::remove_file(selma.path("w")).unwrap();
    selma
        .run("merge --method mean --out m --report ./m a.safetensors")
        .failed(&["two outputs cannot both go to ./m"]);
    selma
        .run("merge --method mean --out no/m a.safetensors")
        .failed(&["cannot write no/m"]);
    selma
        .run("merge --method mean --out . a.safetensors")
        .failed(&["cannot write .", "folder"]);
    selma
        .run("merge --method mean --out m --report no/m.json a.safetensors")
        .failed(&["cannot write no/m.json"]);
    #[cfg(target_os = "linux")]
    selma
        .run("merge --method mean --out /dev/full a.safetensors")
        .failed(&["/dev/full", "No space"]);
    assert_eq!(selma.names(), ["a.safetensors"]);
    assert_eq!(selma.read("a.safetensors"), whole);
}

#[test]
fn wrong_flags_are_explained() {
    let selma = Selma::new();
    let a = expert('a');
    selma
        .run("merge --method mean --out m")
        .misused(&["FILE[=WEIGHT]"]);
    selma
        .run_with("merge --out m", &[&a])
        .misused(&["--method"]);
    selma
        .run_with("merge --method median --out m", &[&a])
        .misused(&["mean, sum, svd, factor_mean"]);
    selma
        .run_with("merge --method svd --rank 0 --out m", &[&a])
        .misused(&["--rank"]);
    selma
        .run_with("merge --method mean --dtype f64 --out m", &[&a])
        .misused(&["f32, f16, bf16"]);
    selma
        .run_with("merge --method mean --format ckpt --out m", &[&a])
        .misused(&["kohya, diffusers, peft"]);
    selma
        .run_with("merge --method mean --out m", &[&format!("{a}=nan")])
        .misused(&["finite"]);
    assert!(selma.names().is_empty());
}
