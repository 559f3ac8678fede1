//! Accepted and rejected prompts, and the files they are kept in.

use std::collections::HashSet;
use std::path::Path;

use selma_durable::{DurableError, parse_jsonl, read_jsonl, write_jsonl};
use serde::{Deserialize, Serialize};

use crate::LlmError;

/// An accepted prompt: one row of `prompts/<skill>.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Skill and number in the order of acceptance, e.g. `coco-000012`.
    pub id: String,
    /// The skill it was written for.
    pub skill: String,
    /// The prompt.
    pub text: String,
}

impl Prompt {
    /// The prompt of a skill with this number, counted from 0.
    pub fn new(skill: &str, number: usize, text: impl Into<String>) -> Self {
        Self {
            id: format!("{skill}-{number:06}"),
            skill: skill.to_owned(),
            text: text.into(),
        }
    }
}

/// A prompt that was not accepted: one row of a file of rejected prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RejectedPrompt {
    /// The skill it was written for.
    pub skill: String,
    /// The prompt.
    pub text: String,
    /// Why it was not accepted.
    pub reason: RejectReason,
}

/// Why a prompt was not accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum RejectReason {
    /// It has more words than the skill allows.
    TooLong {
        /// Words it has, separated by white space.
        words: usize,
        /// Words it may have.
        limit: usize,
    },
    /// It has fewer words than the skill asks for.
    TooShort {
        /// Words it has, separated by white space.
        words: usize,
        /// Words it must have.
        limit: usize,
    },
    /// It has more characters than the skill allows.
    TooManyCharacters {
        /// Characters it has.
        characters: usize,
        /// Characters it may have.
        limit: usize,
    },
    /// It has a letter of a script that the skill does not allow.
    Script {
        /// The first such letter.
        letter: char,
        /// The Unicode name of its script.
        script: String,
    },
    /// It has the mark that stands for bytes which were no text.
    Garbled,
    /// It has a term of the block list.
    Blocked {
        /// The term as the list has it.
        term: String,
    },
    /// It names an artist.
    NamedArtist {
        /// The name.
        name: String,
    },
    /// It repeats the instruction rather than following it.
    Instruction {
        /// The line that it is closest to.
        line: String,
        /// ROUGE-L F with it, in 0..=1.
        score: f64,
    },
    /// A seed or an accepted prompt is the very same text.
    Duplicate,
    /// It is too close to a seed or an accepted prompt.
    Similar {
        /// The closest seed or accepted prompt, the first of several.
        nearest: String,
        /// ROUGE-L F with it, in 0..=1.
        score: f64,
    },
}

/// Writes accepted prompts as JSONL, whole or not at all: a temporary file beside `path` is synced and renamed.
///
/// # Errors
/// [`LlmError::Durable`] if the file cannot be written; a file that stood there is then unchanged.
pub fn write_prompts(path: &Path, prompts: &[Prompt]) -> Result<(), LlmError> {
    Ok(write_jsonl(path, prompts)?)
}

/// Reads accepted prompts.
///
/// # Errors
/// [`LlmError::Durable`] if the file cannot be read, or with the number of the first line that is not a row of exactly
/// `id`, `skill` and `text`; [`LlmError::Line`] with that of the first row that has an empty field, or repeats an id.
pub fn read_prompts(path: &Path) -> Result<Vec<Prompt>, LlmError> {
    let bytes = std::fs::read(path).map_err(DurableError::io("read", path))?;
    let mut ids = HashSet::new();
    let mut prompts = Vec::new();
    for (line, prompt) in (1..).zip(parse_jsonl(path, &bytes)) {
        let prompt: Prompt = prompt?;
        check(&prompt, &mut ids).map_err(|reason| LlmError::Line {
            path: path.to_owned(),
            line,
            reason,
        })?;
        prompts.push(prompt);
    }
    Ok(prompts)
}

