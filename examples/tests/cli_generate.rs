//! `selma generate` on a Stable Diffusion of a few thousand parameters.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{Selma, copy_folder, expert, tiny_sd, tiny_sdxl};
use safetensors::tensor::TensorView;
use selma_diffusion::{Latents, png};
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
        "--guidance-rescale 0.7",
        "--scheduler ddim --scheduler-config timestep_spacing=trailing",
        "--clip-skip 1",
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
    assert!(apart(&selma, "alone.png", "p-2.png") <= 1);
}

fn apart(selma: &Selma, one: &str, other: &str) -> u8 {
    let open = |name| image::open(selma.path(name)).unwrap().into_rgb8();
    let (one, other) = (open(one), open(other));
    assert_eq!(one.dimensions(), other.dimensions());
    let pairs = one.as_raw().iter().zip(other.as_raw());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn each_prompt_has_as_many_pictures_as_were_asked_for_in_any_batch() {
    let selma = Selma::new();
    let draw = |args: &str| {
        selma
            .run_with(&format!("generate --steps 3 {args} --model"), &[&tiny_sd()])
            .ok()
    };
    let prompts = "--prompt red --prompt blue --negative green --negative grey";
    draw(&format!(
        "{prompts} --images-per-prompt 2 --seed 7,9-11 --out one.png"
    ));
    draw(&format!(
        "{prompts} --images-per-prompt 2 --seed 7,9-11 --batch-size 3 --save-latents l --out three.png"
    ));
    draw("--prompt blue --negative grey --seed 11 --out alone.png");
    for number in 1..=4 {
        let names = [format!("one-{number}.png"), format!("three-{number}.png")];
        assert!(apart(&selma, &names[0], &names[1]) <= 1, "{number}");
    }
    assert!(apart(&selma, "one-4.png", "alone.png") <= 1);
    assert_eq!(Latents::load(selma.path("l")).unwrap().shape, [4, 4, 8, 8]);
    // Several seeds are several pictures of one prompt.
    draw("--prompt blue --negative grey --seed 3 --seed 11 --out two.png");
    assert_eq!(selma.read("two-2.png"), selma.read("alone.png"));
}

#[test]
fn a_picture_is_where_another_starts() {
    let selma = Selma::new();
    image::RgbImage::from_fn(21, 13, |x, y| image::Rgb([x as u8 * 12, y as u8 * 19, 90]))
        .save(selma.path("start.png"))
        .unwrap();
    generate(&selma, "--init-image start.png --strength 0.7 --out a.png").ok();
    generate(&selma, "--init-image start.png --strength 1 --out b.png").ok();
    generate(
        &selma,
        "--init-image start.png --width 16 --height 16 --out c.png",
    )
    .ok();
    let size = |name| image::image_dimensions(selma.path(name)).unwrap();
    assert_eq!(
        [size("a.png"), size("b.png"), size("c.png")],
        [(20, 12), (20, 12), (16, 16)]
    );
    assert_ne!(selma.read("a.png"), selma.read("b.png"));
    let used = png::describe(selma.path("a.png"))
        .unwrap()
        .settings
        .unwrap();
    let used = used.init_image.unwrap();
    assert_eq!((used.file.name.as_str(), used.strength), ("start.png", 0.7));
}

#[test]
fn a_picture_says_how_it_was_drawn() {
    let selma = Selma::new();
    adapter(&selma, "a.safetensors", 3.0);
    let args = "--out a.png --seed 5 --scheduler euler --scheduler-config use_exponential_sigmas=true --adapter a.safetensors=0.5";
    generate(&selma, args).ok();
    let ended = selma.run("inspect a.png").ok();
    for part in [
        "16x16",
        "a red circle",
        "seed",
        "euler",
        "\"use_exponential_sigmas\":true",
        "tiny-sd (sha256 ",
        "a.safetensors (sha256 ",
        "weight 0.5",
    ] {
        assert!(ended.text().contains(part), "{part}: {}", ended.text());
    }
    let json: serde_json::Value =
        serde_json::from_slice(&selma.run("inspect a.png --json").ok().stdout).unwrap();
    assert_eq!(json["settings"]["seed"], 5);
    let parameters = json["parameters"].as_str().unwrap();
    assert!(parameters.contains("Sampler: Euler, Schedule type: Exponential, CFG scale: 7.5"));
    generate(&selma, &format!("{args} --no-metadata --out bare.png")).misused(&["--out"]);
    generate(&selma, "--no-metadata --out bare.png").ok();
    let ended = selma.run("inspect bare.png").ok();
    assert!(
        ended.text().contains("none in the file"),
        "{}",
        ended.text()
    );
    selma.write("torn.png", &selma.read("a.png")[..100]);
    selma.run("inspect torn.png").failed(&["torn.png", "PNG"]);
}

#[test]
fn tiles_change_nothing_where_one_is_enough() {
    let selma = Selma::new();
    generate(&selma, "--no-metadata --out whole.png").ok();
    generate(&selma, "--no-metadata --vae-tiling --out tiled.png").ok();
    generate(
        &selma,
        "--no-metadata --vae-tiling --vae-tile-size 8 --out small.png",
    )
    .ok();
    assert_eq!(selma.read("whole.png"), selma.read("tiled.png"));
    assert_ne!(selma.read("whole.png"), selma.read("small.png"));
}

#[test]
fn fused_adapters_draw_the_same_picture() {
    let selma = Selma::new();
    adapter(&selma, "a.safetensors", 3.0);
    generate(&selma, "--out beside.png --adapter a.safetensors=0.7").ok();
    let ended = generate(&selma, "--out fused.png --adapter a.safetensors=0.7 --fuse").ok();
    assert!(ended.stderr.contains("1 layers"), "{}", ended.stderr);
    assert!(apart(&selma, "beside.png", "fused.png") <= 1);
    generate(
        &selma,
        "--out half.png --adapter a.safetensors=0.7 --fuse --dtype f16",
    )
    .ok();
    generate(
        &selma,
        "--out half.png --adapter a.safetensors=0.7 --dtype bf16",
    )
    .ok();
}

/// A full difference is no LoRA, and goes into the weights.
#[test]
fn adapters_of_other_kinds_draw_too() {
    let selma = Selma::new();
    adapter(&selma, "lora.safetensors", 3.0);
    let adapter = Adapter::load(selma.path("lora.safetensors")).unwrap();
    let (path, module) = adapter.modules.first_key_value().unwrap();
    let delta = module.delta().unwrap();
    let bytes: Vec<u8> = delta.iter().flat_map(|value| value.to_le_bytes()).collect();
    let view = TensorView::new(safetensors::Dtype::F32, vec![8, 8], &bytes).unwrap();
    let key = format!("lora_{}.diff", path.replace('.', "_"));
    let file = safetensors::serialize([(key, view)], None).unwrap();
    selma.write("diff.safetensors", file);
    for name in ["lora", "diff"] {
        let ended = generate(
            &selma,
            &format!("--out {name}.png --adapter {name}.safetensors=0.7"),
        );
        assert!(ended.ok().stderr.contains("1 layers, weight 0.7"));
    }
    assert!(apart(&selma, "lora.png", "diff.png") <= 1);
    let told = selma.run("inspect diff.png --json").ok();
    let told: serde_json::Value = serde_json::from_str(told.text()).unwrap();
    assert_eq!(
        told.pointer("/settings/adapters/0/fused"),
        Some(&true.into()),
        "{told}"
    );
}

#[test]
fn a_vae_from_elsewhere_is_used() {
    let selma = Selma::new();
    copy_folder(Path::new(&tiny_sd()), &selma.path("blind"));
    fs::rename(selma.path("blind/vae"), selma.path("elsewhere")).unwrap();
    generate(&selma, "--no-metadata --out own.png").ok();
    let blind = "generate --steps 3 --model blind --no-metadata";
    let prompt = ["--prompt", "a red circle"];
    selma
        .run_with(&format!("{blind} --vae elsewhere --out other.png"), &prompt)
        .ok();
    assert_eq!(selma.read("own.png"), selma.read("other.png"));
    selma
        .run_with(
            "generate --steps 1 --model blind --vae elsewhere --out told.png",
            &prompt,
        )
        .ok();
    let told = selma.run("inspect told.png").ok();
    let row = told.text().lines().find(|line| line.starts_with("VAE"));
    assert!(
        row.is_some_and(|row| row.contains("elsewhere (sha256 ")),
        "{}",
        told.text()
    );
    selma
        .run_with(&format!("{blind} --out none.png"), &prompt)
        .failed(&["blind/vae/config.json"]);
    selma
        .run_with(&format!("{blind} --vae nowhere --out none.png"), &prompt)
        .failed(&["the VAE: nowhere does not exist"]);
}

#[test]
fn what_a_text_encoder_does_not_see_is_told() {
    let selma = Selma::new();
    let long = format!("{}and a cat", "the ".repeat(75));
    let ended = selma
        .run_with(
            "generate --steps 1 --out long.png --model",
            &[&tiny_sd(), "--prompt", &long, "--prompt", "red"],
        )
        .ok();
    let told: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("cut off"))
        .collect();
    assert_eq!(told.len(), 1, "{}", ended.stderr);
    assert!(told[0].ends_with("and a cat"), "{}", told[0]);
}

