//! Recipes that come along, and folders and names that cannot be used.

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use selma::diffusion::Checkpoint;
use selma::pretrain::{PretrainRecipe, PretrainStage};
use selma::{Recipe, Run};
use selma_lora::Method;

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes")
}

#[test]
fn every_recipe_that_comes_along_can_be_used() {
    let mut found = 0;
    for entry in fs::read_dir(recipes()).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with("-pretrain.toml") {
            PretrainRecipe::load(&path).unwrap();
        } else {
            Recipe::load(&path).unwrap();
        }
        found += 1;
    }
    assert!(found >= 2, "{found}");
}

#[test]
fn the_ways_to_merge_that_are_documented_can_be_used() {
    let page = fs::read_to_string(recipes().join("../docs/recipes.md")).unwrap();
    let (_, block) = page.split_once("```toml\n[merge]\n").unwrap();
    let (documented, _) = block.split_once("```").unwrap();
    let text = fs::read_to_string(recipes().join("mini.toml")).unwrap();
    let own = "methods = [\"mean\", \"factor_mean\"]";
    assert!(text.contains(own));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    fs::write(&path, text.replace(own, documented)).unwrap();
    let recipe = Recipe::load(&path).unwrap();
    let names = recipe
        .merge
        .methods
        .iter()
        .map(|method| method.name.as_str());
    let names: Vec<&str> = names.collect();
    assert_eq!(names[..3], ["mean", "svd", "ties-0.3"]);
    // What a run keeps of it is read back.
    let kept = serde_json::to_vec(&recipe).unwrap();
    assert_eq!(serde_json::from_slice::<Recipe>(&kept).unwrap(), recipe);
}

