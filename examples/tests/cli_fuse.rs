//! `selma fuse`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;

use common::models::{adapter_of, files, fixture, single_file, weights};
use common::{Selma, copy_folder, expert, tiny_sd};
use safetensors::SafeTensors;
use selma_diffusion::single_file::SingleFile;
use selma_diffusion::weights::Weights;
use selma_lora::{Adapter, Dtype, Format};
use serde_json::Value;

const QUERY: &str = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
const CONV: &str = "unet.mid_block.resnets.0.conv1";
const TEXT: &str = "text_encoder.text_model.encoder.layers.1.self_attn.v_proj";

fn save(selma: &Selma, name: &str, adapter: &Adapter) {
    adapter
        .save(selma.path(name), Format::Kohya, Dtype::F32)
        .unwrap();
}

fn metadata(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let recipe = &header.metadata().as_ref().unwrap()["selma_fuse"];
    serde_json::from_str(recipe).unwrap()
}

#[test]
fn a_fused_folder_draws_what_its_model_draws_with_the_adapters() {
    let selma = Selma::new();
    save(
        &selma,
        "a.safetensors",
        &adapter_of("tiny-sd", &[QUERY, TEXT]),
    );
    save(
        &selma,
        "b.safetensors",
        &adapter_of("tiny-sd", &[CONV, QUERY]),
    );
    let model = tiny_sd();
    let adapters = ["a.safetensors=0.8", "b.safetensors=-0.5"];
    let ended = selma
        .run_with(
            "fuse --out fused --model",
            &[&model, adapters[0], adapters[1]],
        )
        .ok();
    let said = "wrote fused: 3 modules of 2 adapters in 3 tensors of 2 files";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);

    let draw = |out: &str, more: &[&str]| {
        let generate = format!("generate --steps 3 --prompt red --out {out} --model");
        selma.run_with(&generate, more).ok();
        image::open(selma.path(out)).unwrap().into_rgb8().into_raw()
    };
    let fused = draw("fused.png", &["fused"]);
    let beside = [
        model.as_str(),
        "--adapter",
        adapters[0],
        "--adapter",
        adapters[1],
    ];
    let expected = draw(
        "expected.png",
        &[beside.as_slice(), ["--fuse"].as_slice()].concat(),
    );
    let pairs = fused.iter().zip(&expected);
    assert!(pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap() <= 1);
    assert_ne!(fused, draw("base.png", &[&model]));

    // Everything else is as it was.
    for same in [
        "model_index.json",
        "tokenizer/vocab.json",
        "unet/config.json",
    ] {
        let old = fs::read(Path::new(&model).join(same)).unwrap();
        assert_eq!(selma.read(&format!("fused/{same}")), old);
    }
    let vae = weights(Path::new(""), "vae");
    assert_eq!(
        fs::read(Path::new(&model).join(&vae)).unwrap(),
        fs::read(selma.path("fused").join(&vae)).unwrap()
    );
    let old = files::tensors(&weights(Path::new(&model), "unet"));
    let new = files::tensors(&weights(&selma.path("fused"), "unet"));
    let changed: Vec<&String> = old.keys().filter(|key| old[*key] != new[*key]).collect();
    assert_eq!(
        changed,
        [
            "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
            "mid_block.resnets.0.conv1.weight"
        ]
    );
    let recipe = metadata(&weights(&selma.path("fused"), "unet"));
    let hash = |name: &str| {
        Adapter::load(selma.path(name))
            .unwrap()
            .source
            .unwrap()
            .sha256
    };
    assert_eq!(recipe["adapters"][0]["sha256"], hash("a.safetensors"));
    assert_eq!(recipe["adapters"][1]["weight"], -0.5);
    let base = selma_durable::sha256(&weights(Path::new(&model), "unet")).unwrap();
    let base: String = base.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(recipe["base"], base);

    selma
        .run_with(
            "fuse --out again --model",
            &[&model, adapters[0], adapters[1]],
        )
        .ok();
    for component in ["unet", "text_encoder"] {
        let read = |folder| fs::read(weights(&selma.path(folder), component)).unwrap();
        assert_eq!(read("fused"), read("again"));
    }
}