#[test]
fn sdxl_draws_at_its_own_guidance() {
    let selma = Selma::new();
    let draw = |name: &str, guidance: &[&str]| {
        let model = tiny_sdxl();
        let args = [&["--model", &model, "--prompt", "red"], guidance].concat();
        selma
            .run_with(
                &format!("generate --steps 2 --no-metadata --out {name}"),
                &args,
            )
            .ok();
        selma.read(name)
    };
    let own = draw("own.png", &[]);
    assert_eq!(own, draw("five.png", &["--guidance", "5"]));
    assert_ne!(own, draw("other.png", &["--guidance", "7.5"]));
    draw("half.png", &["--dtype", "f16"]);
}

#[test]
fn sdxl_is_told_sizes() {
    let selma = Selma::new();
    let draw = |out: &str, sizes: &str| {
        let model = tiny_sdxl();
        let args = ["--model", &model, "--prompt", "red"];
        selma.run_with(&format!("generate --steps 2 --out {out} {sizes}"), &args)
    };
    draw("own.png", "").ok();
    draw("same.png", "--crop 0,0").ok();
    assert_eq!(apart(&selma, "own.png", "same.png"), 0);
    let told = "--original-size 8x4 --crop 2,1 --target-size 8x8";
    draw("told.png", told).ok();
    assert_ne!(apart(&selma, "own.png", "told.png"), 0);
    let shown = selma.run("inspect told.png").ok();
    let sizes = "\"original_size\":[4,8],\"crops_coords_top_left\":[1,2],\"target_size\":[8,8]";
    assert!(shown.text().contains(sizes), "{}", shown.text());
    assert!(
        !selma
            .run("inspect own.png")
            .ok()
            .text()
            .contains("sizes told")
    );
    draw("wrong.png", "--original-size 8").misused(&["WIDTHxHEIGHT"]);
    draw("wrong.png", "--crop 8x8").misused(&["X,Y"]);
    generate(&selma, "--out wrong.png --crop 1,1").failed(&["not SDXL"]);
    assert!(!selma.path("wrong.png").exists());
}

