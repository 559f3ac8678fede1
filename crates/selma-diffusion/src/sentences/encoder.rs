//! Vectors of sentences.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use selma_durable::sha256;

use super::folder::{longest, require_mean};
use crate::DiffusionError;
use crate::checkpoint::is_constant;
use crate::config::{ConfigError, read_json};
use crate::models::{BertConfig, BertKind, BertModel};
use crate::scorers::normalised;
use crate::tokenizer::BertTokenizer;
use crate::weights::{self, Weights, load, sha256_of};

/// Tokens that are read together, which bounds the memory.
const TOKENS_TOGETHER: usize = 4096;
/// A layer on top of the first token, which the mean of all does without.
const POOLER: &str = "pooler.";

/// A model that turns sentences into vectors, such as `sentence-transformers/all-mpnet-base-v2` or `all-MiniLM-L6-v2`.
#[derive(Debug)]
pub struct SentenceEncoder {
    model: BertModel,
    tokenizer: BertTokenizer,
    sha256: String,
    device: Device,
}

impl SentenceEncoder {
    /// Loads a folder in the layout of transformers or sentence-transformers: `config.json` (whose `model_type` is `bert` or `mpnet`), weights, and
    /// `tokenizer.json` or `vocab.txt`.
    ///
    /// Sentences are cut off at the least of what `tokenizer_config.json`, `sentence_bert_config.json` and the table of positions say.
    ///
    /// # Errors
    ///
    /// If files are missing, damaged or do not fit each other, or if sentences are made in another way than by the mean of their tokens
    /// (`modules.json`, `1_Pooling/config.json`).
    pub fn load(folder: &Path, device: &Device) -> Result<Self, DiffusionError> {
        let path = folder.join("config.json");
        let config: BertConfig = read_json(&path)?;
        let in_file = |error: ConfigError| error.in_file(&path);
        let model = config.init(device).map_err(in_file)?;
        let kind = config.kind().map_err(in_file)?;
        require_mean(folder, config.hidden_size)?;
        let longest = longest(folder)?.unwrap_or(usize::MAX);
        let file = weights::find(folder, None)?;
        let extra = |name: &str| is_constant(name) || name.starts_with(POOLER);
        let weights = Weights::open(file.path)?;
        let model = load(
            model,
            &weights,
            FloatDType::F32,
            |name| kind.name(name),
            extra,
        )?;
        let tokenizer = match kind {
            BertKind::Bert => BertTokenizer::load(folder)?,
            BertKind::Mpnet => BertTokenizer::load_mpnet(folder)?,
        };
        let least = tokenizer.id_bound();
        if config.vocab_size < least {
            let expected = format!("at least {least}, for the ids of the tokenizer beside it");
            let error = ConfigError::invalid("vocab_size", expected, config.vocab_size);
            return Err(in_file(error).into());
        }
        let length = tokenizer.max_length().min(config.longest(kind));
        Ok(Self {
            model,
            tokenizer: tokenizer.with_max_length(length.min(longest))?,
            sha256: match file.files.as_slice() {
                [file] => hex::encode(sha256(file)?),
                files => sha256_of(files)?,
            },
            device: device.clone(),
        })
    }

    /// SHA-256 of the weight file, or over those of several.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Vectors of length 1, one a text: the means of the last hidden states of all tokens, divided by their lengths. The product of two is their cosine.
    ///
    /// Texts of one length in tokens are read together, so that none is filled up and, but for rounding, a vector does not depend on the texts beside it. What is
    /// too long is cut off; see [`dropped_tokens`](Self::dropped_tokens).
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized, or the device fails.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, DiffusionError> {
        let mut by_length: BTreeMap<usize, Vec<(usize, Vec<u32>)>> = BTreeMap::new();
        for (place, text) in texts.iter().enumerate() {
            let ids = self.tokenizer.encode(text)?.ids;
            by_length.entry(ids.len()).or_default().push((place, ids));
        }
        let mut embedded = Vec::with_capacity(texts.len());
        for (length, texts) in by_length {
            for together in texts.chunks((TOKENS_TOGETHER / length).max(1)) {
                let ids = together.iter().flat_map(|(_, ids)| ids);
                let ids: Vec<i32> = ids.map(|&id| id as i32).collect();
                let ids = TensorData::new(ids, [together.len(), length]);
                let hidden = self
                    .model
                    .forward(Tensor::<2, Int>::from_data(ids, &self.device));
                let vectors = normalised(hidden.mean_dim(1).squeeze_dim(1))?;
                let places = together.iter().map(|(place, _)| *place);
                embedded.extend(places.zip(vectors));
            }
        }
        embedded.sort_unstable_by_key(|(place, _)| *place);
        Ok(embedded.into_iter().map(|(_, vector)| vector).collect())
    }

    /// How many tokens at the end of a text are not read, because it is too long.
    ///
    /// # Errors
    ///
    /// If it cannot be tokenized.
    pub fn dropped_tokens(&self, text: &str) -> Result<usize, DiffusionError> {
        Ok(self.tokenizer.encode(text)?.dropped)
    }
}
