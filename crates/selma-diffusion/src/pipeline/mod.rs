//! From prompts to pictures.

mod latents;
mod stable_diffusion;
mod text_to_image;

pub use latents::Latents;
pub use stable_diffusion::StableDiffusion;
pub use text_to_image::{Denoising, Generated, Observer, TextToImage};
