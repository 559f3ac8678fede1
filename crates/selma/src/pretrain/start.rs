//! What a pretraining takes over from another model.

use std::path::Path;

use burn::tensor::Device;
use selma_diffusion::models::{
    AutoencoderKL, ClipTextConfig, ClipTextModel, UNet2DConditionModel, UNet2DConditionModelConfig,
};
use selma_diffusion::{Checkpoint, Component};
use selma_train::pretrain::PretrainConfig;

use super::PretrainRecipe;
use crate::SelmaError;

/// What is taken over from another model.
pub(super) struct Start {
    pub(super) vae: AutoencoderKL,
    /// Where the networks that are trained begin, if not with fresh weights.
    pub(super) networks: Option<(ClipTextModel, UNet2DConditionModel)>,
}

impl Start {
    /// What a recipe takes over, if it does; the tokenizer is the one that the recipe has written.
    pub(super) fn of(
        recipe: &PretrainRecipe,
        config: &mut PretrainConfig,
        tokenizer: &Path,
        device: &Device,
    ) -> Result<Option<Self>, SelmaError> {
        Ok(match (&recipe.start_from, &recipe.vae_from) {
            (Some(folder), _) => {
                let field = "start_from";
                let start = Self::vae(field, folder, config, device)?;
                Some(start.with_networks(field, folder, config, tokenizer, device)?)
            }
            (None, Some(folder)) => Some(Self::vae("vae_from", folder, config, device)?),
            (None, None) => None,
        })
    }

    /// Loads the VAE of the model in `folder`, which must be that of `config`. `config` gets its scaling factor.
    fn vae(
        field: &str,
        folder: &Path,
        config: &mut PretrainConfig,
        device: &Device,
    ) -> Result<Self, SelmaError> {
        let vae = Checkpoint::open(folder)?.vae(device)?;
        config.vae.scaling_factor = vae.config.scaling_factor;
        same(field, folder, "vae", vae.config == config.vae)?;
        Ok(Self {
            vae: vae.model,
            networks: None,
        })
    }

    /// Loads the other networks, too, which must be those of `config` or have more layers, as the tokenizer must be the one in `tokenizer`.
    fn with_networks(
        self,
        field: &str,
        folder: &Path,
        config: &PretrainConfig,
        tokenizer: &Path,
        device: &Device,
    ) -> Result<Self, SelmaError> {
        let checkpoint = Checkpoint::open(folder)?;
        let mut text_encoder = checkpoint.text_encoder(device)?;
        let mut unet = checkpoint.unet(device)?;
        leave_out_layers(&mut text_encoder, &mut unet, config);
        let vocabulary = |folder: &Path| std::fs::read(folder.join("vocab.json")).ok();
        let same_words = vocabulary(tokenizer) == vocabulary(&folder.join("tokenizer"));
        // Of no effect in `f32`; files say that it is off or leave it out.
        let found_unet = UNet2DConditionModelConfig {
            upcast_attention: config.unet.upcast_attention,
            ..unet.config
        };
        for (part, is_same) in [
            ("text_encoder", text_encoder.config == config.text_encoder),
            ("unet", found_unet == config.unet),
            ("tokenizer", same_words),
        ] {
            same(field, folder, part, is_same)?;
        }
        Ok(Self {
            networks: Some((text_encoder.model, unet.model)),
            ..self
        })
    }
}

/// Leaves out the layers that smaller networks do not have: the last ones of the text encoder, and the middle of the UNet, which counts for little in a model that
/// is trained a little further without it (BK-SDM, arXiv 2305.15798, section 3.1).
fn leave_out_layers(
    text_encoder: &mut Component<ClipTextConfig, ClipTextModel>,
    unet: &mut Component<UNet2DConditionModelConfig, UNet2DConditionModel>,
    config: &PretrainConfig,
) {
    let layers = config.text_encoder.num_hidden_layers;
    if layers < text_encoder.config.num_hidden_layers {
        text_encoder.config.num_hidden_layers = layers;
        text_encoder
            .model
            .text_model
            .encoder
            .layers
            .truncate(layers);
    }
    if config.unet.mid_block_type.is_none() {
        unet.config.mid_block_type = None;
        unet.model.mid_block = None;
    }
}

/// Refuses a model to take over from, one part of which is not the recipe's.
fn same(field: &str, folder: &Path, part: &str, is_same: bool) -> Result<(), SelmaError> {
    match is_same {
        true => Ok(()),
        false => Err(SelmaError::Setting {
            field: field.to_owned(),
            expected: format!("a model whose {part} is the one of this recipe"),
            found: folder.display().to_string(),
        }),
    }
}
