//! From prompts to pictures.

mod adapters;
mod conditions;
mod denoise;
mod digest;
mod finite;
mod guidance;
mod image_to_image;
mod latents;
mod micro_conditioning;
mod request;
mod stable_diffusion;
mod text;

pub use denoise::{Denoising, Generated, Observer};
pub use image_to_image::{InitImage, Pictures};
pub use latents::Latents;
pub use micro_conditioning::MicroConditioning;
pub use request::TextToImage;
pub use stable_diffusion::StableDiffusion;
pub use text::{TextEmbeddings, TextEncoder, Truncated};
