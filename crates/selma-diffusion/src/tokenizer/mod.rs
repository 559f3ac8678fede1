//! CLIP's byte-pair tokenizer, and BERT's of word pieces.
//!
//! ```no_run
//! use selma_diffusion::tokenizer::ClipTokenizer;
//!
//! let tokenizer = ClipTokenizer::load("stable-diffusion-v1-4/tokenizer".as_ref())?;
//! let encoded = tokenizer.encode("a photo of a cat")?;
//! assert_eq!(encoded.ids.len(), 77);
//! assert_eq!(encoded.dropped, 0);
//! # Ok::<(), selma_diffusion::tokenizer::TokenizerError>(())
//! ```

mod error;
mod files;
mod standard;
mod word_piece;

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

pub use error::TokenizerError;
use files::{Files, SpecialTokens};
pub use word_piece::{BertTokenizer, Pieces};

/// What stands where a file's name would for [`ClipTokenizer::standard`].
pub(crate) use standard::NAME as STANDARD;

/// How a text falls into words before the byte pairs are merged: the pattern of OpenAI's `simple_tokenizer.py`, as transformers has it.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// What marks the last piece of a word in the vocabulary.
const END_OF_WORD: &str = "</w>";

/// The tokenizer of CLIP's text encoders, as transformers' `CLIPTokenizer`: NFC, runs of white space to one space, lower case, words, byte pairs.
///
/// The normaliser and the splitting into words are CLIP's own, whatever a `tokenizer.json` says, as transformers does it.
#[derive(Debug, Clone)]
pub struct ClipTokenizer {
    inner: Tokenizer,
    bos: u32,
    eos: u32,
    pad: u32,
    id_bound: usize,
    max_length: usize,
}

/// A text as the text encoder takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Begin token, the text's tokens, end token, then pad tokens: [`ClipTokenizer::max_length`] ids.
    pub ids: Vec<u32>,
    /// How many of the text's tokens found no room.
    pub dropped: usize,
    /// The part of the text that they stand for.
    pub cut: String,
}

impl ClipTokenizer {
    /// What [`load`](Self::load) may read of a folder.
    pub(crate) const FILES: [&str; 5] = [
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
        "special_tokens_map.json",
    ];

    /// Reads a folder with `tokenizer.json`, or `vocab.json` and `merges.txt`; `tokenizer_config.json` and `special_tokens_map.json` are optional.
    ///
    /// Without a `model_max_length` a text has 77 tokens.
    ///
    /// # Errors
    /// A file is missing, cannot be read or understood, or a special token is not in the vocabulary.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        Self::build(Files::load(folder)?, folder)
    }

    /// Reads a folder and takes another pad token than it says.
    ///
    /// # Errors
    /// Those of [`ClipTokenizer::load`].
    pub fn load_with_pad(folder: &Path, pad_token: &str) -> Result<Self, TokenizerError> {
        let mut files = Files::load(folder)?;
        files.special.pad = AddedToken::from(pad_token, true);
        Self::build(files, folder)
    }

    /// The tokenizer of the published models: the 49,408 tokens of OpenAI's CLIP, texts of 77.
    ///
    /// `pad_token` is `<|endoftext|>` in SD 1 and the first tokenizer of SDXL, `!` in SD 2 and the second one.
    ///
    /// # Errors
    /// [`TokenizerError::MissingToken`] if the pad token is not in the vocabulary.
    pub fn standard(pad_token: &str) -> Result<Self, TokenizerError> {
        Self::build(standard::files(pad_token)?, Path::new(standard::NAME))
    }

    fn build(files: Files, folder: &Path) -> Result<Self, TokenizerError> {
        let Files {
            vocabulary,
            merges,
            special,
            max_length,
        } = files;
        let largest = vocabulary.values().max();
        let id_bound = largest.map_or(0, |&id| id as usize + 1);
        let build = |source| TokenizerError::Build {
            path: folder.to_owned(),
            source,
        };
        let model = BPE::builder()
            .vocab_and_merges(vocabulary, merges)
            .unk_token(special.unk.content.clone())
            .end_of_word_suffix(END_OF_WORD.to_owned())
            .build()
            .map_err(build)?;
        let mut inner = Tokenizer::new(model);
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(build)?;
        inner
            .with_normalizer(Some(Normalizers::new(vec![
                NFC.into(),
                spaces.into(),
                Lowercase.into(),
            ])))
            .map_err(build)?;
        let words = Split::new(
            SplitPattern::Regex(WORDS.to_owned()),
            SplitDelimiterBehavior::Removed,
            true,
        );
        let bytes = ByteLevel::new(false, true, true);
        inner.with_pre_tokenizer(Some(PreTokenizers::new(vec![
            words.map_err(build)?.into(),
            bytes.into(),
        ])));

        // An added token gets a new id if the vocabulary lacks it, and such an id has no embedding.
        let id = |role, token: &AddedToken| {
            let found = inner.token_to_id(&token.content);
            found.ok_or_else(|| TokenizerError::MissingToken {
                path: folder.to_owned(),
                role,
                token: token.content.clone(),
            })
        };
        let (bos, eos, pad) = (
            id("bos_token", &special.bos)?,
            id("eos_token", &special.eos)?,
            id("pad_token", &special.pad)?,
        );
        id("unk_token", &special.unk)?;
        for token in &special.further {
            id("added token", token)?;
        }
        let SpecialTokens {
            bos: bos_token,
            eos: eos_token,
            unk: unk_token,
            pad: pad_token,
            further,
        } = special;
        // Where one token has two roles with different matching rules, the later one counts, and this is transformers' order.
        let named = [bos_token, eos_token, unk_token, pad_token];
        inner
            .add_special_tokens(further.into_iter().chain(named))
            .map_err(build)?;
        Self {
            inner,
            bos,
            eos,
            pad,
            id_bound,
            max_length,
        }
        .with_max_length(max_length)
    }

    /// The same tokenizer for texts of another length, begin and end token included.
    ///
    /// # Errors
    /// [`TokenizerError::MaxLength`] below 2.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self, TokenizerError> {
        if max_length < 2 {
            return Err(TokenizerError::MaxLength { found: max_length });
        }
        self.max_length = max_length;
        Ok(self)
    }

    /// Encodes a text, padded and truncated to [`ClipTokenizer::max_length`] ids. Truncation keeps the end token.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the underlying tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Encoded, TokenizerError> {
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|source| TokenizerError::Encode { source })?;
        let tokens = encoding.get_ids();
        let kept = tokens.len().min(self.max_length - 2);
        let mut ids = Vec::with_capacity(self.max_length);
        ids.push(self.bos);
        ids.extend(tokens.iter().take(kept));
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        let cut = encoding.get_offsets().get(kept).map(|&(start, _)| start);
        Ok(Encoded {
            ids,
            dropped: tokens.len() - kept,
            cut: cut
                .and_then(|start| text.get(start..))
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// The number of ids of an encoded text.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the largest id: what the text encoder's `vocab_size` must reach.
    #[must_use]
    pub fn id_bound(&self) -> usize {
        self.id_bound
    }

    /// The number of entries of the vocabulary: the text encoder's `vocab_size`.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of the begin token.
    #[must_use]
    pub fn bos_token_id(&self) -> u32 {
        self.bos
    }

    /// The id of the end token.
    #[must_use]
    pub fn eos_token_id(&self) -> u32 {
        self.eos
    }

    /// The id that fills up short texts: the end token's in SD 1, `!` in SD 2.
    #[must_use]
    pub fn pad_token_id(&self) -> u32 {
        self.pad
    }
}
