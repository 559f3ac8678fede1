//! What can be wrong with a tokenizer folder.

use std::path::PathBuf;

/// Why a tokenizer cannot be loaded or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The folder holds neither of the two forms of a vocabulary.
    #[error("{} has neither tokenizer.json nor vocab.json with merges.txt", path.display())]
    NoVocabulary {
        /// The folder.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not JSON or not of the expected form.
    #[error("{} is not a valid tokenizer file", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        source: serde_json::Error,
    },
    /// `tokenizer.json` holds another kind of model.
    #[error("{} holds a {found} model; expected BPE", path.display())]
    NotBpe {
        /// The file.
        path: PathBuf,
        /// Its `model.type`.
        found: String,
    },
    /// The folder holds neither of the two forms of a vocabulary of word pieces.
    #[error("{} has neither tokenizer.json nor vocab.txt, of which BERT's tokenizer is made", path.display())]
    NoWordPieces {
        /// The folder.
        path: PathBuf,
    },
    /// `tokenizer.json` holds another kind of model.
    #[error("{} holds a {found} model; expected WordPiece", path.display())]
    NotWordPiece {
        /// The file.
        path: PathBuf,
        /// Its `model.type`.
        found: String,
    },
    /// A merge is not a pair of tokens, or what it makes is not a token.
    #[error("{}: line {line} merges {found:?}; expected two tokens of the vocabulary that make a third", path.display())]
    Merge {
        /// The file.
        path: PathBuf,
        /// The line in `merges.txt`, or the number of the merge in `tokenizer.json`, from 1.
        line: usize,
        /// What stands there.
        found: String,
    },
    /// The begin, end or pad token is not in the vocabulary.
    #[error("{} has no {role} {token:?} in its vocabulary", path.display())]
    MissingToken {
        /// The folder.
        path: PathBuf,
        /// `bos_token`, `eos_token`, `unk_token` or `pad_token`.
        role: &'static str,
        /// The token.
        token: String,
    },
    /// A sequence needs room for its begin and end tokens.
    #[error("a prompt length of {found} leaves no room for the begin and end tokens")]
    MaxLength {
        /// The length asked for.
        found: usize,
    },
    /// The vocabulary and the merges do not fit together.
    #[error("{} holds a vocabulary that cannot be used", path.display())]
    Build {
        /// The folder.
        path: PathBuf,
        /// What the `tokenizers` crate said.
        source: tokenizers::Error,
    },
    /// Ids cannot be made text.
    #[error("cannot decode the answer")]
    Decode {
        /// What the `tokenizers` crate said.
        source: tokenizers::Error,
    },
    /// A text cannot be encoded.
    #[error("cannot encode the prompt")]
    Encode {
        /// What the `tokenizers` crate said.
        source: tokenizers::Error,
    },
}
