//! Which model a file holds, by its keys.

use super::error::SingleFileError;
use super::part::Part;
use crate::presets::{Family, Preset};
use crate::schedulers::{PredictionType, SchedulerConfig, SchedulerKind, TimestepSpacing};
use crate::weights::Weights;

pub(super) const UNET: &str = "model.diffusion_model.";
pub(super) const VAE: &str = "first_stage_model.";

/// SD 2 base was published after this many steps, and predicts noise; the others of its family predict velocity. No
/// shape tells them apart (diffusers goes by the same number).
const SD2_BASE_STEPS: i64 = 875_000;

/// Tensors without values that say how a later fine-tune of SDXL was trained: to predict velocity, to zero terminal SNR.
const V_PREDICTION: &str = "v_pred";
const ZERO_SNR: &str = "ztsnr";

/// Where each text encoder of a family has its tensors.
fn text_prefixes(family: Family) -> &'static [&'static str] {
    match family {
        Family::Sd1 => &["cond_stage_model.transformer."],
        Family::Sd2 => &["cond_stage_model.model."],
        Family::Sdxl => &[
            "conditioner.embedders.0.transformer.",
            "conditioner.embedders.1.model.",
        ],
    }
}

/// The family of a whole model.
///
/// # Errors
///
/// If it is of no family that is read, by a name that says what it is.
pub(super) fn recognise(weights: &Weights) -> Result<Family, SingleFileError> {
    let has = |prefix: &str| weights.names().any(|name| name.starts_with(prefix));
    let no = |found: &str| SingleFileError::Family {
        path: weights.path().to_owned(),
        found: found.to_owned(),
    };
    let families = [Family::Sdxl, Family::Sd2, Family::Sd1];
    let family = families
        .into_iter()
        .find(|&family| text_prefixes(family).iter().all(|prefix| has(prefix)));
    let (unet, vae) = (has(UNET), has(VAE));
    let Some(family) = family.filter(|_| unet && vae) else {
        if has("lora_unet_") || has("unet.") && weights.names().any(|name| name.contains(".lora")) {
            return Err(no("a LoRA adapter"));
        }
        if has("control_model.") {
            return Err(no("a ControlNet"));
        }
        if has("model.diffusion_model.joint_blocks.") {
            return Err(no("a Stable Diffusion 3"));
        }
        if has("model.diffusion_model.double_blocks.") || has("double_blocks.") {
            return Err(no("a Flux"));
        }
        if has("conditioner.embedders.0.model.") {
            return Err(no("the refiner of Stable Diffusion XL"));
        }
        if has("down_blocks.") || has("encoder.down_blocks.") || has("text_model.") {
            return Err(no(
                "one network in the layout of diffusers, which goes in a folder",
            ));
        }
        if unet || vae {
            let part = |there, name| if there { Some(name) } else { None };
            let parts = [
                part(unet, "a UNet"),
                part(vae, "a VAE"),
                part(family.is_some(), "the text encoders"),
            ];
            let parts: Vec<&str> = parts.into_iter().flatten().collect();
            return Err(no(&format!("only {}", parts.join(" and "))));
        }
        let first: Vec<&str> = weights.names().take(4).collect();
        return Err(no(&format!("a file of {}, ..", first.join(", "))));
    };
    let part = Part {
        weights,
        prefix: UNET,
    };
    match part.size("input_blocks.0.0.weight", 1)? {
        9 => Err(no("a model for inpainting (nine input channels)")),
        8 => Err(no("a model for editing (eight input channels)")),
        5 => Err(no("a model for depth (five input channels)")),
        _ => Ok(family),
    }
}

/// The published model that a file is taken for where shapes do not tell.
pub(super) fn preset(family: Family, weights: &Weights) -> Preset {
    match family {
        Family::Sd1 => Preset::Sd15,
        Family::Sd2 if weights.integer("global_step") == Some(SD2_BASE_STEPS) => Preset::Sd2Base,
        Family::Sd2 => Preset::Sd21,
        Family::Sdxl => Preset::SdxlBase,
    }
}

/// The scheduler of the preset, with what the file says of itself. PNDM cannot start from pure noise; DDIM can, from the last
/// timestep on.
pub(super) fn scheduler(preset: Preset, weights: &Weights) -> SchedulerConfig {
    let mut config = preset.scheduler();
    if weights.dtype(V_PREDICTION).is_some() {
        config.prediction_type = Some(PredictionType::VPrediction);
    }
    if weights.dtype(ZERO_SNR).is_some() {
        config.rescale_betas_zero_snr = Some(true);
        if config.class_name.as_deref() == Some(SchedulerKind::Pndm.class_name()) {
            config.class_name = Some(SchedulerKind::Ddim.class_name().to_owned());
            config.timestep_spacing = Some(TimestepSpacing::Trailing);
        }
    }
    config
}

/// Whether a tensor is known to be no part of the model: averages and tables of the training, buffers and markers.
pub(super) fn is_extra(key: &str) -> bool {
    const PREFIXES: [&str; 3] = [
        "model_ema.",
        "first_stage_model.loss.",
        "embedding_manager.",
    ];
    const NAMES: [&str; 20] = [
        "alphas_cumprod",
        "alphas_cumprod_prev",
        "betas",
        "denoiser.sigmas",
        "log_one_minus_alphas_cumprod",
        "logvar",
        "lvlb_weights",
        "posterior_log_variance_clipped",
        "posterior_mean_coef1",
        "posterior_mean_coef2",
        "posterior_variance",
        "scale_factor",
        "sqrt_alphas_cumprod",
        "sqrt_one_minus_alphas_cumprod",
        "sqrt_recip_alphas_cumprod",
        "sqrt_recipm1_alphas_cumprod",
        "cond_stage_model.transformer.text_projection.weight",
        "conditioner.embedders.0.transformer.text_projection.weight",
        V_PREDICTION,
        ZERO_SNR,
    ];
    const ENDINGS: [&str; 3] = [".position_ids", ".logit_scale", ".attn_mask"];
    PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || ENDINGS.iter().any(|ending| key.ends_with(ending))
        || NAMES.contains(&key)
}
