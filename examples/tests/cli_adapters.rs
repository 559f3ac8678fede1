//! `selma convert`, `resize`, `diff` and `extract`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;

use common::models::{adapter_of, change, files, single_file, weights};
use common::{Selma, copy_folder, expert, fixture, tiny_sd, tiny_sdxl};
use selma_lora::{Adapter, Dtype, Format, RankRule};
use serde_json::Value;

const LAYERS: [&str; 3] = [
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.mid_block.resnets.0.conv1",
    "text_encoder.text_model.encoder.layers.1.self_attn.v_proj",
];

fn load(selma: &Selma, name: &str) -> Adapter {
    Adapter::load(selma.path(name)).unwrap()
}

fn recipe(adapter: &Adapter, key: &str) -> Value {
    serde_json::from_str(&adapter.metadata[key]).unwrap()
}

/// How far the second adapter's update is from the first's, relative to it.
fn apart(one: &Adapter, other: &Adapter) -> f64 {
    let comparison = one.compare(other).unwrap();
    assert!(comparison.only_first.is_empty() && comparison.only_second.is_empty());
    comparison.relative.unwrap()
}

#[test]
fn an_adapter_goes_through_every_format() {
    let selma = Selma::new();
    let whole = Adapter::load(expert('a')).unwrap();
    let mut input = expert('a');
    for (format, out) in [
        ("kohya", "one.safetensors"),
        ("diffusers", "two.safetensors"),
        ("diffusers_script", "three.safetensors"),
        ("peft", "four"),
        ("kohya", "five.safetensors"),
    ] {
        let ended = selma
            .run_with(&format!("convert --to {format} --out {out}"), &[&input])
            .ok();
        let written = format!("wrote {out} ({format}, f32): 4 modules");
        assert!(ended.stderr.contains(&written), "{}", ended.stderr);
        let converted = load(&selma, out);
        let source = converted.source.as_ref().unwrap();
        assert_eq!(source.format.to_string(), format);
        assert!(apart(&whole, &converted) < 1e-6);
        let before = Adapter::load(selma.path(&input)).unwrap().source.unwrap();
        let recipe = recipe(&converted, "selma_convert");
        assert_eq!(recipe["input"], before.sha256, "{format}");
        input = out.to_owned();
    }
    assert!(selma.path("four/adapter_config.json").is_file());
    // The same input, the same bytes; the number type is that of the input unless another is given.
    selma
        .run_with("convert --to kohya --out same", &[&expert('a')])
        .ok();
    assert_eq!(selma.read("same"), selma.read("one.safetensors"));
    selma
        .run("convert same --to kohya --dtype f16 --out half")
        .ok();
    selma.run("convert half --to diffusers --out again").ok();
    let types = load(&selma, "again").source.unwrap().dtypes;
    assert_eq!(types, [Dtype::F16].into());
}

#[test]
fn other_kinds_become_loras_of_the_rank_that_is_asked_for() {
    let selma = Selma::new();
    let kinds = fixture("selma-lora/tests/fixtures/peft_loha");
    selma
        .run_with("convert --to kohya --out l", &[&kinds])
        .failed(&["LoHa", "--rank RULE"]);
    let ended = selma
        .run_with("convert --to kohya --rank energy:0.9999 --out l", &[&kinds])
        .ok();
    assert!(ended.stderr.contains("became LoRAs"), "{}", ended.stderr);
    let made = load(&selma, "l");
    assert_eq!(recipe(&made, "selma_convert")["rule"]["energy"], 0.9999);
    assert_eq!(selma.names(), ["l"]);
}

