//! The files of a tokenizer folder, and which of them is believed.
//!
//! The rules are those of transformers (`PreTrainedTokenizerBase._from_pretrained`): `tokenizer.json` goes before `vocab.json` and `merges.txt`; of the special
//! tokens, `added_tokens_decoder` in `tokenizer_config.json` goes before `special_tokens_map.json`, which goes before the rest of `tokenizer_config.json`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{Merges, Vocab};

use super::TokenizerError;

pub(super) const BOS: &str = "<|startoftext|>";
pub(super) const EOS: &str = "<|endoftext|>";

/// CLIP's context length, where a configuration names none.
pub(super) const DEFAULT_MAX_LENGTH: usize = 77;

/// transformers writes 1e30 where there is no limit.
pub(super) const NO_LIMIT: f64 = 1e9;

/// What a folder says.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) vocabulary: Vocab,
    pub(super) merges: Merges,
    pub(super) special: SpecialTokens,
    pub(super) max_length: usize,
}

/// The special tokens by role, and further tokens that stand for themselves in a text.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    pub(super) bos: AddedToken,
    pub(super) eos: AddedToken,
    pub(super) unk: AddedToken,
    pub(super) pad: AddedToken,
    pub(super) further: Vec<AddedToken>,
}

/// A token is a string, or an object with its matching rules.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Token {
    Plain(String),
    Rules(TokenRules),
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct TokenRules {
    content: String,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    normalized: bool,
}

#[derive(Debug, Default, Deserialize)]
struct NamedTokens {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    pad_token: Option<Token>,
}

#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    #[serde(flatten)]
    named: NamedTokens,
    model_max_length: Option<f64>,
    added_tokens_decoder: Option<BTreeMap<u32, TokenRules>>,
}

#[derive(Debug, Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<TokenRules>,
    model: Model,
}

#[derive(Debug, Deserialize)]
struct Model {
    /// Older files leave it out.
    r#type: Option<String>,
    vocab: BTreeMap<String, u32>,
    merges: Vec<Merge>,
}

/// Older files join the two tokens with a space.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Joined(String),
}

impl Files {
    /// Reads the folder.
    ///
    /// # Errors
    /// No vocabulary, or a file that cannot be read or understood.
    pub(super) fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let config: TokenizerConfig =
            json_if_there(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let map: NamedTokens =
            json_if_there(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let whole = folder.join("tokenizer.json");
        let (vocabulary, merges, mut further) = match json_if_there::<TokenizerJson>(&whole)? {
            Some(file) => from_tokenizer_json(file, &whole)?,
            None => from_vocab_and_merges(folder)?,
        };
        let mut named = config.named;
        if let Some(decoder) = config.added_tokens_decoder {
            further = decoder.into_values().collect();
        } else {
            named = NamedTokens {
                bos_token: map.bos_token.or(named.bos_token),
                eos_token: map.eos_token.or(named.eos_token),
                unk_token: map.unk_token.or(named.unk_token),
                pad_token: map.pad_token.or(named.pad_token),
            };
        }
        let max_length = match config.model_max_length {
            Some(length) if length < NO_LIMIT => length as usize,
            _ => DEFAULT_MAX_LENGTH,
        };
        Ok(Self {
            vocabulary,
            merges,
            special: SpecialTokens::new(named, further),
            max_length,
        })
    }
}

impl SpecialTokens {
    fn new(named: NamedTokens, further: Vec<TokenRules>) -> Self {
        let further: Vec<AddedToken> = further.into_iter().map(TokenRules::into_token).collect();
        let known = |token: Option<Token>, default: &str| {
            let token = match token {
                Some(Token::Rules(rules)) => rules.into_token(),
                Some(Token::Plain(content)) => AddedToken::from(content, true),
                None => AddedToken::from(default, true),
            };
            // The list of added tokens has the last word on how a token is matched.
            let listed = further.iter().find(|other| other.content == token.content);
            listed.cloned().unwrap_or(token)
        };
        Self {
            bos: known(named.bos_token, BOS),
            eos: known(named.eos_token, EOS),
            unk: known(named.unk_token, EOS),
            pad: known(named.pad_token, EOS),
            further,
        }
    }
}

impl TokenRules {
    pub(super) fn into_token(self) -> AddedToken {
        AddedToken::from(self.content, true)
            .lstrip(self.lstrip)
            .rstrip(self.rstrip)
            .single_word(self.single_word)
            .normalized(self.normalized)
    }
}

type Vocabulary = (Vocab, Merges, Vec<TokenRules>);

fn from_tokenizer_json(file: TokenizerJson, path: &Path) -> Result<Vocabulary, TokenizerError> {
    if let Some(found) = file.model.r#type
        && found != "BPE"
    {
        return Err(TokenizerError::NotBpe {
            path: path.to_owned(),
            found,
        });
    }
    let vocabulary: Vocab = file.model.vocab.into_iter().collect();
    let mut merges = Merges::with_capacity(file.model.merges.len());
    for (i, merge) in file.model.merges.into_iter().enumerate() {
        let (left, right) = match &merge {
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
            Merge::Joined(joined) => joined.split_once(' ').unwrap_or((joined, "")),
        };
        merges.push(checked_merge(left, right, &vocabulary, path, i + 1)?);
    }
    Ok((vocabulary, merges, file.added_tokens))
}

fn from_vocab_and_merges(folder: &Path) -> Result<Vocabulary, TokenizerError> {
    let no_vocabulary = || TokenizerError::NoVocabulary {
        path: folder.to_owned(),
    };
    let vocabulary: BTreeMap<String, u32> =
        json_if_there(&folder.join("vocab.json"))?.ok_or_else(no_vocabulary)?;
    let path = folder.join("merges.txt");
    let text = text_if_there(&path)?.ok_or_else(no_vocabulary)?;
    let vocabulary: Vocab = vocabulary.into_iter().collect();
    let mut merges = Merges::new();
    for (i, line) in text.lines().enumerate() {
        if !line.starts_with("#version") && !line.is_empty() {
            let (left, right) = line.split_once(' ').unwrap_or((line, ""));
            merges.push(checked_merge(left, right, &vocabulary, &path, i + 1)?);
        }
    }
    Ok((vocabulary, merges, Vec::new()))
}

/// A merge whose parts and whole are tokens. The `tokenizers` crate relies on it: it panics on a whole that is longer than any token.
fn checked_merge(
    left: &str,
    right: &str,
    vocabulary: &Vocab,
    path: &Path,
    line: usize,
) -> Result<(String, String), TokenizerError> {
    let whole = format!("{left}{right}");
    if [left, right, &whole]
        .into_iter()
        .all(|token| vocabulary.contains_key(token))
    {
        Ok((left.to_owned(), right.to_owned()))
    } else {
        Err(TokenizerError::Merge {
            path: path.to_owned(),
            line,
            found: format!("{left} {right}"),
        })
    }
}

pub(super) fn json_if_there<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, TokenizerError> {
    let Some(text) = text_if_there(path)? else {
        return Ok(None);
    };
    let value = serde_json::from_str(&text).map_err(|source| TokenizerError::Parse {
        path: path.to_owned(),
        source,
    })?;
    Ok(Some(value))
}

pub(super) fn text_if_there(path: &Path) -> Result<Option<String>, TokenizerError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TokenizerError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}
