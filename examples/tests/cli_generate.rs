//! `selma generate` on a Stable Diffusion of a few thousand parameters.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{Selma, copy_folder, expert, tiny_sd};
use selma_diffusion::Latents;
use selma_lora::{Adapter, Dtype, Format, init};

fn generate(selma: &Selma, args: &str) -> common::Ended {
    let model = tiny_sd();
    selma.run_with(
        &format!("generate {args} --steps 3"),
        &["--model", &model, "--prompt", "a red circle"],
    )
}

/// An adapter of one layer that the tiny model has.
fn adapter(selma: &Selma, name: &str, value: f32) {
    let path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q";
    let mut module = init::gaussian(path, &[8, 8], 2, 2.0, 0).unwrap();
    module.b.fill(value);
    let adapter = Adapter::new([(path.to_owned(), module)]);
    adapter
        .save(selma.path(name), Format::Kohya, Dtype::F32)
        .unwrap();
}

#[test]
fn the_same_flags_draw_the_same_picture() {
    let selma = Selma::new();
    let ended = generate(&selma, "--out a.png").ok();
    assert!(ended.stderr.contains("wrote a.png"), "{}", ended.stderr);
    generate(
        &selma,
        "--out b.png --seed 0 --guidance 7.5 --device flex --dtype f32",
    )
    .ok();
    assert_eq!(selma.read("a.png"), selma.read("b.png"));
    assert!(selma.read("a.png").starts_with(b"\x89PNG"));
    for other in [
        "--seed 1",
        "--guidance 1",
        "--scheduler ddim",
        "--scheduler euler",
        "--scheduler ddpm",
        "--negative blue",
        "--width 32 --height 24",
    ] {
        generate(&selma, &format!("--out other.png {other}")).ok();
        assert_ne!(selma.read("a.png"), selma.read("other.png"), "{other}");
    }
    assert_eq!(
        image::image_dimensions(selma.path("other.png")).unwrap(),
        (32, 24)
    );
    for dtype in ["f16", "bf16"] {
        generate(&selma, &format!("--out half.png --dtype {dtype}")).ok();
    }
    assert_eq!(selma.names(), ["a.png", "b.png", "half.png", "other.png"]);
}

#[test]
fn several_prompts_are_numbered_and_each_is_as_if_alone() {
    let selma = Selma::new();
    selma
        .run_with(
            "generate --steps 3 --seed 5 --out p.png --prompt red --prompt blue --model",
            &[&tiny_sd()],
        )
        .ok();
    selma
        .run_with(
            "generate --steps 3 --seed 6 --out alone.png --prompt blue --model",
            &[&tiny_sd()],
        )
        .ok();
    assert_eq!(selma.names(), ["alone.png", "p-1.png", "p-2.png"]);
    let open = |name| image::open(selma.path(name)).unwrap().into_rgb8();
    let (alone, second) = (open("alone.png"), open("p-2.png"));
    let apart = alone
        .as_raw()
        .iter()
        .zip(second.as_raw())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(apart <= Some(1), "{apart:?}");
}

#[test]
fn latents_come_in_and_go_out() {
    let selma = Selma::new();
    Latents::noise(&[0], 4, 8, 8)
        .save(selma.path("init.safetensors"))
        .unwrap();
    generate(&selma, "--out seed.png --save-latents final.safetensors").ok();
    generate(&selma, "--out file.png --init-latents init.safetensors").ok();
    assert_eq!(selma.read("seed.png"), selma.read("file.png"));
    let last = Latents::load(selma.path("final.safetensors")).unwrap();
    assert_eq!(last.shape, [1, 4, 8, 8]);
    // The picture's size and number are those of the latents.
    Latents::noise(&[0, 1], 4, 8, 6)
        .save(selma.path("two.safetensors"))
        .unwrap();
    generate(&selma, "--out two.png --init-latents two.safetensors").ok();
    let sizes =
        ["two-1.png", "two-2.png"].map(|name| image::image_dimensions(selma.path(name)).unwrap());
    assert_eq!(sizes[0], sizes[1]);
    assert_eq!(sizes[0].0 * 8, sizes[0].1 * 6);
}

#[test]
fn adapters_change_the_picture_by_their_weight() {
    let selma = Selma::new();
    adapter(&selma, "a.safetensors", 3.0);
    adapter(&selma, "zero.safetensors", 0.0);
    generate(&selma, "--out base.png").ok();
    generate(&selma, "--out one.png --adapter a.safetensors").ok();
    generate(&selma, "--out none.png --adapter a.safetensors=0").ok();
    generate(
        &selma,
        "--out both.png --adapter a.safetensors=0.4 --adapter a.safetensors=0.6",
    )
    .ok();
    let ended = generate(&selma, "--out zero.png --adapter zero.safetensors").ok();
    assert!(ended.stderr.contains("changes nothing"), "{}", ended.stderr);
    assert_ne!(selma.read("base.png"), selma.read("one.png"));
    assert_eq!(selma.read("base.png"), selma.read("none.png"));
    assert_eq!(selma.read("base.png"), selma.read("zero.png"));
    let open = |name| image::open(selma.path(name)).unwrap().into_rgb8();
    let (one, both) = (open("one.png"), open("both.png"));
    let apart = one
        .as_raw()
        .iter()
        .zip(both.as_raw())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert!(apart <= Some(2), "{apart:?}");
}

