//! Layers without adapters, whose field names are those of the checkpoints.

mod activation;
mod attention;
mod embedding;
mod norm;

pub use activation::Activation;
pub use attention::{AttentionOptions, attention, biased_attention};
pub use embedding::Embedding;
pub use norm::{GroupNorm, LayerNorm};
