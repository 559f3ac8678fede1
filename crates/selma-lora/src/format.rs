//! The naming schemes of adapter files.

mod config;
mod header;
mod keys;
mod lazy;
mod load;
mod names;
mod parts;
mod peft;
mod read;
mod sgm;
mod stream;
mod tensors;
mod write;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub(crate) use header::{MIXTURE_NOTE, open, read_header};
pub(crate) use keys::COMPONENTS;
pub(crate) use lazy::{LazyFile, open as open_lazy, read_at};
pub(crate) use load::{Content, Kinds, from_bytes, load};
pub use names::ModuleNames;
pub(crate) use peft::save;
pub use read::LeftOut;
pub(crate) use stream::{Expected, FileWriter};
pub(crate) use tensors::{Tensor, header};
pub(crate) use write::write;

use crate::LoraError;

/// How an adapter names its tensors. Reading detects the format; it is chosen when writing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Format {
    /// `lora_unet_down_blocks_0_.._to_q.lora_down.weight`, `.lora_up.weight` and a 0-dimensional
    /// `.alpha`: the format with the widest reach (sd-scripts, ComfyUI, A1111, diffusers).
    #[default]
    Kohya,
    /// `unet.down_blocks.0...to_q.lora_A.weight` and `.lora_B.weight` with the metadata entry
    /// `lora_adapter_metadata`: what `save_lora_weights` of diffusers 0.33 and later writes.
    Diffusers,
    /// `unet.down_blocks.0...to_q.lora.down.weight` and `.lora.up.weight` (in text encoders
    /// `.lora_linear_layer.down.weight` and `.up.weight`), some modules under the names of
    /// [`Diffusers`](Self::Diffusers): what the LoRA training scripts of diffusers write. The names
    /// of diffusers up to 0.21 (`attn1.processor.to_q_lora.down.weight`) are read as this, too.
    DiffusersScript,
    /// `base_model.model.down_blocks.0...to_q.lora_A.weight` and `.lora_B.weight` in
    /// `adapter_model.safetensors`, ranks and alphas in `adapter_config.json` beside it: the folder
    /// that `save_pretrained` of PEFT writes. The names have no component: it is told by the
    /// module's path or the folder's name (`unet`, `text_encoder`, `text_encoder_2`).
    Peft,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kohya => "kohya",
            Self::Diffusers => "diffusers",
            Self::DiffusersScript => "diffusers_script",
            Self::Peft => "peft",
        })
    }
}

impl FromStr for Format {
    type Err = LoraError;

    fn from_str(name: &str) -> Result<Self, LoraError> {
        match name {
            "kohya" => Ok(Self::Kohya),
            "diffusers" => Ok(Self::Diffusers),
            "diffusers_script" => Ok(Self::DiffusersScript),
            "peft" => Ok(Self::Peft),
            _ => Err(LoraError::UnknownName {
                what: "adapter format",
                found: name.to_owned(),
                expected: "kohya, diffusers, diffusers_script, peft",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for format in [
            Format::Kohya,
            Format::Diffusers,
            Format::DiffusersScript,
            Format::Peft,
        ] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
            let json = serde_json::to_string(&format).unwrap();
            assert_eq!(json, format!("\"{format}\""));
        }
        assert!(matches!(
            "ckpt".parse::<Format>(),
            Err(LoraError::UnknownName { .. })
        ));
    }
}
