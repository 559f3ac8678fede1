//! What is encoded is kept, once, and makes no difference; nor does who makes batches, and when.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests fail by panicking"
)]

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::{Rgb, RgbImage};
use selma_dataset::{Crop, GeometryConfig};
use selma_diffusion::StableDiffusion;
use selma_lora::{Dtype, Format};
use selma_train::{
    Batch, Denoising, DiffusionDpo, Draw, Drawn, EncodingCache, Feed, Objective, PairSet, Prefetch,
    Source, TrainCheckpoints, TrainConfig, TrainError, Trainer, TrainingSet, ValidTrainConfig,
};

fn load(name: &str) -> StableDiffusion {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../selma-diffusion/tests/fixtures");
    StableDiffusion::load(fixtures.join(name), &Device::flex()).unwrap()
}

fn config() -> ValidTrainConfig {
    let config = TrainConfig {
        steps: 6,
        batch_size: 2,
        gradient_accumulation: 2,
        learning_rate: 1e-2,
        rank: 2,
        alpha: 2.0,
        caption_dropout: 0.3,
        ..TrainConfig::default()
    };
    config.validate().unwrap()
}

fn picture(index: usize) -> RgbImage {
    RgbImage::from_fn(16, 16, |x, y| {
        Rgb([index as u8 * 40, x as u8 * 15, y as u8 * 15])
    })
}

/// A set of some of five pictures, three of which have one caption.
fn set(
    pipeline: &StableDiffusion,
    cache: Option<&EncodingCache>,
    indices: &[usize],
) -> Result<TrainingSet, TrainError> {
    let samples = indices
        .iter()
        .map(|&index| Ok((picture(index), format!("picture {}", index.min(2)))));
    TrainingSet::encode(pipeline, &config(), cache, samples)
}

fn trainer(pipeline: &StableDiffusion, config: ValidTrainConfig) -> Trainer<Denoising> {
    let scheduler = &pipeline.scheduler_config;
    let objective = Denoising::new(scheduler).unwrap();
    let unet = pipeline.unet.clone();
    Trainer::new(unet, scheduler, objective, config, pipeline.device()).unwrap()
}

fn finish<O: Objective>(mut trainer: Trainer<O>, feed: &impl Feed<O::Batch>) -> Vec<u8> {
    trainer
        .run(feed, None, &mut |_| ControlFlow::Continue(()))
        .unwrap();
    let adapter = trainer.adapter().unwrap();
    adapter.to_bytes(Format::Diffusers, Dtype::F32).unwrap()
}

