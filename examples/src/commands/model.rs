//! Flags that say how a model is read.

use std::path::{Path, PathBuf};

use clap::builder::{OsStringValueParser, TypedValueParser};
use selma_diffusion::presets::Preset;
use selma_diffusion::single_file::SingleFile;
use selma_diffusion::{Checkpoint, CheckpointOptions, ConfigSource};

use crate::models;
use crate::terminal::say;

/// What to read instead of what the model says.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ModelOptions {
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

impl ModelOptions {
    /// Nothing but a variant.
    pub fn of_variant(variant: Option<String>) -> Self {
        Self {
            variant,
            ..Self::default()
        }
    }

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
        let options = CheckpointOptions {
            variant: self.variant.clone(),
            config: self.config.clone(),
            tokenizer: self.tokenizer.clone(),
        };
        let checkpoint = Checkpoint::open_with(self.locate(model)?, options)?;
        tell_strays(&checkpoint);
        Ok(checkpoint)
    }
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

/// A folder that is there goes before a name.
fn config_source() -> impl TypedValueParser<Value = ConfigSource> {
    OsStringValueParser::new().try_map(|value| {
        let folder = PathBuf::from(&value);
        if folder.is_dir() {
            return Ok(ConfigSource::Folder(folder));
        }
        let name = value.to_string_lossy();
        name.parse().map(ConfigSource::Preset).map_err(|_| {
            let names = Preset::ALL.map(Preset::name).join(", ");
            format!("neither a folder nor one of {names}")
        })
    })
}