/// A DoRA of one layer whose row lengths are those of the tuned weight: then its update is that of the LoRA in it.
#[test]
fn a_dora_becomes_a_lora_where_its_model_is_given() {
    let selma = Selma::new();
    let layer = LAYERS[0];
    let lora = adapter_of("tiny-sd", &[layer]);
    let delta = lora.modules[layer].delta().unwrap();
    let model = files::tensors(&weights(Path::new(&tiny_sd()), "unet"));
    let (_, shape, bytes) = &model[&format!("{}.weight", layer.strip_prefix("unet.").unwrap())];
    let base: Vec<f32> = bytes
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let tuned: Vec<f32> = base
        .iter()
        .zip(&delta)
        .map(|(base, delta)| base + delta)
        .collect();
    let lengths = tuned
        .chunks_exact(shape[1])
        .map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt());
    let lengths: Vec<u8> = lengths.flat_map(f32::to_le_bytes).collect();
    lora.save(selma.path("lora"), Format::Kohya, Dtype::F32)
        .unwrap();
    let mut tensors = files::tensors(&selma.path("lora"));
    let key = format!("lora_{}.dora_scale", layer.replace('.', "_"));
    tensors.insert(key, (safetensors::Dtype::F32, vec![shape[0], 1], lengths));
    files::write(&selma.path("dora"), &tensors);

    let convert = "convert dora --to kohya --out made";
    selma
        .run(convert)
        .failed(&["DoRA", "--rank RULE", "--base MODEL"]);
    selma
        .run(&format!("{convert} --rank 2"))
        .failed(&["cannot convert dora", "DoRA"]);
    let ended = selma
        .run_with(&format!("{convert} --rank 2 --base"), &[&tiny_sd()])
        .ok();
    assert!(
        ended.stderr.contains("1 of 1 modules became LoRAs"),
        "{}",
        ended.stderr
    );
    let made = load(&selma, "made");
    assert!(apart(&lora, &made) < 1e-5);
    assert!(
        recipe(&made, "selma_convert_base")["unet/diffusion_pytorch_model.safetensors"].is_string()
    );
    selma
        .run_with(&format!("{convert} --rank 2 --base"), &[&tiny_sdxl()])
        .failed(&["cannot convert dora"]);
}

#[test]
fn ranks_are_cut_by_every_rule() {
    let selma = Selma::new();
    let a = expert('a');
    let whole = Adapter::load(&a).unwrap();
    for rule in ["1", "energy:0.9", "threshold:0.05", "ratio:0.5"] {
        let ended = selma
            .run_with(
                &format!("resize --rank {rule} --out small --report r.json"),
                &[&a],
            )
            .ok();
        assert!(ended.stderr.contains("was cut off"), "{}", ended.stderr);
        let (expected, _) = whole.resize(rule.parse::<RankRule>().unwrap()).unwrap();
        let source = whole.source.as_ref().unwrap();
        let dtype = *source.dtypes.first().unwrap();
        assert_eq!(
            selma.read("small"),
            expected.to_bytes(source.format, dtype).unwrap(),
            "{rule}"
        );
        let report: Value = serde_json::from_slice(&selma.read("r.json")).unwrap();
        assert_eq!(
            report["modules"].as_array().unwrap().len(),
            whole.modules.len()
        );
        let made = recipe(&load(&selma, "small"), "selma_resize");
        assert_eq!(made["input"], source.sha256);
    }
    selma
        .run_with(
            "resize --rank 1 --format peft --dtype bf16 --out folder",
            &[&a],
        )
        .ok();
    let source = load(&selma, "folder").source.unwrap();
    assert_eq!(
        (source.format, source.dtypes),
        (Format::Peft, [Dtype::BF16].into())
    );
}

#[test]
fn adapters_are_compared_layer_by_layer() {
    let selma = Selma::new();
    let a = expert('a');
    selma
        .run_with("resize --rank 1 --out small.safetensors", &[&a])
        .ok();
    let ended = selma.run_with("diff", &[&a, "small.safetensors"]).ok();
    let text = ended.text();
    for part in ["norm of the first", "cosine", "module ", "unet."] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let ended = selma.run_with("diff --json", &[&a, &a]).ok();
    let same: Value = serde_json::from_str(ended.text()).unwrap();
    assert!(same["distance"].as_f64().unwrap() < 1e-6 * same["first_norm"].as_f64().unwrap());
    let ended = selma.run_with("diff", &[&a, &expert('c')]).ok();
    assert!(ended.text().contains("only in the"), "{}", ended.text());

    selma
        .run_with("diff no.safetensors", &[&a])
        .failed(&["no.safetensors", "No such file"]);
    selma.run_with("diff", &[&a]).misused(&["<FILE|DIR>"]);
    let names = selma.names();
    assert_eq!(names, ["small.safetensors"]);
}

