//! The values of the presets, as far as they differ from diffusers' and transformers' defaults.

use crate::models::{AutoencoderKLConfig, ClipTextConfig, PerBlock, UNet2DConditionModelConfig};
use crate::nn::Activation;
use crate::schedulers::{PredictionType, SchedulerConfig, TimestepSpacing};

pub(super) fn sd1_unet() -> UNet2DConditionModelConfig {
    UNet2DConditionModelConfig {
        sample_size: Some(64),
        cross_attention_dim: 768,
        ..UNet2DConditionModelConfig::default()
    }
}

pub(super) fn sd2_unet(
    sample_size: usize,
    upcast_attention: Option<bool>,
) -> UNet2DConditionModelConfig {
    UNet2DConditionModelConfig {
        sample_size: Some(sample_size),
        cross_attention_dim: 1024,
        attention_head_dim: PerBlock::Each(vec![5, 10, 20, 20]),
        use_linear_projection: true,
        upcast_attention,
        ..UNet2DConditionModelConfig::default()
    }
}

pub(super) fn sdxl_unet() -> UNet2DConditionModelConfig {
    let (plain_down, cross_down) = ("DownBlock2D", "CrossAttnDownBlock2D");
    let (plain_up, cross_up) = ("UpBlock2D", "CrossAttnUpBlock2D");
    let names = |names: [&str; 3]| names.map(str::to_owned).to_vec();
    UNet2DConditionModelConfig {
        sample_size: Some(128),
        down_block_types: names([plain_down, cross_down, cross_down]),
        up_block_types: names([cross_up, cross_up, plain_up]),
        block_out_channels: vec![320, 640, 1280],
        cross_attention_dim: 2048,
        attention_head_dim: PerBlock::Each(vec![5, 10, 20]),
        transformer_layers_per_block: PerBlock::Each(vec![1, 2, 10]),
        use_linear_projection: true,
        addition_embed_type: Some("text_time".to_owned()),
        addition_time_embed_dim: Some(256),
        projection_class_embeddings_input_dim: Some(2816),
        ..UNet2DConditionModelConfig::default()
    }
}

pub(super) fn vae(sample_size: usize, scaling_factor: f64) -> AutoencoderKLConfig {
    AutoencoderKLConfig {
        down_block_types: vec!["DownEncoderBlock2D".to_owned(); 4],
        up_block_types: vec!["UpDecoderBlock2D".to_owned(); 4],
        block_out_channels: vec![128, 256, 512, 512],
        layers_per_block: 2,
        sample_size,
        scaling_factor,
        ..AutoencoderKLConfig::default()
    }
}

/// OpenAI's CLIP ViT-L/14, as SD 1 and SDXL have it.
pub(super) fn clip_l(projection_dim: usize) -> ClipTextConfig {
    ClipTextConfig {
        architectures: vec!["CLIPTextModel".to_owned()],
        hidden_size: 768,
        intermediate_size: 3072,
        num_attention_heads: 12,
        projection_dim,
        eos_token_id: Some(2),
        ..ClipTextConfig::default()
    }
}

/// OpenCLIP ViT-H/14 without the last of its 24 layers, as SD 2 has it.
pub(super) fn open_clip_h() -> ClipTextConfig {
    ClipTextConfig {
        architectures: vec!["CLIPTextModel".to_owned()],
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 23,
        num_attention_heads: 16,
        hidden_act: Activation::Gelu,
        eos_token_id: Some(2),
        ..ClipTextConfig::default()
    }
}

/// OpenCLIP ViT-bigG/14, as SDXL has it.
pub(super) fn open_clip_big_g() -> ClipTextConfig {
    ClipTextConfig {
        architectures: vec!["CLIPTextModelWithProjection".to_owned()],
        hidden_size: 1280,
        intermediate_size: 5120,
        num_hidden_layers: 32,
        num_attention_heads: 20,
        projection_dim: 1280,
        hidden_act: Activation::Gelu,
        eos_token_id: Some(2),
        ..ClipTextConfig::default()
    }
}

pub(super) fn sd1_scheduler() -> SchedulerConfig {
    SchedulerConfig {
        class_name: Some("PNDMScheduler".to_owned()),
        prediction_type: None,
        ..SchedulerConfig::stable_diffusion(PredictionType::Epsilon)
    }
}

pub(super) fn sd2_base_scheduler() -> SchedulerConfig {
    SchedulerConfig {
        prediction_type: Some(PredictionType::Epsilon),
        ..sd1_scheduler()
    }
}

pub(super) fn sd2_scheduler() -> SchedulerConfig {
    SchedulerConfig {
        class_name: Some("DDIMScheduler".to_owned()),
        ..SchedulerConfig::stable_diffusion(PredictionType::VPrediction)
    }
}

pub(super) fn sdxl_scheduler() -> SchedulerConfig {
    SchedulerConfig {
        class_name: Some("EulerDiscreteScheduler".to_owned()),
        interpolation_type: Some("linear".to_owned()),
        timestep_spacing: Some(TimestepSpacing::Leading),
        use_karras_sigmas: Some(false),
        ..SchedulerConfig::stable_diffusion(PredictionType::Epsilon)
    }
}
