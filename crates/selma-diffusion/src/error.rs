//! What can go wrong in this crate.

use std::fmt::{self, Display};
use std::path::PathBuf;

use selma_durable::DurableError;
use selma_lora::LoraError;
use thiserror::Error;

use crate::config::ConfigError;
use crate::schedulers::SchedulerError;
use crate::single_file::SingleFileError;
use crate::tokenizer::TokenizerError;
use crate::weights::WeightsError;

/// An error of loading or running a diffusion model.
#[derive(Debug, Error)]
pub enum DiffusionError {
    /// A file cannot be read.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A file is no picture, or one in a format that this build does not read.
    #[error("{path} is not a picture that can be read")]
    NoPicture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: image::ImageError,
    },
    /// A weight file is damaged.
    #[error("{path} is not a complete safetensors file")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: safetensors::SafeTensorError,
    },
    /// A weight file cannot be used for another reason.
    #[error(transparent)]
    WeightFile(#[from] WeightsError),
    /// A single file is not of a model that is read.
    #[error(transparent)]
    SingleFile(#[from] SingleFileError),
    /// A weight file does not hold the weights of the model that its configuration describes.
    #[error(
        "{path} does not fit the model: {} missing{}, {} unused{}, {} of another shape or type{}",
        missing.len(), list(missing), unused.len(), list(unused), misfit.len(), list(misfit)
    )]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Parameters of the model without a tensor in the file.
        missing: Vec<String>,
        /// Tensors of the file without a parameter in the model.
        unused: Vec<String>,
        /// Keys with the expected and the found shape or type.
        misfit: Vec<String>,
    },
    /// A tensor that should be in a file is not.
    #[error("{path} has no tensor {key:?}; it has {found}")]
    NoTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// The names that are there.
        found: String,
    },
    /// A tensor of a file has another shape or type than is needed.
    #[error("{path}: tensor {key:?}: expected {expected}, found {found}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// What is needed.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The scheduler cannot do what was asked.
    #[error(transparent)]
    Scheduler(#[from] SchedulerError),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// An adapter does not fit.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// A device that does not exist, or that this build does not have.
    #[error("device {name:?}: {reason}")]
    Device {
        /// As it was written.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A request that cannot be carried out.
    #[error("{what}: expected {expected}, found {found}")]
    Request {
        /// The setting.
        what: &'static str,
        /// What would be right.
        expected: String,
        /// What was asked.
        found: String,
    },
    /// Numbers that are not finite, found where they appear.
    #[error(
        "{origin}: not finite in image {image}{}",
        weight.as_ref().map_or_else(String::new, |name| format!("; nor is the weight {name}"))
    )]
    NonFinite {
        /// Who made them.
        origin: Origin,
        /// The first image that has them, from 1.
        image: usize,
        /// The first weight of the network that is not finite itself, if it is to blame.
        weight: Option<String>,
    },
    /// The observer asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A picture cannot be made into a PNG file.
    #[error("cannot encode a picture as PNG")]
    Png(#[from] ::png::EncodingError),
    /// A PNG file is damaged, or none.
    #[error("{path} is not a complete PNG file")]
    PngFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ::png::DecodingError,
    },
    /// The settings in a PNG file cannot be understood.
    #[error("{path}: the settings in it are not those of this version")]
    PngSettings {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The device's memory does not suffice.
    #[error(
        "the device has run out of memory ({reason}); smaller pictures, fewer at a time, or half precision need less"
    )]
    OutOfMemory {
        /// What the backend said.
        reason: String,
    },
    /// Values could not be read back from the device.
    #[error("cannot read values back from the device: {reason}")]
    ReadBack {
        /// What the backend said.
        reason: String,
    },
}

impl DiffusionError {
    /// The error of a device that was asked for values: [`OutOfMemory`](Self::OutOfMemory) or [`ReadBack`](Self::ReadBack).
    ///
    /// burn tells what went wrong since values were last asked for, but names no kind of failure, so that running out of
    /// memory shows in the text alone.
    pub fn read_back(error: impl Display) -> Self {
        const SIGNS: [&str; 4] = [
            "out of device memory",
            "out-of-memory",
            "out of memory",
            "can't allocate buffer",
        ];
        let text = error.to_string();
        let lower = text.to_lowercase();
        match SIGNS.iter().find_map(|sign| lower.find(sign)) {
            Some(at) => Self::OutOfMemory {
                reason: first_line(text.get(at..).unwrap_or(&text)),
            },
            None => Self::ReadBack {
                reason: first_line(text),
            },
        }
    }
}

/// Who made the numbers of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The caller, by latents to start from.
    InitLatents,
    /// The caller, by latents of a picture to start from.
    InitImage,
    /// The caller, by latents to decode.
    Latents,
    /// The VAE, encoding the picture to start from.
    Encoder,
    /// The text encoder.
    TextEncoder,
    /// The second text encoder of SDXL, by its pooled output.
    PooledText,
    /// The UNet, by its prediction.
    UNet {
        /// The call, from 1.
        step: usize,
        /// Calls in all.
        total: usize,
    },
    /// The scheduler, by its step from a prediction that is finite.
    Scheduler {
        /// The step, from 1.
        step: usize,
        /// Steps in all.
        total: usize,
    },
    /// The VAE, decoding the picture.
    Decoder,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InitLatents => f.write_str("the initial latents"),
            Self::InitImage => f.write_str("the latents given for the initial picture"),
            Self::Latents => f.write_str("the latents to decode"),
            Self::Encoder => f.write_str("the initial picture's latents"),
            Self::TextEncoder => f.write_str("the text encoder's output"),
            Self::PooledText => f.write_str("the second text encoder's pooled output"),
            Self::UNet { step, total } => {
                write!(f, "the UNet's prediction at step {step} of {total}")
            }
            Self::Scheduler { step, total } => {
                write!(f, "the scheduler's latents after step {step} of {total}")
            }
            Self::Decoder => f.write_str("the VAE's picture"),
        }
    }
}

/// What stands before a backtrace.
pub(crate) fn first_line(text: impl Display) -> String {
    let text = text.to_string();
    text.trim().lines().next().unwrap_or_default().to_owned()
}

/// At most eight names, so that an error stays readable when nothing fits.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = if names.len() > SHOWN { ", .." } else { "" };
    format!(" ({}{more})", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_used_up_is_told_from_other_failures() {
        let error = DiffusionError::read_back(
            "An IO error\nCaused by:\n  out of device memory allocating 99 bytes\nframe 0",
        );
        assert!(
            matches!(&error, DiffusionError::OutOfMemory { reason } if reason == "out of device memory allocating 99 bytes"),
            "{error:?}"
        );
        let error = DiffusionError::read_back("device lost\nframe 0");
        assert!(matches!(&error, DiffusionError::ReadBack { reason } if reason == "device lost"));
    }
}
