//! Flags that say how a model is read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use burn::tensor::FloatDType;
use clap::builder::{PossibleValuesParser, StringValueParser, TypedValueParser};
use selma_diffusion::presets::Preset;
use selma_diffusion::schedulers::PredictionType;
use selma_diffusion::single_file::SingleFile;
use selma_diffusion::{Checkpoint, CheckpointOptions, ConfigSource};

use crate::models;
use crate::terminal::say;

/// What to read instead of what the files of a model say.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FileOptions {
    /// Variant of the weight files in a model's folder or on the Hub, such as fp16.
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Configurations to use instead of the model's own, or of what the shapes in a single file tell: a folder in the
    /// layout of diffusers, of which config.json files are enough, or the name of a published model: sd14, sd15,
    /// sd2-base, sd2, sd21-base, sd21, sdxl-base.
    #[arg(long, value_name = "DIR|NAME", value_parser = config_source())]
    config: Option<ConfigSource>,
    /// Folder of the tokenizer. A single file has none; without this flag CLIP's own is used.
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
}

impl FileOptions {
    /// Where a model lies; see [`models::locate`].
    ///
    /// # Errors
    ///
    /// If there is no such file or folder, and no such model can be had.
    pub fn locate(&self, model: &Path) -> anyhow::Result<PathBuf> {
        models::locate(model, self.variant.as_deref())
    }

    /// Opens a model as the flags say, after a download if its name is an id.
    ///
    /// # Errors
    ///
    /// Those of [`locate`](Self::locate) and of [`Checkpoint::open`].
    pub fn open(&self, model: &Path) -> anyhow::Result<Checkpoint> {
        open(&self.locate(model)?, self.checkpoint_options())
    }

    fn checkpoint_options(&self) -> CheckpointOptions {
        CheckpointOptions {
            variant: self.variant.clone(),
            config: self.config.clone(),
            tokenizer: self.tokenizer.clone(),
            ..CheckpointOptions::default()
        }
    }
}

/// What to read instead of what a model that is to draw says.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ModelOptions {
    #[command(flatten)]
    files: FileOptions,
    /// VAE instead of the model's own: a folder with config.json and weights, a file of a VAE, or an id on the Hub, such as
    /// madebyollin/sdxl-vae-fp16-fix.
    #[arg(long, value_name = "DIR|FILE|ID")]
    vae: Option<PathBuf>,
}

impl ModelOptions {
    /// The same from flags of other names.
    pub fn new(
        variant: Option<String>,
        config: Option<ConfigSource>,
        tokenizer: Option<PathBuf>,
        vae: Option<PathBuf>,
    ) -> Self {
        let files = FileOptions {
            variant,
            config,
            tokenizer,
        };
        Self { files, vae }
    }

    /// The VAE, as it was asked for.
    pub fn vae(&self) -> Option<&Path> {
        self.vae.as_deref()
    }

    /// Where a model lies; see [`FileOptions::locate`].
    ///
    /// # Errors
    ///
    /// If there is no such file or folder, and no such model can be had.
    pub fn locate(&self, model: &Path) -> anyhow::Result<PathBuf> {
        self.files.locate(model)
    }

    /// Opens a model as the flags say, after a download if its name is an id; the networks are to be loaded as numbers of `dtype`.
    ///
    /// # Errors
    ///
    /// Those of [`locate`](Self::locate) and of [`Checkpoint::open`].
    pub fn open(&self, model: &Path, dtype: FloatDType) -> anyhow::Result<Checkpoint> {
        self.open_with_unet(model, dtype, dtype)
    }

    /// As [`open`](Self::open), with the weights of the UNet as numbers of a type of their own.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_with_unet(
        &self,
        model: &Path,
        dtype: FloatDType,
        unet_dtype: FloatDType,
    ) -> anyhow::Result<Checkpoint> {
        let options = CheckpointOptions {
            vae: self.vae.as_deref().map(locate_vae).transpose()?,
            dtype: Some(dtype),
            unet_dtype: Some(unet_dtype),
            ..self.files.checkpoint_options()
        };
        open(&self.locate(model)?, options)
    }
}

fn open(path: &Path, options: CheckpointOptions) -> anyhow::Result<Checkpoint> {
    let checkpoint = Checkpoint::open_with(path, options)?;
    tell_strays(&checkpoint);
    Ok(checkpoint)
}

/// Says which tensors of a single file are ignored without anything being known of them.
fn tell_strays(checkpoint: &Checkpoint) {
    let strays = checkpoint.single_file().map_or(&[][..], SingleFile::strays);
    if strays.is_empty() {
        return;
    }
    let shown: Vec<&str> = strays.iter().take(4).map(String::as_str).collect();
    let more = if strays.len() > shown.len() {
        ", .."
    } else {
        ""
    };
    say(format_args!(
        "warning: {}: {} tensors are no part of the model and are ignored: {}{more}",
        checkpoint.path().display(),
        strays.len(),
        shown.join(", ")
    ));
}

/// Tells what a single file is taken for, where it does not say it itself and no flag did.
///
/// # Errors
///
/// Those of [`Checkpoint::scheduler_config`].
pub fn tell_family(checkpoint: &Checkpoint, flag: &str) -> anyhow::Result<()> {
    let Some(single) = checkpoint.single_file() else {
        return Ok(());
    };
    let scheduler = checkpoint.scheduler_config()?;
    if scheduler == *single.scheduler() {
        let predicts = match scheduler.prediction_type() {
            PredictionType::Epsilon => "noise",
            PredictionType::VPrediction => "velocity",
            PredictionType::Sample => "the clean picture",
        };
        say(format_args!(
            "{}: taken for a model like {}, which predicts {predicts}; {flag} says otherwise",
            checkpoint.path().display(),
            single.preset().name()
        ));
    }
    Ok(())
}

/// Where a VAE lies. A VAE alone seldom has the variant of the rest.
///
/// # Errors
///
/// If there is no such file or folder, and no such model can be had.
pub fn locate_vae(vae: &Path) -> anyhow::Result<PathBuf> {
    models::locate(vae, None).context("the VAE")
}

/// Number type of the networks.
pub fn dtype() -> impl TypedValueParser<Value = FloatDType> {
    PossibleValuesParser::new(["f32", "f16", "bf16"]).map(|name| match name.as_str() {
        "f16" => FloatDType::F16,
        "bf16" => FloatDType::BF16,
        _ => FloatDType::F32,
    })
}

/// A folder with configurations, or the name of a published model.
pub fn config_source() -> impl TypedValueParser<Value = ConfigSource> {
    StringValueParser::new().try_map(|text| {
        text.parse().map_err(|_| {
            let names = Preset::ALL.map(Preset::name).join(", ");
            format!("neither a folder nor one of {names}")
        })
    })
}