#[test]
fn an_adapter_is_extracted_from_what_was_fused() {
    let selma = Selma::new();
    let adapter = adapter_of("tiny-sd", &LAYERS);
    adapter
        .save(selma.path("a.safetensors"), Format::Kohya, Dtype::F32)
        .unwrap();
    let model = tiny_sd();
    selma
        .run_with("fuse --out fused a.safetensors --model", &[&model])
        .ok();
    single_file("tiny-sd", &selma.path("single.safetensors"));
    for base in [model.as_str(), "single.safetensors"] {
        let ended = selma
            .run_with(
                "extract --tuned fused --rank energy:0.999999 --out out.safetensors --report r.json --base",
                &[base],
            )
            .ok();
        assert!(ended.stderr.contains("layers differ"), "{}", ended.stderr);
        let found = load(&selma, "out.safetensors");
        assert!(apart(&adapter, &found) < 1e-3);
        let recipe = recipe(&found, "selma_extract");
        assert_eq!(recipe["rule"]["energy"], 0.999_999);
        assert!(recipe["tuned"]["unet/diffusion_pytorch_model.safetensors"].is_string());
        let report: Value = serde_json::from_slice(&selma.read("r.json")).unwrap();
        assert_eq!(
            report["modules"].as_array().unwrap().len(),
            adapter.modules.len()
        );
    }
}

#[test]
fn models_that_cannot_be_compared_are_named() {
    let selma = Selma::new();
    let model = tiny_sd();
    let extract = "extract --rank 4 --out out.safetensors --base";
    selma
        .run_with(extract, &[&model, "--tuned", &model])
        .failed(&["do not differ"]);
    selma
        .run_with(extract, &[&model, "--tuned", &tiny_sdxl()])
        .failed(&["tiny-sdxl", "expected one text encoder", "found SDXL"]);
    selma
        .run_with(extract, &[&model, "--tuned", "none"])
        .failed(&["none"]);
    // Another architecture of the same family.
    selma
        .run_with(
            extract,
            &[
                &model,
                "--tuned",
                &fixture("selma-diffusion/tests/fixtures/tiny-sd-v"),
            ],
        )
        .failed(&["tiny-sd-v"]);
    // Only a bias differs.
    copy_folder(Path::new(&model), &selma.path("tuned"));
    let unet = weights(&selma.path("tuned"), "unet");
    change(&unet, "conv_in.bias");
    selma
        .run_with(extract, &[&model, "--tuned", "tuned"])
        .failed(&["do not differ in any layer"]);
    change(&unet, "conv_in.weight");
    let ended = selma.run_with(extract, &[&model, "--tuned", "tuned"]).ok();
    for part in [
        "1 layers differ",
        "1 more tensors differ",
        "unet.conv_in.bias",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(selma.names(), ["out.safetensors", "tuned"]);
}

#[test]
fn bad_input_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    let a = expert('a');
    let whole = fs::read(&a).unwrap();
    selma.write("torn.safetensors", &whole[..whole.len() / 2]);
    selma.write("file", "mine");
    fs::create_dir(selma.path("empty")).unwrap();
    let before = selma.names();
    for command in ["convert --to kohya --out o", "resize --rank 2 --out o"] {
        for (file, cause) in [
            ("torn.safetensors", "not a readable safetensors file"),
            ("no.safetensors", "No such file"),
            ("empty", "adapter_config.json"),
        ] {
            selma.run_with(command, &[file]).failed(&[file, cause]);
        }
    }
    selma
        .run_with("convert --to peft --out file", &[&a])
        .failed(&["cannot write file", "the format peft is a folder"]);
    selma
        .run_with("convert --to peft --out no/folder", &[&a])
        .failed(&["cannot write no/folder"]);
    selma
        .run_with("convert --to peft --out -", &[&a])
        .failed(&["standard output"]);
    selma
        .run_with("convert --to kohya --out no/file", &[&a])
        .failed(&["cannot write no/file"]);
    selma
        .run("convert --to kohya --out torn.safetensors torn.safetensors")
        .failed(&["is an input"]);
    selma
        .run_with("resize --rank 2 --out o --report ./o", &[&a])
        .failed(&["two outputs"]);
    for rule in ["0", "energy:2", "energy:", "size:3", "x"] {
        selma
            .run_with(&format!("resize --rank {rule} --out o"), &[&a])
            .misused(&["--rank"]);
    }
    selma
        .run_with("convert --to ckpt --out o", &[&a])
        .misused(&["kohya, diffusers, peft, diffusers_script"]);
    selma.run_with("convert --out o", &[&a]).misused(&["--to"]);
    selma.run_with("resize --out o", &[&a]).misused(&["--rank"]);
    assert_eq!(selma.names(), before);
    assert_eq!(selma.read("file"), b"mine");
}
