//! BERT's tokenizer of word pieces.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tokenizers::decoders::wordpiece::WordPiece as Joined;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use super::TokenizerError;
use super::files::{NO_LIMIT, TokenRules, json_if_there, text_if_there};

/// What marks a piece that continues a word.
const INNER: &str = "##";
/// BERT's longest text in tokens, where a configuration names none.
const DEFAULT_MAX_LENGTH: usize = 512;

/// The tokens that stand for themselves in a text.
struct Special {
    unknown: &'static str,
    begin: &'static str,
    end: &'static str,
    /// Those that the vocabulary may lack.
    others: [&'static str; 2],
}

const BERT: Special = Special {
    unknown: "[UNK]",
    begin: "[CLS]",
    end: "[SEP]",
    others: ["[PAD]", "[MASK]"],
};
const MPNET: Special = Special {
    unknown: "[UNK]",
    begin: "<s>",
    end: "</s>",
    others: ["<pad>", "<mask>"],
};

/// The tokenizer of BERT and so of BLIP, as transformers' `BertTokenizer`, and of MPNet, as its `MPNetTokenizer`: clean text, lower case without accents, words and punctuation, the longest
/// pieces that the vocabulary has.
///
/// The normaliser and the splitting into words are BERT's own, whatever a `tokenizer.json` says; `tokenizer_config.json` may keep capitals.
#[derive(Debug, Clone)]
pub struct BertTokenizer {
    inner: Tokenizer,
    begin: u32,
    end: u32,
    id_bound: usize,
    max_length: usize,
}

/// A text as these models take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pieces {
    /// Begin token, the text's pieces, end token.
    pub ids: Vec<u32>,
    /// How many pieces found no room.
    pub dropped: usize,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct BertConfig {
    do_lower_case: bool,
    tokenize_chinese_chars: bool,
    strip_accents: Option<bool>,
    model_max_length: Option<f64>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            do_lower_case: true,
            tokenize_chinese_chars: true,
            strip_accents: None,
            model_max_length: None,
        }
    }
}

#[derive(Debug, Deserialize)]
struct BertJson {
    #[serde(default)]
    added_tokens: Vec<TokenRules>,
    model: BertModel,
}

#[derive(Debug, Deserialize)]
struct BertModel {
    /// Older files leave it out.
    r#type: Option<String>,
    vocab: BTreeMap<String, u32>,
}

impl BertTokenizer {
    /// What [`load`](Self::load) may read of a folder.
    pub(crate) const FILES: [&str; 3] = ["tokenizer.json", "vocab.txt", "tokenizer_config.json"];

    /// Reads a folder with `tokenizer.json` or `vocab.txt`; `tokenizer_config.json` is optional.
    ///
    /// Without a `model_max_length` a text has 512 tokens.
    ///
    /// # Errors
    /// A file is missing, cannot be read or understood, or a special token is not in the vocabulary.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        Self::build(folder, &BERT)
    }

    /// Reads a folder with the same files of MPNet, whose texts are between `<s>` and `</s>`.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn load_mpnet(folder: &Path) -> Result<Self, TokenizerError> {
        Self::build(folder, &MPNET)
    }

    fn build(folder: &Path, special: &Special) -> Result<Self, TokenizerError> {
        let config: BertConfig =
            json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let (vocabulary, added) = vocabulary(folder)?;
        let id = |token: &str| {
            let found = vocabulary.get(token).copied();
            found.ok_or_else(|| TokenizerError::MissingToken {
                path: folder.to_owned(),
                role: "special token",
                token: token.to_owned(),
            })
        };
        let &Special {
            unknown,
            begin,
            end,
            others,
        } = special;
        let named = [unknown, begin, end];
        let (begin, end) = (id(begin)?, id(end)?);
        id(unknown)?;
        let largest = vocabulary.values().max();
        let id_bound = largest.map_or(0, |&id| id as usize + 1);
        let special = named.into_iter().chain(others);
        let special = special.filter(|token| vocabulary.contains_key(*token));
        let special = special.map(|token| AddedToken::from(token, true));
        // An added token gets a new id if the vocabulary lacks it, and such an id has no embedding.
        let added = added.into_iter().map(TokenRules::into_token);
        let added = added.filter(|token| vocabulary.contains_key(&token.content));
        let tokens: Vec<AddedToken> = added.chain(special).collect();

        let build = |source| TokenizerError::Build {
            path: folder.to_owned(),
            source,
        };
        let model = WordPiece::builder()
            .vocab(vocabulary)
            .unk_token(unknown.to_owned())
            .continuing_subword_prefix(INNER.to_owned())
            .build()
            .map_err(build)?;
        let mut inner = Tokenizer::new(model);
        let normalizer = BertNormalizer::new(
            true,
            config.tokenize_chinese_chars,
            config.strip_accents,
            config.do_lower_case,
        );
        inner.with_normalizer(Some(normalizer)).map_err(build)?;
        inner.with_pre_tokenizer(Some(BertPreTokenizer));
        inner.with_decoder(Some(Joined::new(INNER.to_owned(), true)));
        inner.add_special_tokens(tokens).map_err(build)?;
        let max_length = match config.model_max_length {
            Some(length) if length < NO_LIMIT => length as usize,
            _ => DEFAULT_MAX_LENGTH,
        };
        Self {
            inner,
            begin,
            end,
            id_bound,
            max_length,
        }
        .with_max_length(max_length)
    }

    /// The same tokenizer for texts of another length at most, begin and end token included.
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

    /// Encodes a text, at most [`max_length`](Self::max_length) ids and not filled up. Truncation keeps the end token.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the underlying tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Pieces, TokenizerError> {
        let encoding = self.inner.encode(text, false);
        let encoding = encoding.map_err(|source| TokenizerError::Encode { source })?;
        let pieces = encoding.get_ids();
        let kept = pieces.len().min(self.max_length - 2);
        let mut ids = vec![self.begin];
        ids.extend(pieces.iter().take(kept));
        ids.push(self.end);
        Ok(Pieces {
            ids,
            dropped: pieces.len() - kept,
        })
    }

    /// The text of ids, without special tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Decode`] when the underlying tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        let text = self.inner.decode(ids, true);
        text.map_err(|source| TokenizerError::Decode { source })
    }

    /// The id of a word that is a single piece.
    #[must_use]
    pub fn id(&self, word: &str) -> Option<u32> {
        self.inner.token_to_id(word)
    }

    /// The most ids of an encoded text.
    #[must_use]
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the largest id: what the network's `vocab_size` must reach.
    #[must_use]
    pub fn id_bound(&self) -> usize {
        self.id_bound
    }
}

/// The tokens with their ids, and those that were added to them.
fn vocabulary(folder: &Path) -> Result<(Vocab, Vec<TokenRules>), TokenizerError> {
    let whole = folder.join("tokenizer.json");
    if let Some(file) = json_if_there::<BertJson>(&whole)? {
        if let Some(found) = file.model.r#type
            && found != "WordPiece"
        {
            return Err(TokenizerError::NotWordPiece { path: whole, found });
        }
        return Ok((file.model.vocab.into_iter().collect(), file.added_tokens));
    }
    let Some(text) = text_if_there(&folder.join("vocab.txt"))? else {
        return Err(TokenizerError::NoWordPieces {
            path: folder.to_owned(),
        });
    };
    let tokens = text.lines().zip(0..);
    let tokens = tokens.map(|(token, id)| (token.trim_end().to_owned(), id));
    Ok((tokens.collect(), Vec::new()))
}
