//! Pretraining: what an interruption changes (nothing).

#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::Module;
use burn::tensor::Device;
use image::{Rgb, RgbImage};
use selma_diffusion::tokenizer::ClipTokenizer;
use selma_diffusion::weights::{Dtype, save};
use selma_train::pretrain::{
    Checkpoints, Foundation, PairSource, PretrainConfig, pretrain_denoiser, pretrain_vae,
    write_tokenizer,
};
use selma_train::{Observer, TrainError};
use serde_json::json;

/// Squares of one colour, named.
struct Squares;

impl PairSource for Squares {
    fn pair(&self, index: u64) -> Result<(RgbImage, String), TrainError> {
        let shade = (index * 40 % 256) as u8;
        let image = RgbImage::from_pixel(8, 8, Rgb([shade, 255 - shade, 90]));
        Ok((image, if shade > 127 { "light" } else { "dark" }.to_owned()))
    }
}

fn config() -> PretrainConfig {
    let config = json!({
        "seed": 3,
        "max_length": 6,
        "vae": {
            "block_out_channels": [4, 8],
            "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
            "layers_per_block": 1,
            "latent_channels": 2,
            "norm_num_groups": 2,
            "sample_size": 8,
        },
        "text_encoder": {
            "hidden_size": 8,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "hidden_act": "quick_gelu",
            "max_position_embeddings": 6,
        },
        "unet": {
            "sample_size": 4,
            "in_channels": 2,
            "out_channels": 2,
            "block_out_channels": [4, 8],
            "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
            "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
            "layers_per_block": 1,
            "attention_head_dim": 2,
            "cross_attention_dim": 8,
            "norm_num_groups": 2,
        },
        "scheduler": {
            "num_train_timesteps": 1000,
            "beta_schedule": "scaled_linear",
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": true
        },
        "vae_training": {"steps": 3, "decoder_steps": 2, "batch_size": 3, "learning_rate": 1e-3, "matrix_learning_rate": 2e-2, "kl_weight": 1e-6},
        "denoiser_training": {
            "steps": 5,
            "batch_size": 3,
            "pairs": 7,
            "learning_rate": 1e-3,
            "matrix_learning_rate": 2e-2,
            "caption_dropout": 0.2,
            "timesteps": {"logit_normal": {"mean": 0.5, "deviation": 1.0}},
        },
    });
    serde_json::from_value(config).unwrap()
}

fn bytes(module: &impl Module) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights.safetensors");
    save(module, &path, Dtype::F32).unwrap();
    std::fs::read(path).unwrap()
}

/// Trains without an interruption, then once for each step at which it may be stopped, and compares the weights.
fn compare(
    steps: usize,
    train: impl Fn(Option<Checkpoints<'_>>, &mut Observer<'_>) -> Result<Vec<u8>, TrainError>,
) {
    let expected = train(None, &mut |_| ControlFlow::Continue(())).unwrap();
    for stop in 1..steps {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("checkpoint.safetensors");
        let checkpoints = Some(Checkpoints {
            path: &path,
            every: 2,
        });
        let result = train(checkpoints, &mut |progress| {
            if progress.step == stop {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        assert!(matches!(result, Err(TrainError::Cancelled { step }) if step == stop));
        let mut first = None;
        let found = train(checkpoints, &mut |progress| {
            first.get_or_insert(progress.step);
            ControlFlow::Continue(())
        });
        assert_eq!(first, Some(stop / 2 * 2 + 1));
        assert!(found.unwrap() == expected, "stopped at {stop}");
    }
}

/// burn's generator, which draws the initial weights, is one for the whole process: no two pretrainings may draw from it at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn an_interrupted_vae_makes_the_same_bytes() {
    let _alone = alone();
    let config = config();
    let device = Device::flex();
    compare(5, |checkpoints, observer| {
        let (vae, scale) = pretrain_vae(&config, &Squares, &device, checkpoints, observer)?;
        assert!(scale.is_finite() && scale > 0.0);
        Ok(bytes(&vae))
    });
}

#[test]
fn the_decoder_goes_on_alone() {
    let _alone = alone();
    let device = Device::flex();
    let train = |decoder_steps| {
        let mut config = config();
        config.vae_training.decoder_steps = decoder_steps;
        let mut observer = |_| ControlFlow::Continue(());
        pretrain_vae(&config, &Squares, &device, None, &mut observer).unwrap()
    };
    let ((first, scale), (last, scale_then)) = (train(0), train(2));
    assert!(bytes(&first.encoder) == bytes(&last.encoder));
    assert!(bytes(&first.decoder) != bytes(&last.decoder));
    assert_eq!(scale, scale_then);
}

#[test]
fn an_interrupted_denoiser_makes_the_same_bytes() {
    let _alone = alone();
    let mut config = config();
    let device = Device::flex();
    let dir = tempfile::tempdir().unwrap();
    let size = write_tokenizer(dir.path(), &["dark", "light"], config.max_length).unwrap();
    config.text_encoder.vocab_size = size;
    let tokenizer = ClipTokenizer::load(dir.path()).unwrap();
    let vae = config.vae.init(&device).unwrap();
    let foundation = Foundation {
        vae: &vae,
        scaling_factor: 1.0,
        tokenizer: &tokenizer,
        start: None,
    };
    compare(config.denoiser_training.steps, |checkpoints, observer| {
        let (text_encoder, unet) = pretrain_denoiser(
            &config,
            &Squares,
            foundation,
            &device,
            checkpoints,
            observer,
        )?;
        Ok([bytes(&text_encoder), bytes(&unet)].concat())
    });
}

#[test]
fn a_torn_checkpoint_is_refused() {
    let _alone = alone();
    let config = config();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("checkpoint.safetensors");
    let checkpoints = Some(Checkpoints {
        path: &path,
        every: 2,
    });
    let train = |stop: usize| {
        pretrain_vae(
            &config,
            &Squares,
            &Device::flex(),
            checkpoints,
            &mut |progress| {
                if progress.step == stop {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )
    };
    assert!(train(3).is_err());
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 9, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = train(4).unwrap_err();
        assert!(
            matches!(&error, TrainError::Checkpoint { path: found, .. } if found == Path::new(&path)),
            "{error}"
        );
    }
}