#[test]
fn latents_come_in_and_go_out() {
    let selma = Selma::new();
    Latents::noise(&[0], 4, 8, 8)
        .save(selma.path("init.safetensors"))
        .unwrap();
    generate(&selma, "--out seed.png --save-latents final.safetensors").ok();
    generate(&selma, "--out file.png --init-latents init.safetensors").ok();
    assert_eq!(apart(&selma, "seed.png", "file.png"), 0);
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
    generate(&selma, "--out base.png --no-metadata").ok();
    generate(&selma, "--out one.png --adapter a.safetensors").ok();
    generate(
        &selma,
        "--out none.png --adapter a.safetensors=0 --no-metadata",
    )
    .ok();
    generate(
        &selma,
        "--out both.png --adapter a.safetensors=0.4 --adapter a.safetensors=0.6",
    )
    .ok();
    let ended = generate(
        &selma,
        "--out zero.png --no-metadata --adapter zero.safetensors",
    )
    .ok();
    assert!(ended.stderr.contains("changes nothing"), "{}", ended.stderr);
    assert_ne!(selma.read("base.png"), selma.read("one.png"));
    assert_eq!(selma.read("base.png"), selma.read("none.png"));
    assert_eq!(selma.read("base.png"), selma.read("zero.png"));
    assert!(apart(&selma, "one.png", "both.png") <= 2);
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
    // What it was made for is told where that is known.
    let path = "unet.down_blocks.2.attentions.0.transformer_blocks.5.attn1.to_q";
    let module = init::gaussian(path, &[1280, 1280], 1, 1.0, 0).unwrap();
    Adapter::new([(path.to_owned(), module)])
        .save(selma.path("xl.safetensors"), Format::Kohya, Dtype::F16)
        .unwrap();
    generate(&selma, "--out a.png --adapter xl.safetensors")
        .failed(&["xl.safetensors, an adapter for sdxl, does not fit"]);
    fs::remove_file(selma.path("xl.safetensors")).unwrap();
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
    draw("no").failed(&["no does not exist", "OWNER/NAME"]);
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
        "part/vae has no weights",
        "diffusion_pytorch_model.safetensors",
    ]);
    let config = copy("wider").join("unet/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("\"cross_attention_dim\": 16", "\"cross_attention_dim\": 24"),
    )
    .unwrap();
    draw("wider").failed(&[
        "wider/unet/config.json",
        "cross_attention_dim",
        "wider/text_encoder/config.json",
    ]);
    fs::write(
        &config,
        text.replace("\"layers_per_block\": 1", "\"layers_per_block\": 2"),
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
    let index = copy("other").join("model_index.json");
    fs::write(&index, "{\"_class_name\": \"FluxPipeline\"}").unwrap();
    draw("other").failed(&["other/model_index.json", "FluxPipeline"]);
    let index = copy("xl").join("model_index.json");
    fs::write(&index, "{\"_class_name\": \"StableDiffusionXLPipeline\"}").unwrap();
    draw("xl").failed(&["xl/text_encoder_2"]);
    let scheduler = copy("deis").join("scheduler/scheduler_config.json");
    fs::write(&scheduler, "{\"_class_name\": \"DEISMultistepScheduler\"}").unwrap();
    draw("deis").failed(&[
        "deis/scheduler/scheduler_config.json",
        "DEISMultistepScheduler",
        "--scheduler NAME",
    ]);
    let shown = selma.run("inspect deis").ok();
    assert!(
        shown
            .text()
            .contains("DEISMultistepScheduler (not implemented")
    );
    assert!(!selma.path("a.png").exists());
}

