//! The filter's state on disk.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::fs;
use std::path::Path;

use selma_rouge::{DiversityFilter, FilterConfig, RougeError, Tokenizer, WithoutTokens};
use tempfile::tempdir;

fn filled() -> DiversityFilter {
    let mut filter = DiversityFilter::with_config(FilterConfig {
        threshold: 0.7,
        beta: 1.2,
        tokenizer: Tokenizer::Unicode,
        without_tokens: WithoutTokens::Distinct,
    })
    .unwrap();
    for text in [
        "a red cube",
        "…",
        "红色的猫 \"quoted\"\n\u{1}",
        "a blue ball on it",
        "",
    ] {
        assert!(filter.offer(text).is_kept());
    }
    assert!(filter.remove(3));
    filter
}

fn load(bytes: &[u8]) -> Result<DiversityFilter, RougeError> {
    let dir = tempdir().unwrap();
    let path = dir.path().join("filter.jsonl");
    fs::write(&path, bytes).unwrap();
    DiversityFilter::load(&path)
}

fn saved(filter: &DiversityFilter) -> String {
    let dir = tempdir().unwrap();
    let path = dir.path().join("filter.jsonl");
    filter.save(&path).unwrap();
    fs::read_to_string(&path).unwrap()
}

#[test]
fn a_loaded_filter_goes_on_where_the_saved_one_was() {
    let mut filter = filled();
    let state = saved(&filter);
    let mut loaded = load(state.as_bytes()).unwrap();
    assert_eq!(loaded.config(), filter.config());
    assert!(loaded.iter().eq(filter.iter()));
    assert_eq!(saved(&loaded), state);
    for text in [
        "a red cube",
        "a blue ball on it",
        "…",
        "",
        "红色的猫",
        "new words",
    ] {
        assert_eq!(loaded.offer(text), filter.offer(text), "{text}");
    }
    assert_eq!(loaded.get(5), Some("a blue ball on it"));
    let empty = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    assert!(load(saved(&empty).as_bytes()).unwrap().is_empty());
}

#[test]
fn the_form_on_disk_stays() {
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge).unwrap();
    filter.insert("a \"b\"");
    filter.insert("c");
    filter.remove(1);
    let header = "{\"format\":\"selma-rouge filter\",\"version\":1,\"texts\":2,\
        \"config\":{\"threshold\":0.8,\"beta\":1.0,\"tokenizer\":\"rouge\",\"without_tokens\":\"keep\"}}";
    let state = saved(&filter);
    let lines: Vec<&str> = state.lines().collect();
    assert_eq!(lines[..3], [header, r#""a \"b\"""#, "null"]);
    assert!(lines[3].starts_with("{\"sha256\":\""));
    assert_eq!(lines.len(), 4);
}

#[test]
fn every_changed_byte_and_every_cut_is_seen() {
    let state = saved(&filled()).into_bytes();
    for at in 0..state.len() {
        for bit in [0, 5] {
            let mut changed = state.clone();
            changed[at] ^= 1 << bit;
            assert!(load(&changed).is_err(), "byte {at}, bit {bit}");
        }
        assert!(load(&state[..at]).is_err(), "cut at {at}");
    }
    assert!(load(&[state.as_slice(), b"\n"].concat()).is_err());
}

#[test]
fn errors_say_what_is_wrong() {
    let message = |bytes: &[u8]| load(bytes).unwrap_err().to_string();
    let state = saved(&filled());
    for other in [
        "",
        "a prompt\n",
        "{\"format\":\"other\",\"version\":1}\n",
        "\u{feff}{}",
    ] {
        let message = message(other.as_bytes());
        assert!(
            message.ends_with(
                "is not the state of a diversity filter: its first line does not say so"
            ),
            "{message}"
        );
    }
    let newer = state.replacen("\"version\":1", "\"version\":2", 1);
    assert!(message(newer.as_bytes()).ends_with("is a filter's state of version 2, expected 1"));
    let cut = &state[..state.trim_end().rfind('\n').unwrap() + 1];
    assert!(message(cut.as_bytes()).ends_with("is cut: after 6 lines there is no checksum"));
    let damaged = state.replacen("a red cube", "a red cone", 1);
    let message = message(damaged.as_bytes());
    assert!(
        message.contains("is damaged: its checksum is "),
        "{message}"
    );
    let error = DiversityFilter::load(Path::new("/none/filter.jsonl")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot read /none/filter.jsonl: "),
        "{error}"
    );
}

/// A state with the given lines and the right checksum.
fn signed(lines: &str) -> String {
    use sha2::{Digest, Sha256};
    format!(
        "{lines}{{\"sha256\":\"{}\"}}\n",
        hex::encode(Sha256::digest(lines))
    )
}

#[test]
fn lines_that_are_not_what_they_should_be() {
    let header = |config: &str| {
        format!(
            "{{\"format\":\"selma-rouge filter\",\"version\":1,\"texts\":1,\"config\":{config}}}\n"
        )
    };
    let message = |lines: String| load(signed(&lines).as_bytes()).unwrap_err().to_string();
    assert!(load(signed(&(header("{}") + "\"a\"\n")).as_bytes()).is_ok());
    let wrong = message(header("{}") + "7\n");
    assert!(
        wrong.contains("filter.jsonl, line 2: invalid type"),
        "{wrong}"
    );
    let wrong = message(header("{\"treshold\":0.5}") + "null\n");
    assert!(
        wrong.contains("line 1: unknown field `treshold`"),
        "{wrong}"
    );
    let wrong = message(header("{\"beta\":-1.0}") + "null\n");
    assert_eq!(wrong, "beta must be between 0 and 1000, found -1");
    let wrong = message(header("{}"));
    assert!(wrong.ends_with("has 0 texts, expected 1"), "{wrong}");
}

#[test]
fn nothing_half_written() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("none/filter.jsonl");
    let error = filled().save(&path).unwrap_err();
    assert!(matches!(error, RougeError::Durable(_)), "{error}");
    let path = dir.path().join("filter.jsonl");
    filled().save(&path).unwrap();
    filled().save(&path).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