#[test]
fn a_single_file_is_fused_as_its_folder_is() {
    for (pipeline, layers) in [
        ("tiny-sd", vec![QUERY, CONV, TEXT]),
        // In these, text encoders have the inputs of their attention in one tensor.
        ("tiny-sd-v", vec![QUERY, TEXT]),
        (
            "tiny-sdxl",
            vec![
                "unet.add_embedding.linear_1",
                "unet.up_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k",
                TEXT,
                "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj",
                "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
                "text_encoder_2.text_projection",
            ],
        ),
    ] {
        let selma = Selma::new();
        save(&selma, "a.safetensors", &adapter_of(pipeline, &layers));
        single_file(pipeline, &selma.path("single.safetensors"));
        let folder = fixture(pipeline);
        let config = folder.to_str().unwrap();
        let fuse = |model: &str, more: &[&str]| {
            let args = ["--model", model, "a.safetensors=1.5"];
            selma
                .run_with("fuse", &[args.as_slice(), more].concat())
                .ok();
        };
        fuse(
            "single.safetensors",
            &["--config", config, "--out", "fused.safetensors"],
        );
        fuse(config, &["--out", "folder"]);
        assert_eq!(
            selma.names(),
            [
                "a.safetensors",
                "folder",
                "fused.safetensors",
                "single.safetensors"
            ]
        );

        let layers = (pipeline == "tiny-sd-v").then_some(2);
        let file = Weights::open(selma.path("fused.safetensors")).unwrap();
        let single = SingleFile::new(&file, layers).unwrap();
        let mut parts = vec![
            ("unet", &single.unet().weights),
            ("text_encoder", &single.text_encoder().weights),
        ];
        if let Some(second) = single.text_encoder_2() {
            parts.push(("text_encoder_2", &second.weights));
        }
        for (component, found) in parts {
            let path = weights(&selma.path("folder"), component);
            let expected = Weights::open(path).unwrap();
            for key in expected
                .names()
                .filter(|key| !key.ends_with("position_ids"))
            {
                let values = found
                    .floats(key)
                    .or_else(|| found.floats(&format!("text_model.{key}")));
                assert_eq!(
                    values,
                    expected.floats(key),
                    "{pipeline}: {component}: {key}"
                );
            }
        }
        // Outside of the layers nothing has changed, and all keys are there in the same form.
        let old = files::tensors(&selma.path("single.safetensors"));
        let new = files::tensors(&selma.path("fused.safetensors"));
        assert!(old.keys().eq(new.keys()));
        let changed = old.keys().filter(|key| old[*key] != new[*key]);
        let named = adapter_of_len(&selma);
        assert_eq!(changed.count(), named, "{pipeline}");
        assert!(metadata(&selma.path("fused.safetensors"))["base"].is_string());
    }
}

/// Every layer of these adapters lies in a tensor of its own.
fn adapter_of_len(selma: &Selma) -> usize {
    let adapter = Adapter::load(selma.path("a.safetensors")).unwrap();
    adapter.modules.len()
}