#[test]
fn a_request_that_cannot_be_met_is_an_error() {
    let selma = Selma::new();
    Latents::noise(&[0], 3, 8, 8)
        .save(selma.path("channels.safetensors"))
        .unwrap();
    selma.write("text.safetensors", "not latents");
    image::RgbImage::new(16, 16)
        .save(selma.path("p.png"))
        .unwrap();
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
        (
            "--seed 1-3 --images-per-prompt 2",
            ["3 seeds", "2 pictures"],
        ),
        ("--negative a --negative b", ["--negative", "1 prompts"]),
        (
            "--init-image text.safetensors",
            ["text.safetensors", "picture"],
        ),
        (
            "--init-image p.png --strength 0.1",
            ["strength", "no step of 3"],
        ),
        ("--init-image no.png", ["no.png", "No such file"]),
        (
            "--scheduler-config use_karras=true",
            ["use_karras", "use_karras_sigmas"],
        ),
        (
            "--scheduler-config steps_offset=one",
            ["steps_offset", "expected usize"],
        ),
        (
            "--scheduler euler_karras --scheduler-config use_karras_sigmas=false",
            ["use_karras_sigmas", "euler_karras"],
        ),
        (
            "--scheduler ddim --scheduler-config thresholding=true",
            ["ddim", "thresholding"],
        ),
        ("--scheduler euler --eta 0.5", ["euler", "eta"]),
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
        .run(&format!("{generate} --seed 5-2"))
        .misused(&["larger"]);
    selma
        .run(&format!("{generate} --init-image i.png --strength 1.1"))
        .misused(&["--strength", "0 to 1"]);
    selma
        .run(&format!("{generate} --strength 0.5"))
        .misused(&["--init-image"]);
    selma
        .run(&format!("{generate} --fuse"))
        .misused(&["--adapter"]);
    selma
        .run(&format!("{generate} --scheduler-config steps_offset"))
        .misused(&["KEY=VALUE"]);
    selma
        .run(&format!("{generate} --adapter =2"))
        .misused(&["--adapter"]);
}