#[test]
fn an_adapter_that_does_not_fit_is_an_error() {
    let selma = Selma::new();
    // Made for a model of another size.
    selma
        .run_with(
            "generate --steps 3 --out a.png --prompt red --model",
            &[&tiny_sd(), "--adapter", &expert('a')],
        )
        .failed(&["expert_a.safetensors does not fit", "tiny-sd", "unet."]);
    generate(&selma, "--out a.png --adapter no.safetensors")
        .failed(&["no.safetensors", "No such file"]);
    assert!(selma.names().is_empty());
}

#[test]
fn a_model_that_cannot_be_used_is_named() {
    let selma = Selma::new();
    let draw = |model: &str| {
        selma.run(&format!(
            "generate --model {model} --prompt red --steps 2 --out a.png"
        ))
    };
    draw("no").failed(&["no does not exist, and is not the id of a model"]);
    let copy = |name: &str| {
        let path = selma.path(name);
        copy_folder(Path::new(&tiny_sd()), &path);
        path
    };
    let torn = copy("torn").join("unet/diffusion_pytorch_model.safetensors");
    let whole = fs::read(&torn).unwrap();
    fs::write(&torn, &whole[..whole.len() - 100]).unwrap();
    draw("torn").failed(&["torn/unet/diffusion_pytorch_model.safetensors", "complete"]);
    fs::write(&torn, "").unwrap();
    draw("torn").failed(&["torn/unet/diffusion_pytorch_model.safetensors"]);
    fs::remove_file(copy("part").join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    draw("part").failed(&[
        "part/vae/diffusion_pytorch_model.safetensors",
        "No such file",
    ]);
    let config = copy("wider").join("unet/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"cross_attention_dim\": 16", "\"cross_attention_dim\": 24"),
    )
    .unwrap();
    draw("wider")
        .failed(&["wider/unet/diffusion_pytorch_model.safetensors does not fit the model"]);
    fs::write(
        &config,
        text.replace("\"act_fn\": \"silu\"", "\"act_fn\": 7"),
    )
    .unwrap();
    draw("wider").failed(&["wider/unet/config.json"]);
    let index = copy("xl").join("model_index.json");
    fs::write(&index, "{\"_class_name\": \"StableDiffusionXLPipeline\"}").unwrap();
    draw("xl").failed(&["xl/model_index.json", "StableDiffusionXLPipeline"]);
    assert!(!selma.path("a.png").exists());
}

#[test]
fn a_request_that_cannot_be_met_is_an_error() {
    let selma = Selma::new();
    Latents::noise(&[0], 3, 8, 8)
        .save(selma.path("channels.safetensors"))
        .unwrap();
    selma.write("text.safetensors", "not latents");
    let before = selma.names();
    for (args, parts) in [
        ("--width 17", ["width", "multiple"]),
        ("--device gpu", ["gpu", "flex, wgpu, cuda"]),
        ("--device flex:1", ["flex:1", "index"]),
        (
            "--init-latents channels.safetensors",
            ["initial latents", "[1, 3, 8, 8]"],
        ),
        (
            "--init-latents text.safetensors",
            ["text.safetensors", "safetensors file"],
        ),
        (
            "--init-latents no.safetensors",
            ["no.safetensors", "No such file"],
        ),
        (
            "--seed 18446744073709551615 --prompt two",
            ["seed", "too large"],
        ),
    ] {
        generate(&selma, &format!("{args} --out a.png")).failed(&parts);
    }
    assert_eq!(selma.names(), before);
}

#[test]
fn places_that_cannot_be_written_are_named_before_anything_is_drawn() {
    let selma = Selma::new();
    generate(&selma, "--out no/a.png").failed(&["cannot write no/a.png"]);
    generate(&selma, "--out .").failed(&["cannot write .", "folder"]);
    generate(&selma, "--out a.png --save-latents no/l").failed(&["cannot write no/l"]);
    #[cfg(target_os = "linux")]
    {
        generate(&selma, "--out /dev/full").failed(&["cannot write /dev/full", "No space"]);
        generate(&selma, "--out a.png --save-latents /dev/null")
            .failed(&["/dev/null", "ordinary file"]);
        assert!(!fs::metadata("/dev/full").unwrap().is_file());
    }
    assert!(selma.names().is_empty());
}

#[test]
fn wrong_flags_are_explained() {
    let selma = Selma::new();
    let generate = "generate --model m --prompt p --out a.png";
    selma
        .run("generate --model m --out a.png")
        .misused(&["--prompt"]);
    selma
        .run(&format!("{generate} --steps 0"))
        .misused(&["--steps"]);
    selma
        .run(&format!("{generate} --scheduler plms"))
        .misused(&["ddpm, ddim, pndm, euler"]);
    selma
        .run(&format!("{generate} --dtype f64"))
        .misused(&["f32, f16, bf16"]);
    selma
        .run(&format!("{generate} --guidance inf"))
        .misused(&["--guidance", "finite"]);
    selma.run(&format!("{generate} --seed -1")).misused(&["-1"]);
    selma
        .run(&format!("{generate} --adapter =2"))
        .misused(&["--adapter"]);
}
