//! Stable Diffusion on burn.

mod checkpoint;
pub mod config;
mod device;
mod error;
mod files;
pub mod image;
pub mod models;
pub mod nn;
pub mod pipeline;
pub mod noise;
pub mod schedulers;
pub mod tokenizer { #[derive(Debug, thiserror::Error)] #[error("x")] pub struct TokenizerError; #[derive(Debug)] pub struct ClipTokenizer; pub struct Encoding{pub ids:Vec<u32>} impl ClipTokenizer { pub fn load(_:&std::path::Path)->Result<Self,TokenizerError>{Err(TokenizerError)} pub fn encode(&self,_:&str)->Result<Encoding,TokenizerError>{Err(TokenizerError)} } }
pub mod weights;

pub use checkpoint::{Checkpoint, Component};
pub use device::device;
pub use error::DiffusionError;
pub use pipeline::{Generated, Latents, StableDiffusion, TextToImage};
