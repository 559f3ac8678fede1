//! The networks of Stable Diffusion, and CLIP as a whole, with the names, field paths and `config.json` fields of diffusers.

mod attention;
mod autoencoder_kl;
mod clip;
mod clip_encoder;
mod clip_text;
mod clip_vision;
mod conditioning;
mod embeddings;
mod recompute;
mod resnet;
mod transformer_2d;
mod unet_2d_blocks;
mod unet_2d_condition;
mod unet_2d_condition_config;
mod vae;
mod vae_tiling;

pub use attention::{Attention, AttentionConfig, BasicTransformerBlock, FeedForward, Geglu};
pub use autoencoder_kl::{AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian};
pub use clip::{ClipConfig, ClipModel};
pub use clip_text::{ClipTextConfig, ClipTextModel, ClipTextOutput};
pub use clip_vision::ClipVisionConfig;
pub use conditioning::{AddedConditioning, Conditioning, TimeIds};
pub use embeddings::{TimestepEmbedding, timestep_embedding};
pub use recompute::Recording;
pub use resnet::{Downsample2D, ResnetBlock2D, ResnetBlock2DConfig, Upsample2D};
pub use transformer_2d::{Projection, Transformer2DModel, Transformer2DModelConfig};
pub use unet_2d_blocks::{DownBlock2D, MidBlock2D, UNetBlockConfig, UpBlock2D};
pub use unet_2d_condition::UNet2DConditionModel;
pub use unet_2d_condition_config::{PerBlock, UNet2DConditionModelConfig};
pub use vae::{Decoder, DownEncoderBlock2D, Encoder, UpDecoderBlock2D, VaeMidBlock2D};
pub use vae_tiling::VaeTiling;