fn adapter(pipeline: &StableDiffusion, set: &TrainingSet) -> Vec<u8> {
    finish(trainer(pipeline, config()), set)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

const ALL: [usize; 5] = [0, 1, 2, 3, 4];

#[test]
fn what_is_in_the_cache_is_not_encoded_again_and_makes_no_difference() {
    for name in ["tiny-sd", "tiny-sdxl"] {
        let pipeline = load(name);
        let plain = set(&pipeline, None, &ALL).unwrap();
        // Five pictures, three texts, and what stands for none.
        assert_eq!(plain.report().encoded, 9);
        let expected = adapter(&pipeline, &plain);
        let dir = tempfile::tempdir().unwrap();
        let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
        // In other company than in the whole set.
        let part = set(&pipeline, Some(&cache), &ALL[..2]).unwrap();
        assert_eq!((part.report().encoded, part.report().found), (5, 0));
        for (encoded, found) in [(4, 5), (0, 9)] {
            let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
            let whole = set(&pipeline, Some(&cache), &ALL).unwrap();
            let report = whole.report();
            assert_eq!((report.encoded, report.found), (encoded, found));
            assert_eq!(whole.sha256(), plain.sha256());
            assert!(adapter(&pipeline, &whole) == expected, "{name}");
        }
        assert_eq!(files(dir.path()).len(), 9);
    }
}

#[test]
fn what_is_shown_several_times_is_encoded_once() {
    let pipeline = load("tiny-sd");
    let repeated = set(&pipeline, None, &[0, 1, 0, 0, 1]).unwrap();
    assert_eq!(repeated.len(), 5);
    assert_eq!(repeated.report().encoded, 5);
}

#[test]
fn a_damaged_file_is_told_and_made_anew() {
    let pipeline = load("tiny-sdxl");
    let dir = tempfile::tempdir().unwrap();
    let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
    let whole = set(&pipeline, Some(&cache), &ALL).unwrap();
    let expected = adapter(&pipeline, &whole);
    let files = files(dir.path());
    let before: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    fs::write(&files[1], &before[1][..before[1].len() / 2]).unwrap();
    fs::write(&files[3], b"").unwrap();
    let mut flipped = before[7].clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&files[7], flipped).unwrap();
    fs::remove_file(&files[8]).unwrap();

    // A training that is at work does not go on with them.
    let mut trainer = trainer(&pipeline, config());
    let error = trainer
        .run(&whole, None, &mut |_| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(error.contains(".safetensors is "), "{error}");

    let again = set(&pipeline, Some(&cache), &ALL).unwrap();
    let report = again.report();
    assert_eq!((report.encoded, report.found), (4, 5));
    let mut damaged = report.damaged.clone();
    damaged.sort();
    assert_eq!(damaged, [1, 3, 7].map(|index: usize| files[index].clone()));
    for (path, bytes) in files.iter().zip(before) {
        assert!(fs::read(path).unwrap() == bytes, "{}", path.display());
    }
    assert!(adapter(&pipeline, &again) == expected);
}

#[test]
fn encoders_have_files_of_their_own_and_the_unet_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let counts = |pipeline: &StableDiffusion| {
        let cache = EncodingCache::open(dir.path(), pipeline).unwrap();
        let set = set(pipeline, Some(&cache), &ALL).unwrap();
        (set.report().encoded, set.report().found)
    };
    let pipeline = load("tiny-sd");
    assert_eq!(counts(&pipeline), (9, 0));
    let mut other = pipeline.clone();
    other.unet = load("tiny-sd-v").unet;
    other.vae.decoder = load("tiny-sd-v").vae.decoder;
    assert_eq!(counts(&other), (0, 9));
    let mut other = pipeline.clone();
    other.vae.encoder = load("tiny-sd-v").vae.encoder;
    assert_eq!(counts(&other), (5, 4));
    let mut other = pipeline.clone();
    other.vae_config.scaling_factor *= 2.0;
    assert_eq!(counts(&other), (5, 4));
    let mut other = pipeline;
    other.text_encoder.config.layer_norm_eps *= 2.0;
    assert_eq!(counts(&other), (4, 5));
}

#[test]
fn pictures_that_look_alike_when_cut_have_time_ids_of_their_own() {
    let pipeline = load("tiny-sdxl");
    let config = TrainConfig {
        geometry: GeometryConfig {
            resolution: Some(16),
            crop: Crop::Center,
            ..GeometryConfig::default()
        },
        ..(*config()).clone()
    };
    let config = config.validate().unwrap();
    let sizes = [(16, 16), (48, 16), (16, 24)];
    let samples = sizes.map(|(width, height)| {
        let image = RgbImage::from_pixel(width, height, Rgb([9, 99, 199]));
        Ok((image, "a picture".to_owned()))
    });
    let dir = tempfile::tempdir().unwrap();
    let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
    let set = TrainingSet::encode::<TrainError>(&pipeline, &config, Some(&cache), samples).unwrap();
    assert_eq!(set.report().encoded, 3, "one picture and two texts");
    let mut seen = Vec::new();
    for pass in 0..3 {
        let drawn = make(&set, &config, pass);
        for ids in drawn.batch.conditioning.added.unwrap().time_ids {
            seen.push(ids.values().map(|value| value as usize));
        }
    }
    seen.sort_unstable();
    seen.dedup();
    let expected = [
        [16, 16, 0, 0, 16, 16],
        [16, 48, 0, 16, 16, 16],
        [24, 16, 4, 0, 16, 16],
    ];
    assert_eq!(seen, expected);
}

fn make(set: &TrainingSet, config: &ValidTrainConfig, pass: usize) -> Drawn<Batch> {
    set.make(&Draw {
        config,
        pass,
        timesteps: 1000,
        device: &Device::flex(),
    })
    .unwrap()
}

