//! Whether the components of a model fit each other.

use std::path::Path;

use super::{Checkpoint, Located};
use crate::DiffusionError;
use crate::config::ConfigError;
use crate::models::{AutoencoderKLConfig, ClipTextConfig, TimeIds, UNet2DConditionModelConfig};

impl Checkpoint {
    /// Checks the configurations of the components, and compares them with each other: channels of the latents, widths of the
    /// texts, and the added conditions of SDXL.
    ///
    /// # Errors
    ///
    /// [`ConfigError::InvalidIn`]: a configuration cannot be used, or the UNet's contradicts another, whose file and field are
    /// named too; or files are missing or damaged.
    pub fn require_agreement(&self) -> Result<(), DiffusionError> {
        let mut texts = vec![self.text_encoder_config()?];
        if self.xl {
            texts.push(self.text_encoder_2_config()?);
        }
        let (unet, path) = self.unet_config()?;
        let vae = self.stored_vae()?;
        let vae = (vae.config, vae.config_path);
        for (text, path) in &texts {
            text.validate().map_err(|error| error.in_file(path))?;
        }
        unet.validate().map_err(|error| error.in_file(&path))?;
        vae.0.validate().map_err(|error| error.in_file(&vae.1))?;
        Ok(agree(&unet, &texts, &vae).map_err(|error| error.in_file(&path))?)
    }
}

fn agree(
    unet: &UNet2DConditionModelConfig,
    texts: &[Located<ClipTextConfig>],
    (vae, vae_path): &Located<AutoencoderKLConfig>,
) -> Result<(), ConfigError> {
    let of = |field: &str, path: &Path| format!("{field} of {}", path.display());
    let require = |field, found: usize, expected: usize, reason: &str| match found == expected {
        true => Ok(()),
        false => {
            let expected = format!("{expected}, {reason}");
            Err(ConfigError::invalid(field, expected, found))
        }
    };
    let latents = of("latent_channels", vae_path);
    require(
        "in_channels",
        unet.in_channels,
        vae.latent_channels,
        &latents,
    )?;
    let reason = "in_channels of the same file";
    require("out_channels", unet.out_channels, unet.in_channels, reason)?;

    let width = texts.iter().map(|(text, _)| text.hidden_size).sum();
    let widths = texts.iter().map(|(_, path)| of("hidden_size", path));
    let widths = widths.collect::<Vec<_>>().join(" and ");
    require(
        "cross_attention_dim",
        unet.cross_attention_dim,
        width,
        &widths,
    )?;

    let kind = "addition_embed_type";
    match (texts, unet.added()?) {
        ([_], None) => Ok(()),
        ([_, (second, path)], Some((text, time))) => {
            let (pooled, field) = match second.has_projection() {
                true => (second.projection_dim, "projection_dim"),
                false => (second.hidden_size, "hidden_size"),
            };
            let times = TimeIds::COUNT * time;
            let reason = format!("{} and {times} for the time ids", of(field, path));
            let field = "projection_class_embeddings_input_dim";
            require(field, text + times, pooled + times, &reason)
        }
        (_, Some(_)) => {
            let expected = "null, for there is one text encoder";
            Err(ConfigError::invalid(kind, expected, "text_time"))
        }
        (_, None) => {
            let expected = "text_time, for there are two text encoders";
            Err(ConfigError::invalid(kind, expected, "null"))
        }
    }
}