#[test]
fn names_that_collide_are_refused() {
    let recipe = Recipe::load(&recipes().join("mini.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("run");
    let mut twice = recipe.clone();
    twice.prompts.skills.push("coco".to_owned());
    let error = Run::open(twice, &folder, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("coco twice"), "{error}");
    let mut twice = recipe.clone();
    twice.merge.methods.push(recipe.merge.methods[0].clone());
    let error = Run::open(twice, &folder, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("mean twice"), "{error}");
    let mut unset = recipe.clone();
    unset.merge.methods.push(Method::PeftTies.into());
    let error = Run::open(unset, &folder, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("density"), "{error}");
    let mut named = recipe.clone();
    named.merge.methods[0].name = "a/b".to_owned();
    let error = Run::open(named, &folder, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("\"a/b\""), "{error}");
    // Experts on faultless pictures are merged under this name, too.
    let mut named = recipe;
    named.train.filtered = true;
    named.merge.methods[1].name = "mean-filtered".to_owned();
    let error = Run::open(named, &folder, &Device::flex()).unwrap_err();
    assert!(error.to_string().contains("mean-filtered twice"), "{error}");
    assert!(!folder.exists());
}

#[test]
fn weights_are_for_the_data_of_all_skills() {
    let text = fs::read_to_string(recipes().join("mini.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("recipe.toml");
    let load = |weights: &str, union: &str| {
        let train = format!("{union}\ndata_weights = {weights}");
        fs::write(&path, text.replace("union = true", &train)).unwrap();
        Recipe::load(&path).map_err(|error| error.to_string())
    };
    load("[1, 2.5, 1, 1, 1]", "union = true").unwrap();
    for (weights, union) in [
        ("[1, 2]", "union = true"),
        ("[1, 1, 1, 1, 1]", "union = false"),
        ("[1, 0, 1, 1, 1]", "union = true"),
    ] {
        let error = load(weights, union).unwrap_err();
        assert!(error.contains("data_weights"), "{error}");
    }
}

#[test]
fn the_bundled_model_is_made_by_the_recipe_that_comes_along() {
    let recipe = PretrainRecipe::load(&recipes().join("mini-further-pretrain.toml")).unwrap();
    let made = fs::read(recipes().join("../models/mini/pretrain.json")).unwrap();
    assert_eq!(recipe, serde_json::from_slice(&made).unwrap());
}

/// Two steps from the bundled model.
fn further() -> PretrainRecipe {
    let mut recipe = PretrainRecipe::load(&recipes().join("mini-pretrain.toml")).unwrap();
    recipe.start_from = Some(recipes().join("../models/mini"));
    recipe.model.denoiser_training.steps = 2;
    recipe.model.denoiser_training.batch_size = 2;
    recipe.model.denoiser_training.pairs = 4;
    recipe
}

/// Runs both steps of the recipe, in which nothing but the denoiser is to be trained.
fn denoiser_alone(recipe: &PretrainRecipe, out: &Path) {
    let mut stages = Vec::new();
    let mut observe = |stage, _| {
        stages.push(stage);
        ControlFlow::Continue(())
    };
    recipe.run(out, &Device::flex(), &mut observe).unwrap();
    assert_eq!(stages, [PretrainStage::Denoiser; 2]);
}

#[test]
fn a_pretraining_goes_on_from_a_model() {
    let recipe = further();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    denoiser_alone(&recipe, &out);
    let file = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    let start = recipe.start_from.unwrap();
    let weights = "diffusion_pytorch_model.safetensors";
    for (name, same) in [
        (format!("vae/{weights}"), true),
        (format!("unet/{weights}"), false),
        ("vae/config.json".to_owned(), true),
        ("tokenizer/vocab.json".to_owned(), true),
    ] {
        assert_eq!(file(&out, &name) == file(&start, &name), same, "{name}");
    }
    Checkpoint::open(&out)
        .unwrap()
        .unet(&Device::flex())
        .unwrap();
}

#[test]
fn a_pretraining_does_not_go_on_from_another_architecture() {
    let mut recipe = further();
    recipe.model.unet.norm_num_groups = 8;
    let dir = tempfile::tempdir().unwrap();
    let mut stop = |_, _| ControlFlow::Break(());
    let error = recipe
        .run(&dir.path().join("model"), &Device::flex(), &mut stop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("start_from") && error.contains("unet") && error.contains("models/mini"),
        "{error}"
    );
}

#[test]
fn a_smaller_model_goes_on_from_a_larger_one() {
    let mut recipe = further();
    recipe.model.unet.mid_block_type = None;
    recipe.model.text_encoder.num_hidden_layers = 2;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("recipe.toml");
    let text = toml::to_string(&recipe).unwrap();
    fs::write(
        &file,
        text.replace(
            "[model.unet]\n",
            "[model.unet]\nmid_block_type = \"none\"\n",
        ),
    )
    .unwrap();
    assert_eq!(PretrainRecipe::load(&file).unwrap(), recipe);
    let out = dir.path().join("model");
    denoiser_alone(&recipe, &out);
    let sizes = |folder: &Path| {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let text_encoder = checkpoint.text_encoder(&Device::flex()).unwrap();
        let unet = checkpoint.unet(&Device::flex()).unwrap();
        [text_encoder.model.num_params(), unet.model.num_params()]
    };
    let (small, large) = (sizes(&out), sizes(&recipe.start_from.clone().unwrap()));
    assert_eq!(
        [large[0] - small[0], large[1] - small[1]],
        [198_272, 1_020_288]
    );

    recipe.model.text_encoder.num_hidden_layers = 4;
    let mut stop = |_, _| ControlFlow::Break(());
    let error = recipe
        .run(&dir.path().join("larger"), &Device::flex(), &mut stop)
        .unwrap_err()
        .to_string();
    assert!(error.contains("whose text_encoder"), "{error}");
}

#[test]
fn a_pretraining_takes_over_a_vae_alone() {
    let mut recipe = further();
    let start = recipe.start_from.take().unwrap();
    recipe.vae_from = Some(start.clone());
    recipe.model.unet.block_out_channels = vec![32, 64];
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("model");
    denoiser_alone(&recipe, &out);
    for name in ["config.json", "diffusion_pytorch_model.safetensors"] {
        let file = |folder: &Path| fs::read(folder.join("vae").join(name)).unwrap();
        assert!(file(&out) == file(&start), "{name}");
    }
    let checkpoint = Checkpoint::open(&out).unwrap();
    let unet = checkpoint.unet(&Device::flex()).unwrap();
    let widths = &recipe.model.unet.block_out_channels;
    assert_eq!(&unet.config.block_out_channels, widths);

    let mut stop = |_, _| ControlFlow::Break(());
    let mut refused = |recipe: &PretrainRecipe| {
        let run = recipe.run(&dir.path().join("other"), &Device::flex(), &mut stop);
        run.unwrap_err().to_string()
    };
    let mut both = recipe.clone();
    both.start_from = Some(start);
    let error = refused(&both);
    assert!(
        error.contains("vae_from") && error.contains("start_from"),
        "{error}"
    );
    recipe.model.vae.norm_num_groups = 4;
    let error = refused(&recipe);
    assert!(
        error.contains("vae_from") && error.contains("whose vae"),
        "{error}"
    );
}

#[test]
fn a_pretraining_spares_the_folders_of_others() {
    let recipe = PretrainRecipe::load(&recipes().join("mini-pretrain.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("model_index.json");
    fs::write(&index, "{}").unwrap();
    let begin = |recipe: &PretrainRecipe, folder: &Path| {
        let mut stop = |_, _| ControlFlow::Break(());
        recipe
            .run(folder, &Device::flex(), &mut stop)
            .unwrap_err()
            .to_string()
    };
    let error = begin(&recipe, dir.path());
    assert!(error.contains("not empty"), "{error}");
    assert_eq!(fs::read_to_string(&index).unwrap(), "{}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let mut wrong = recipe.clone();
    wrong.model.denoiser_training.caption_dropout = 1.5;
    let error = begin(&wrong, &dir.path().join("new"));
    assert!(
        error.contains("caption_dropout") && error.contains("1.5"),
        "{error}"
    );
    wrong.world.caption_noise = f64::NAN;
    assert!(begin(&wrong, &dir.path().join("new")).contains("caption_noise"));
    assert!(!dir.path().join("new").exists());

    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(
        own.join("pretrain.json"),
        serde_json::to_string(&recipe).unwrap(),
    )
    .unwrap();
    let mut other = recipe;
    other.world.seed += 1;
    let error = begin(&other, &own);
    assert!(error.contains("another recipe"), "{error}");
}
