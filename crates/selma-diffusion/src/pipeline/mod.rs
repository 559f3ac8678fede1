//! From prompts to pictures.

mod adapters;
mod denoise;
mod finite;
mod guidance;
mod image_to_image;
mod latents;
mod request;
mod stable_diffusion;

pub use denoise::{Denoising, Generated, Observer};
pub use image_to_image::{InitImage, Pictures};
pub use latents::Latents;
pub use request::TextToImage;
pub use stable_diffusion::StableDiffusion;
