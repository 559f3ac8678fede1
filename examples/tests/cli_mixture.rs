//! `selma train router`, `selma train weights`, and drawing with what they make.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use common::models::adapter_of;
use common::{Selma, tiny_sd};
use image::{Rgb, RgbImage};
use selma_dataset::{DatasetWriter, Provenance};
use selma_lora::{Adapter, Dtype, Format, Mixture};

const LAYERS: [&str; 2] = [
    "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v",
];
const SMALL: &str =
    "--data data --steps 3 --batch-size 2 --gradient-accumulation 1 --learning-rate 0.01";
const EXPERTS: &str = "--experts a.safetensors b.safetensors";
const DRAW: &str = "generate --prompt cat --steps 2 --no-metadata";

/// Four pictures of the size that the tiny model takes, and two experts.
fn prepared() -> Selma {
    let selma = Selma::new();
    let mut writer = DatasetWriter::open(selma.path("data")).unwrap();
    for index in 0..4_u8 {
        let image = RgbImage::from_fn(16, 16, |x, y| Rgb([index * 40, x as u8, y as u8]));
        let name = format!("{index}.png");
        writer
            .push(&name, &image, "a cat", Provenance::default())
            .unwrap();
    }
    writer.finish().unwrap();
    for (name, factor) in [("a", 3.0), ("b", 2.0)] {
        let mut adapter = adapter_of("tiny-sd", &LAYERS);
        for module in adapter.modules.values_mut() {
            module.b.mapv_inplace(|x| x * factor);
        }
        save(&selma, name, &adapter);
    }
    selma
}

fn save(selma: &Selma, name: &str, adapter: &Adapter) {
    let path = selma.path(&format!("{name}.safetensors"));
    adapter.save(path, Format::Kohya, Dtype::F32).unwrap();
}

fn draw(selma: &Selma, options: &str) -> RgbImage {
    let model = tiny_sd();
    let command = format!("{DRAW} {options} --out drawn.png --model");
    selma.run_with(&command, &[&model]).ok();
    image::open(selma.path("drawn.png")).unwrap().into_rgb8()
}

/// The largest difference of two pictures.
fn distance(one: &RgbImage, other: &RgbImage) -> u8 {
    let differences = one.as_raw().iter().zip(other.as_raw());
    differences.map(|(x, y)| x.abs_diff(*y)).max().unwrap()
}

#[test]
fn a_router_is_trained_drawn_with_and_never_taken_for_an_adapter() {
    let selma = prepared();
    let train = format!("train router {SMALL} {EXPERTS} --out router --model");
    let ended = selma.run_with(&train, &[&tiny_sd()]).ok();
    let file = "router/mixture.safetensors";
    assert!(ended.stderr.contains(file), "{}", ended.stderr);
    let mixture = Mixture::load(selma.path(file)).unwrap();
    assert_eq!((mixture.modules.len(), mixture.experts.len()), (2, 2));
    assert_eq!(mixture.metadata["selma.steps"], "3");
    let metrics = String::from_utf8(selma.read("router/metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 3);
    // The same command has nothing to do; one that asks for something else is refused.
    let bytes = selma.read(file);
    selma.run_with(&train, &[&tiny_sd()]).ok();
    assert_eq!(selma.read(file), bytes);
    selma
        .run_with(&train, &[&tiny_sd(), "--joint"])
        .failed(&["router", "experts"]);

    let drawn = draw(&selma, &format!("--mixture {file}"));
    assert_eq!(draw(&selma, &format!("--adapter {file}")), drawn);
    assert_ne!(draw(&selma, ""), drawn);
    selma.write(
        "p.jsonl",
        "{\"id\":\"1\",\"skill\":\"s\",\"text\":\"cat\"}\n",
    );
    let images =
        format!("images --prompts p.jsonl --steps 2 --out images --mixture {file} --model");
    selma.run_with(&images, &[&tiny_sd()]).ok();

    let model = tiny_sd();
    let fused = format!("{DRAW} --mixture {file} --fuse --out f.png --model");
    selma.run_with(&fused, &[&model]).failed(&[file, "--fuse"]);
    for command in [
        format!("merge --method sum --out m.safetensors {file} a.safetensors"),
        format!("resize --rank 1 --out m.safetensors {file}"),
        format!("convert --to kohya --out m.safetensors {file}"),
    ] {
        selma.run(&command).failed(&[file, "a mixture of adapters"]);
    }
    let fuse = format!("fuse {file} --out fused --model");
    selma.run_with(&fuse, &[&model]).failed(&["a mixture"]);
    let inspected = selma.run(&format!("inspect {file}")).ok();
    assert!(inspected.text().contains(LAYERS[0]));
}

#[test]
fn weights_merge_the_experts_into_what_the_mixture_draws() {
    let selma = prepared();
    let train = format!("train weights {SMALL} {EXPERTS} --out cat --model");
    selma.run_with(&train, &[&tiny_sd()]).ok();
    let merge = "merge --method sum --weights-by-module cat/weights.json --out merged.safetensors";
    selma
        .run(&format!("{merge} a.safetensors b.safetensors"))
        .ok();
    let mixed = draw(&selma, "--mixture cat/mixture.safetensors");
    let merged = draw(&selma, "--adapter merged.safetensors");
    assert!(distance(&mixed, &merged) <= 1);
    assert!(distance(&mixed, &draw(&selma, "")) > 1);
}

#[test]
fn what_cannot_be_mixed_is_named() {
    let selma = prepared();
    let model = tiny_sd();
    save(&selma, "conv", &adapter_of("tiny-sd", &["unet.conv_in"]));
    save(
        &selma,
        "sdxl",
        &adapter_of(
            "tiny-sdxl",
            &["unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"],
        ),
    );
    let torn = selma.read("a.safetensors");
    selma.write("torn.safetensors", &torn[..torn.len() / 2]);
    for (options, parts) in [
        (
            "--experts a.safetensors --top-k 2",
            &["top_k", "1 to 1"][..],
        ),
        (
            "--experts a.safetensors b.safetensors --top-k 1",
            &["top_k", "at least 2"],
        ),
        (
            "--experts a.safetensors conv.safetensors",
            &["conv_in", "a convolution"],
        ),
        ("--experts a.safetensors sdxl.safetensors", &["attn2.to_k"]),
        ("--experts torn.safetensors", &["torn.safetensors"]),
        ("--experts a.safetensors --rank 3", &["--rank"]),
    ] {
        let train = format!("train router {SMALL} {options} --out out --model");
        selma.run_with(&train, &[&model]).failed(parts);
    }
    let train = format!("train router {SMALL} --out out --model");
    selma.run_with(&train, &[&model]).misused(&["--experts"]);
}