#[test]
fn shards_stay_shards_and_weights_of_before_are_left_out() {
    let selma = Selma::new();
    save(&selma, "a.safetensors", &adapter_of("tiny-sd", &[QUERY]));
    copy_folder(Path::new(&tiny_sd()), &selma.path("model"));
    let whole = weights(&selma.path("model"), "unet");
    let mut first = files::tensors(&whole);
    let second = first.split_off("mid_block.");
    let index: serde_json::Map<String, Value> = first
        .keys()
        .map(|key| (key, "one.safetensors"))
        .chain(second.keys().map(|key| (key, "two.safetensors")))
        .map(|(key, file)| (key.clone(), file.into()))
        .collect();
    let index = serde_json::json!({"metadata": {}, "weight_map": index}).to_string();
    let name = "diffusion_pytorch_model.safetensors.index.json";
    fs::write(whole.with_file_name(name), &index).unwrap();
    files::write(&whole.with_file_name("one.safetensors"), &first);
    files::write(&whole.with_file_name("two.safetensors"), &second);
    fs::rename(&whole, selma.path("whole.safetensors")).unwrap();
    selma.write("model/unet/diffusion_pytorch_model.bin", "old");
    selma.write("model/all.ckpt", "old");

    let ended = selma
        .run("fuse --model model --out fused a.safetensors")
        .ok();
    for part in ["unet/diffusion_pytorch_model.bin", "all.ckpt"] {
        assert!(
            ended.stderr.contains(&format!("left out model/{part}")),
            "{}",
            ended.stderr
        );
        assert!(!selma.path("fused").join(part).exists());
    }
    assert_eq!(selma.read(&format!("fused/unet/{name}")), index.as_bytes());
    assert_eq!(
        selma.read("fused/unet/two.safetensors"),
        selma.read("model/unet/two.safetensors")
    );
    assert_ne!(
        selma.read("fused/unet/one.safetensors"),
        selma.read("model/unet/one.safetensors")
    );
    selma
        .run("generate --steps 1 --prompt red --out p.png --model fused")
        .ok();
}

#[test]
fn what_cannot_be_fused_is_named_and_nothing_is_written() {
    let selma = Selma::new();
    let model = tiny_sd();
    save(&selma, "a.safetensors", &adapter_of("tiny-sd", &[QUERY]));
    single_file("tiny-sd", &selma.path("single.safetensors"));
    selma.write("there", "mine");
    selma.write(
        "model.ckpt",
        fs::read(fixture("torch/lightning.ckpt")).unwrap(),
    );
    let before = selma.names();
    let fuse = |model: &str, more: &[&str]| {
        selma.run_with("fuse --model", &[[model].as_slice(), more].concat())
    };
    let a = "a.safetensors";
    fuse(&model, &["--out", "there", a]).failed(&["there", "exists already"]);
    fuse(&model, &["--out", "no/fused", a]).failed(&["no/fused"]);
    fuse("single.safetensors", &["--out", "no/fused", a]).failed(&["cannot write no/fused"]);
    fuse("single.safetensors", &["--out", "./single.safetensors", a]).failed(&["is an input"]);
    fuse("single.safetensors", &["--out", a, a]).failed(&["is an input"]);
    fuse("none", &["--out", "o", a]).failed(&["none"]);
    fuse("model.ckpt", &["--out", "o", a]).failed(&["model.ckpt"]);
    fuse(&model, &["--out", "o", "none.safetensors"]).failed(&["none.safetensors"]);
    // Layers that the model does not have, or of another shape.
    fuse(&model, &["--out", "o", &expert('b')]).failed(&[
        "cannot fuse into",
        "tiny-sd",
        "expert_b.safetensors: ",
        "model [",
    ]);
    save(
        &selma,
        "sdxl.safetensors",
        &adapter_of("tiny-sdxl", &["unet.add_embedding.linear_1"]),
    );
    for model in [model.as_str(), "single.safetensors"] {
        fuse(model, &["--out", "o", "sdxl.safetensors"]).failed(&["unet.add_embedding.linear_1"]);
    }
    fs::remove_file(selma.path("sdxl.safetensors")).unwrap();
    fuse(&model, &["--out", "o"]).misused(&["FILE[=WEIGHT]"]);
    fuse(&model, &["--out", "o", "a.safetensors=inf"]).misused(&["finite"]);
    selma
        .run("fuse --out o a.safetensors")
        .misused(&["--model"]);
    assert_eq!(selma.names(), before);
    assert_eq!(selma.read("there"), b"mine");
}
