//! Training a small Stable Diffusion from nothing: tokenizer, VAE, then text encoder and UNet together.
//!
//! This is how the bundled miniature is made. It is no recipe for models of real size.

mod config;
mod denoiser;
mod descent;
mod optimizer;
mod order;
mod pairs;
mod tokenizer;
mod vae;

pub use config::{DenoiserPretraining, PretrainConfig, TimestepDensity, VaePretraining};
pub use denoiser::{Foundation, pretrain_denoiser};
pub use descent::Checkpoints;
pub use tokenizer::write_tokenizer;
pub use vae::pretrain_vae;

use image::RgbImage;

use crate::TrainError;

/// An endless source of images with captions; pair `index` depends on nothing else.
pub trait PairSource: Sync {
    /// The pair at `index`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Example`] if it cannot be made.
    fn pair(&self, index: u64) -> Result<(RgbImage, String), TrainError>;
}
