//! From prompts to pictures.

mod conditions;
mod latents;
mod micro_conditioning;
mod stable_diffusion;
mod text;
mod text_to_image;

pub use latents::Latents;
pub use micro_conditioning::MicroConditioning;
pub use stable_diffusion::StableDiffusion;
pub use text::{TextEmbeddings, TextEncoder, Truncated};
pub use text_to_image::{Denoising, Generated, Observer, TextToImage};