#[test]
fn threads_that_make_batches_ahead_change_nothing() {
    let pipeline = load("tiny-sd");
    let dir = tempfile::tempdir().unwrap();
    let cache = EncodingCache::open(&dir.path().join("cache"), &pipeline).unwrap();
    let set = set(&pipeline, Some(&cache), &ALL).unwrap();
    let expected = adapter(&pipeline, &set);
    for threads in [0, 1, 3] {
        let folder = dir.path().join(threads.to_string());
        let kept = TrainCheckpoints {
            folder: &folder,
            every: 10,
            keep: 1,
        };
        let mut first = trainer(&pipeline, config());
        let mut times = Vec::new();
        let stopped = std::thread::scope(|scope| {
            let feed = Prefetch::start(scope, &set, &first, threads);
            first.run(&feed, Some(kept), &mut |progress| {
                times.push(progress.time.unwrap());
                match progress.step {
                    3 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
        });
        assert!(matches!(stopped, Err(TrainError::Cancelled { step: 3 })));
        assert!(times.iter().all(|time| time.waited <= time.whole));
        let second = Trainer::resume(
            pipeline.unet.clone(),
            &pipeline.scheduler_config,
            Denoising::new(&pipeline.scheduler_config).unwrap(),
            config(),
            &TrainCheckpoints::latest(&folder).unwrap().unwrap(),
            pipeline.device(),
        )
        .unwrap();
        let bytes = std::thread::scope(|scope| {
            let feed = Prefetch::start(scope, &set, &second, threads);
            finish(second, &feed)
        });
        assert!(bytes == expected, "{threads} threads");
    }
}

#[test]
fn an_error_of_the_data_comes_out_of_the_threads() {
    let pipeline = load("tiny-sd");
    let dir = tempfile::tempdir().unwrap();
    let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
    let set = set(&pipeline, Some(&cache), &ALL).unwrap();
    for path in files(dir.path()) {
        fs::remove_file(path).unwrap();
    }
    let mut trainer = trainer(&pipeline, config());
    let error = std::thread::scope(|scope| {
        let feed = Prefetch::start(scope, &set, &trainer, 2);
        trainer.step(&feed).unwrap_err().to_string()
    });
    assert!(error.contains("gone"), "{error}");
}

#[test]
fn trainings_at_the_same_time_share_a_cache() {
    let pipeline = load("tiny-sd");
    let expected = adapter(&pipeline, &set(&pipeline, None, &ALL).unwrap());
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
                    let set = set(&pipeline, Some(&cache), &ALL).unwrap();
                    assert!(set.report().damaged.is_empty());
                    adapter(&pipeline, &set)
                })
            })
            .collect();
        for thread in threads {
            assert!(thread.join().unwrap() == expected);
        }
    });
    assert_eq!(files(dir.path()).len(), 9);
}

#[test]
fn pairs_use_the_same_files() {
    let pipeline = load("tiny-sd");
    let pairs = |cache: Option<&EncodingCache>| {
        let pairs = [(0, 1), (1, 2), (3, 0)]
            .map(|(better, worse)| Ok((picture(better), picture(worse), "picture 0".to_owned())));
        PairSet::encode::<TrainError>(&pipeline, &config(), cache, pairs).unwrap()
    };
    let trained = |set: &PairSet| {
        let scheduler = &pipeline.scheduler_config;
        let objective = DiffusionDpo::new(scheduler, 50.0).unwrap();
        let (unet, device) = (pipeline.unet.clone(), pipeline.device());
        let trainer = Trainer::new(unet, scheduler, objective, config(), device).unwrap();
        finish(trainer, set)
    };
    let plain = pairs(None);
    assert_eq!(plain.report().encoded, 6);
    let dir = tempfile::tempdir().unwrap();
    let cache = EncodingCache::open(dir.path(), &pipeline).unwrap();
    set(&pipeline, Some(&cache), &ALL).unwrap();
    let cached = pairs(Some(&cache));
    assert_eq!((cached.report().encoded, cached.report().found), (0, 6));
    assert_eq!(cached.sha256(), plain.sha256());
    assert!(trained(&cached) == trained(&plain));
}

#[test]
fn data_sets_are_shown_by_their_weights() {
    let pipeline = load("tiny-sd");
    let config = TrainConfig {
        data_weights: vec![3.0, 1.0],
        ..(*config()).clone()
    };
    let config = config.validate().unwrap();
    let whole = set(&pipeline, None, &ALL).unwrap();
    // One picture of the first, four of the second.
    let split = whole.clone().split(&[1, 4], &config).unwrap();
    assert_ne!(split.sha256(), whole.sha256());
    let mut first = 0;
    for pass in 0..200 {
        let samples = make(&split, &config, pass).samples;
        first += samples.iter().filter(|sample| **sample == 0).count();
    }
    assert!((270..330).contains(&first), "{first} of 400");
    for parts in [&[5][..], &[1, 2, 2], &[1, 3]] {
        let error = whole.clone().split(parts, &config).unwrap_err().to_string();
        assert!(error.contains("data_weights"), "{error}");
    }
    let mut trainer = trainer(&pipeline, config);
    let error = trainer.step(&whole).unwrap_err().to_string();
    assert!(error.contains("data_weights"), "{error}");
}