/// What is wrong with a row beyond its form.
fn check(prompt: &Prompt, ids: &mut HashSet<String>) -> Result<(), String> {
    let fields = [
        ("id", &prompt.id),
        ("skill", &prompt.skill),
        ("text", &prompt.text),
    ];
    for (name, value) in fields {
        if value.trim().is_empty() {
            return Err(format!("field `{name}` is empty"));
        }
    }
    if ids.insert(prompt.id.clone()) {
        Ok(())
    } else {
        Err(format!("id '{}' stands in an earlier line", prompt.id))
    }
}

/// Writes rejected prompts as JSONL, in the way of [`write_prompts`].
///
/// # Errors
/// [`LlmError::Durable`] if the file cannot be written; a file that stood there is then unchanged.
pub fn write_rejected(path: &Path, rejected: &[RejectedPrompt]) -> Result<(), LlmError> {
    Ok(write_jsonl(path, rejected)?)
}

/// Reads rejected prompts.
///
/// # Errors
/// [`LlmError::Durable`] if the file cannot be read, or with the number of the first line that is no such row.
pub fn read_rejected(path: &Path) -> Result<Vec<RejectedPrompt>, LlmError> {
    Ok(read_jsonl(path)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_hold_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coco.jsonl");
        let prompts = [
            Prompt::new("coco", 0, "a \"dog\"\u{2028}"),
            Prompt::new("coco", 1_234_567, "一只狗"),
        ];
        write_prompts(&path, &prompts).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("{\"id\":\"coco-000000\",\"skill\":\"coco\",\"text\":\"a \\\"dog\\\"")
        );
        assert!(text.contains("coco-1234567"));
        assert_eq!(read_prompts(&path).unwrap(), prompts);
        write_prompts(&path, &[]).unwrap();
        assert!(read_prompts(&path).unwrap().is_empty());

        let rejected = [
            RejectReason::Duplicate,
            RejectReason::TooLong {
                words: 31,
                limit: 30,
            },
            RejectReason::Similar {
                nearest: "a dog".to_owned(),
                score: 0.1 + 0.2,
            },
        ]
        .map(|reason| RejectedPrompt {
            skill: "coco".to_owned(),
            text: "x".to_owned(),
            reason,
        });
        let path = dir.path().join("rejected.jsonl");
        write_rejected(&path, &rejected).unwrap();
        assert_eq!(read_rejected(&path).unwrap(), rejected);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn bad_rows_are_named_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.jsonl");
        let good = "{\"id\":\"a\",\"skill\":\"s\",\"text\":\"t\"}\n";
        for (line, expected) in [
            ("{\"id\":\"b\",\"skill\":\"s\"}", "missing field `text`"),
            (
                "{\"id\":\"b\",\"skill\":\"s\",\"text\":\"t\",\"x\":1}",
                "unknown field `x`",
            ),
            ("{\"id\":\"b\",\"skill\":\"s\",\"te", "EOF while parsing"),
            ("", "EOF while parsing a value (column 0)"),
            (
                "{\"id\":\"b\",\"skill\":\"s\",\"text\":\" \"}",
                "field `text` is empty",
            ),
            (
                "{\"id\":\"a\",\"skill\":\"s\",\"text\":\"u\"}",
                "id 'a' stands in an earlier line",
            ),
        ] {
            fs::write(&path, format!("{good}{line}\n{good}")).unwrap();
            let error = read_prompts(&path).unwrap_err().to_string();
            assert!(
                error.contains("p.jsonl, line 2: ") && error.contains(expected),
                "{error}"
            );
        }
        fs::write(&path, b"{\"id\":\"\xff\"}\n").unwrap();
        assert!(
            read_prompts(&path)
                .unwrap_err()
                .to_string()
                .contains("line 1")
        );
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("no").join("p.jsonl");
        let error = write_prompts(&missing, &[]).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("p.jsonl"));
        // A directory cannot be replaced by a file.
        let taken = dir.path().join("taken");
        fs::create_dir(&taken).unwrap();
        assert!(write_prompts(&taken, &[]).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
