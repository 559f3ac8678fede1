//! A small tokenizer in CLIP's format.

use std::collections::BTreeMap;
use std::path::Path;

use selma_durable::{atomic_write, create_folder, write_json};
use serde_json::{Map, Value, json};

use crate::TrainError;

/// CLIP's marks around a text; the second also pads.
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// CLIP's mark of a token that ends a word.
const WORD_END: &str = "</w>";

/// Trains byte-pair merges until every word of a vocabulary is one token, and writes the tokenizer's folder:
/// `vocab.json`, `merges.txt`, `tokenizer_config.json` and `special_tokens_map.json`.
///
/// Any other text can still be tokenized, byte by byte. The number of tokens is returned.
///
/// # Errors
///
/// If a file cannot be written.
pub fn write_tokenizer(dir: &Path, words: &[&str], max_length: usize) -> Result<usize, TrainError> {
    let merges = learn_merges(words);
    let mut vocab = Map::new();
    let mut add = |token: String| {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| json!(id));
    };
    let bytes: Vec<char> = byte_characters();
    for &byte in &bytes {
        add(byte.to_string());
    }
    for byte in bytes {
        add(format!("{byte}{WORD_END}"));
    }
    for (left, right) in &merges {
        add(format!("{left}{right}"));
    }
    // Last, so that the end has the largest id: CLIP pools at the largest.
    add(START.to_owned());
    add(END.to_owned());
    let size = vocab.len();

    create_folder(dir)?;
    let mut text = String::from("#version: 0.2\n");
    for (left, right) in &merges {
        text.push_str(&format!("{left} {right}\n"));
    }
    atomic_write(&dir.join("merges.txt"), text.as_bytes())?;
    write_json(&dir.join("vocab.json"), &Value::Object(vocab))?;
    write_json(
        &dir.join("tokenizer_config.json"),
        &json!({
            "add_prefix_space": false,
            "bos_token": START,
            "do_lower_case": true,
            "eos_token": END,
            "errors": "replace",
            "model_max_length": max_length,
            "pad_token": END,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": END
        }),
    )?;
    write_json(
        &dir.join("special_tokens_map.json"),
        &json!({"bos_token": START, "eos_token": END, "pad_token": END, "unk_token": END}),
    )?;
    Ok(size)
}

/// Byte-pair encoding: the most frequent pair of neighbours is merged until every word is one token; ties go to the
/// alphabetically first pair.
fn learn_merges(words: &[&str]) -> Vec<(String, String)> {
    let mut split: Vec<Vec<String>> = words
        .iter()
        .map(|word| {
            let mut symbols: Vec<String> = word.chars().map(String::from).collect();
            if let Some(last) = symbols.last_mut() {
                last.push_str(WORD_END);
            }
            symbols
        })
        .collect();
    let mut merges = Vec::new();
    loop {
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for word in &split {
            for (left, right) in word.iter().zip(word.iter().skip(1)) {
                *counts.entry((left, right)).or_default() += 1;
            }
        }
        let best = counts.iter().rev().max_by_key(|&(_, count)| count);
        let Some((&(left, right), _)) = best else {
            return merges;
        };
        let pair = (left.to_owned(), right.to_owned());
        for word in &mut split {
            merge(word, &pair);
        }
        merges.push(pair);
    }
}

fn merge(word: &mut Vec<String>, (left, right): &(String, String)) {
    let mut merged: Vec<String> = Vec::with_capacity(word.len());
    for symbol in word.drain(..) {
        match merged.last_mut() {
            // A symbol that has just been merged is longer than `left` and cannot be taken twice.
            Some(last) if last == left && &symbol == right => last.push_str(&symbol),
            _ => merged.push(symbol),
        }
    }
    *word = merged;
}

/// The characters that stand for the 256 bytes, in CLIP's order (`bytes_to_unicode`): printable Latin-1 as itself, the
/// others from U+0100 on.
fn byte_characters() -> Vec<char> {
    let printable: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').collect();
    let others = 256 - printable.len() as u32;
    let shifted = (0..others).filter_map(|index| char::from_u32(256 + index));
    printable.iter().copied().chain(shifted).collect()
}

#[cfg(test)]
mod tests {
    use selma_diffusion::tokenizer::ClipTokenizer;

    use super::*;

    #[test]
    fn every_word_becomes_one_token_and_any_other_text_still_has_some() {
        let dir = tempfile::tempdir().unwrap();
        let words = ["red", "green", "star", "stars", "a", "to", "the", "left"];
        let size = write_tokenizer(dir.path(), &words, 16).unwrap();
        let tokenizer = ClipTokenizer::load(dir.path()).unwrap();
        for word in words {
            let ids = tokenizer.encode(word).unwrap().ids;
            assert_eq!(ids.len(), 16);
            let [start, token, end, ..] = ids[..] else {
                panic!()
            };
            assert_eq!((start, end), (size as u32 - 2, size as u32 - 1), "{word}");
            assert!(token < start, "{word}");
        }
        let ids = tokenizer.encode("Ünknown").unwrap().ids;
        assert!(ids.iter().filter(|&&id| id < size as u32 - 2).count() > 3);
    }

    #[test]
    fn bytes_have_256_distinct_characters() {
        let set: std::collections::BTreeSet<char> = byte_characters().into_iter().collect();
        assert_eq!(set.len(), 256);
    }
}
