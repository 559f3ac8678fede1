//! Adapters for a picture.

use std::path::Path;

use anyhow::{Context, bail};
use selma_diffusion::png::UsedFile;
use selma_diffusion::{DiffusionError, StableDiffusion};
use selma_lora::{Adapter, AdapterFile, LoadReport, LoraError, Mixture, Model};

use crate::commands::values::{WeightedFile, advise, cause};
use crate::terminal::say;

/// An adapter of any kind.
#[derive(Debug)]
pub enum AnyAdapter {
    /// LoRAs alone.
    Lora(Adapter),
    /// Others among them.
    Other(AdapterFile),
    /// Several with learned weights.
    Mixture { mixture: Mixture, file: UsedFile },
}

impl AnyAdapter {
    /// Reads a file or folder.
    ///
    /// # Errors
    ///
    /// Those of [`AdapterFile::load`] and [`Mixture::load`].
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        match Adapter::load(path) {
            Ok(adapter) => Ok(Self::Lora(adapter)),
            Err(error) if matches!(cause(&error), LoraError::IsMixture) => Ok(Self::Mixture {
                mixture: Mixture::load(path)?,
                file: UsedFile::of(path)?,
            }),
            Err(error) if matches!(cause(&error), LoraError::OtherKind { .. }) => {
                let file = AdapterFile::load(path, None);
                file.map(Self::Other).map_err(advise)
            }
            Err(error) => Err(advise(error)),
        }
    }

    /// A hash of what it does: of LoRAs and mixtures of their numbers, of others of the file.
    pub fn sha256(&self) -> String {
        match self {
            Self::Lora(adapter) => adapter.sha256(),
            Self::Other(file) => file.source.sha256.clone(),
            Self::Mixture { mixture, .. } => mixture.sha256(),
        }
    }

    /// Whether a part of it can only be in the weights.
    pub fn is_dense(&self) -> bool {
        matches!(self, Self::Other(_))
    }

    /// Hash of the file that it was read from.
    pub fn file_sha256(&self) -> &str {
        match self {
            Self::Lora(adapter) => adapter.source.as_ref().map_or("", |source| &source.sha256),
            Self::Other(file) => &file.source.sha256,
            Self::Mixture { file, .. } => &file.sha256,
        }
    }

    fn attach(
        &self,
        pipeline: &mut StableDiffusion,
        name: &str,
        weight: f64,
    ) -> Result<Vec<LoadReport>, DiffusionError> {
        match self {
            Self::Lora(adapter) => pipeline.attach(adapter, name, weight),
            Self::Other(file) => pipeline.attach(file, name, weight),
            Self::Mixture { mixture, .. } => pipeline.attach(mixture, name, weight),
        }
    }
}

/// Reads all adapters of a command, which are to be in the weights if `fuse`.
///
/// # Errors
///
/// Those of [`AnyAdapter::load`], and if a mixture is to be in the weights.
pub fn load(
    files: &[WeightedFile],
    fuse: bool,
) -> anyhow::Result<Vec<(&WeightedFile, AnyAdapter)>> {
    let files = files.iter();
    files
        .map(|file| {
            let adapter = AnyAdapter::load(&file.path)?;
            if fuse && matches!(adapter, AnyAdapter::Mixture { .. }) {
                let path = file.path.display();
                bail!("{path} is a mixture of adapters, which no weights hold; leave out --fuse");
            }
            Ok((file, adapter))
        })
        .collect()
}

/// Adds the adapters to the model, in the weights if `fuse`, and says what they reach.
pub fn attach(
    pipeline: &mut StableDiffusion,
    model: &Path,
    adapters: &[(&WeightedFile, AnyAdapter)],
    fuse: bool,
) -> anyhow::Result<()> {
    for (index, (file, adapter)) in adapters.iter().enumerate() {
        let path = file.path.display();
        let reports = adapter
            .attach(pipeline, &format!("adapter {index}"), file.weight)
            .with_context(|| {
                let made_for = match adapter {
                    AnyAdapter::Lora(adapter) => Model::of(adapter),
                    AnyAdapter::Other(_) | AnyAdapter::Mixture { .. } => None,
                };
                let made_for = made_for.map(|made_for| format!(", an adapter for {made_for},"));
                let made_for = made_for.unwrap_or_default();
                format!("{path}{made_for} does not fit {}", model.display())
            })?;
        let matched: usize = reports.iter().map(|report| report.matched.len()).sum();
        let zero: usize = reports.iter().map(|report| report.zero.len()).sum();
        let weight = file.weight;
        say(format_args!("{path}: {matched} layers, weight {weight}"));
        if zero == matched {
            say(format_args!(
                "warning: {path} changes nothing, all its updates are zero"
            ));
        }
    }
    if fuse {
        let layers = pipeline.fuse();
        say(format_args!("fused into the weights of {layers} layers"));
    }
    Ok(())
}
