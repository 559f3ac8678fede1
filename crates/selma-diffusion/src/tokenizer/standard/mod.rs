//! The vocabulary of OpenAI's CLIP, which all published Stable Diffusion models use and no single file carries.
//!
//! `merges.bin` is written by `tools/clip_vocabulary.py` from `bpe_simple_vocab_16e6.txt`; `LICENSE` is that of CLIP.

use std::collections::HashMap;
use std::path::Path;

use tokenizers::AddedToken;
use tokenizers::models::bpe::{Merges, Vocab};

use super::TokenizerError;
use super::files::{BOS, DEFAULT_MAX_LENGTH, EOS, Files, SpecialTokens};

/// The ids of both parts of each merge, two little-endian `u16`.
const MERGES: &[u8] = include_bytes!("merges.bin");

/// What stands where a file's name would in an error.
pub(crate) const NAME: &str = "the standard vocabulary";

/// The vocabulary with its merges and special tokens, as in the tokenizer folders of the published models.
pub(super) fn files(pad: &str) -> Result<Files, TokenizerError> {
    let letters = byte_alphabet();
    let ends = letters.iter().map(|letter| format!("{letter}</w>"));
    let mut tokens: Vec<String> = letters.iter().map(char::to_string).chain(ends).collect();
    let (words, _) = MERGES.as_chunks::<4>();
    let mut merges = Merges::with_capacity(words.len());
    for (line, &[a, b, c, d]) in words.iter().enumerate() {
        let part = |bytes| tokens.get(usize::from(u16::from_le_bytes(bytes)));
        let (Some(left), Some(right)) = (part([a, b]), part([c, d])) else {
            return Err(TokenizerError::Merge {
                path: Path::new(NAME).to_owned(),
                line: line + 1,
                found: "an id that is not known yet".to_owned(),
            });
        };
        let whole = format!("{left}{right}");
        merges.push((left.clone(), right.clone()));
        tokens.push(whole);
    }
    tokens.extend([BOS.to_owned(), EOS.to_owned()]);
    let ids: HashMap<String, u32> = tokens.into_iter().zip(0..).collect();
    let vocabulary: Vocab = ids.into_iter().collect();
    let token = |content: &str| AddedToken::from(content, true).normalized(true);
    Ok(Files {
        vocabulary,
        merges,
        special: SpecialTokens {
            bos: token(BOS),
            eos: token(EOS),
            unk: token(EOS),
            pad: AddedToken::from(pad, true),
            further: Vec::new(),
        },
        max_length: DEFAULT_MAX_LENGTH,
    })
}

/// GPT-2's characters for the 256 bytes, in the order of CLIP's vocabulary: the printable ones, then the others.
fn byte_alphabet() -> Vec<char> {
    let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ');
    let others = 256 - printable.clone().count() as u32;
    printable
        .chain((256..256 + others).filter_map(char::from_u32))
        .collect()
}
