//! The tokenizers of a checkpoint, held against the text encoders that they are for.

use std::fmt;
use std::path::PathBuf;

use super::{Checkpoint, ConfigSource, Layout, Located};
use crate::DiffusionError;
use crate::config::ConfigError;
use crate::models::ClipTextConfig;
use crate::presets::{Family, SECOND_PAD_TOKEN};
use crate::tokenizer::{ClipTokenizer, STANDARD};

/// Where a tokenizer lies.
enum Place {
    /// In a folder of its own.
    Own(PathBuf),
    /// In a folder without parts, that of the first tokenizer.
    Shared(PathBuf),
    /// In the crate, for single files.
    Standard(Family),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(folder) | Self::Shared(folder) => folder.display().fmt(f),
            Self::Standard(_) => f.write_str(STANDARD),
        }
    }
}

impl Checkpoint {
    /// The tokenizer: that of the options, of the folder `tokenizer`, or the standard one for a single file.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged, or it has more tokens or longer texts than the text encoder knows.
    pub fn tokenizer(&self) -> Result<ClipTokenizer, DiffusionError> {
        let place = self.place("tokenizer");
        let tokenizer = match &place {
            Place::Own(folder) | Place::Shared(folder) => ClipTokenizer::load(folder)?,
            Place::Standard(family) => ClipTokenizer::standard(family.pad_token())?,
        };
        require_fit(&tokenizer, &place, &self.text_encoder_config()?)?;
        Ok(tokenizer)
    }

    /// The second tokenizer of SDXL; see [`tokenizer`](Self::tokenizer). Where one folder serves both, this one still fills
    /// up with `!`, as the second text encoder was trained.
    ///
    /// # Errors
    ///
    /// Those of [`tokenizer`](Self::tokenizer).
    pub fn tokenizer_2(&self) -> Result<ClipTokenizer, DiffusionError> {
        let place = self.place("tokenizer_2");
        let tokenizer = match &place {
            Place::Own(folder) => ClipTokenizer::load(folder)?,
            Place::Shared(folder) => ClipTokenizer::load_with_pad(folder, SECOND_PAD_TOKEN)?,
            Place::Standard(_) => ClipTokenizer::standard(SECOND_PAD_TOKEN)?,
        };
        require_fit(&tokenizer, &place, &self.text_encoder_2_config()?)?;
        Ok(tokenizer)
    }

    fn place(&self, name: &str) -> Place {
        if let Some(folder) = &self.options.tokenizer {
            let inner = folder.join(name);
            return if inner.is_dir() {
                Place::Own(inner)
            } else {
                Place::Shared(folder.clone())
            };
        }
        if let Some(ConfigSource::Folder(folder)) = &self.options.config {
            let inner = folder.join(name);
            if inner.is_dir() {
                return Place::Own(inner);
            }
        }
        match &self.layout {
            Layout::Folder => Place::Own(self.path.join(name)),
            Layout::SingleFile(single) => Place::Standard(single.family()),
        }
    }
}

/// Sees that a tokenizer gives the text encoder nothing that it has no embedding for.
fn require_fit(
    tokenizer: &ClipTokenizer,
    place: &Place,
    (config, path): &Located<ClipTextConfig>,
) -> Result<(), ConfigError> {
    let (positions, length) = (config.max_position_embeddings, tokenizer.max_length());
    for (field, size, least, of) in [
        (
            "vocab_size",
            config.vocab_size,
            tokenizer.id_bound(),
            "for the ids",
        ),
        (
            "max_position_embeddings",
            positions,
            length,
            "model_max_length",
        ),
    ] {
        if size < least {
            let expected = format!("at least {least}, {of} of {place}");
            return Err(ConfigError::invalid(field, expected, size).in_file(path));
        }
    }
    Ok(())
}
