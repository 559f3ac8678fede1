//! What an LLM is asked to write prompts about: [`Skill`], as TOML; the paper's five are built in.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use selma_durable::DurableError;
use serde::{Deserialize, Serialize};

use crate::LlmError;

/// Longest name of a skill, in bytes: names become file names.
const MAX_NAME_LEN: usize = 64;

const BUILTINS: [(&str, &str); 5] = [
    (
        "localized_narratives",
        include_str!("../skills/localized_narratives.toml"),
    ),
    ("diffusion_db", include_str!("../skills/diffusion_db.toml")),
    ("count_bench", include_str!("../skills/count_bench.toml")),
    ("coco", include_str!("../skills/coco.toml")),
    ("whoops", include_str!("../skills/whoops.toml")),
];

/// One ability of a text-to-image model, and how an LLM is asked for prompts that exercise it (SELMA, section 3.1).
///
/// In a TOML file the fields are keys of the top level; unknown keys are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skill {
    /// Short name, part of prompt ids and file names: 1 to 64 of `a-z`, `0-9`, `_` and `-`.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The style of the captions, a few words for people.
    pub style: String,
    /// The instruction that stands before the examples. `{count}` and `{max_words}` in it become the fields' values.
    pub instruction: String,
    /// Captions that the pool of examples begins with; at least one, each on one line.
    pub seeds: Vec<String>,
    /// Most words (separated by white space) a prompt may have.
    pub max_words: usize,
    /// How many captions one request asks for. Default 20, as the paper does.
    #[serde(default = "default_count")]
    pub count: usize,
}

fn default_count() -> usize {
    20
}

impl Skill {
    /// The names of the built-in skills, in the paper's order.
    pub fn builtin_names() -> Vec<&'static str> {
        BUILTINS.iter().map(|(name, _)| *name).collect()
    }

    /// The built-in skill of this name.
    ///
    /// # Errors
    /// [`LlmError::UnknownSkill`] lists the names there are.
    pub fn builtin(name: &str) -> Result<Self, LlmError> {
        let found = BUILTINS.iter().find(|(known, _)| *known == name);
        let (name, toml) = found.ok_or_else(|| LlmError::UnknownSkill {
            name: name.to_owned(),
            known: Self::builtin_names(),
        })?;
        Self::parse(toml, &PathBuf::from(format!("skills/{name}.toml")))
    }

    /// All built-in skills, in the paper's order: Localized Narratives, DiffusionDB, CountBench, COCO, Whoops.
    ///
    /// # Errors
    /// Those of [`Skill::parse`]; a test makes sure that there are none.
    pub fn builtins() -> Result<Vec<Self>, LlmError> {
        BUILTINS
            .iter()
            .map(|(name, _)| Self::builtin(name))
            .collect()
    }

    /// Reads a skill file.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if the file cannot be read as UTF-8, else those of [`Skill::parse`].
    pub fn load(path: &Path) -> Result<Self, LlmError> {
        let toml = std::fs::read_to_string(path).map_err(DurableError::io("read skill", path))?;
        Self::parse(&toml, path)
    }

    /// Reads a skill from TOML; `path` is what errors call the source.
    ///
    /// # Errors
    /// [`LlmError::SkillSyntax`] for broken TOML and unknown, missing or mistyped fields, [`LlmError::SkillField`] for
    /// values that cannot be used: a name unfit for a file name, an empty text, no seeds, a seed twice, a limit of zero.
    pub fn parse(toml: &str, path: &Path) -> Result<Self, LlmError> {
        let skill: Self = toml::from_str(toml).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = toml.as_bytes().iter().take(start);
            LlmError::SkillSyntax {
                path: path.to_owned(),
                line: before.filter(|byte| **byte == b'\n').count() + 1,
                reason: error.message().to_owned(),
            }
        })?;
        skill.check(path)?;
        Ok(skill)
    }

    /// Checks the values of the fields; `path` is what errors call the source.
    ///
    /// # Errors
    /// [`LlmError::SkillField`], see [`Skill::parse`].
    pub fn check(&self, path: &Path) -> Result<(), LlmError> {
        let wrong = |field: &'static str, reason: String| {
            Err(LlmError::SkillField {
                path: path.to_owned(),
                field,
                reason,
            })
        };
        let fit = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-')
        };
        if self.name.is_empty() || self.name.len() > MAX_NAME_LEN || !self.name.bytes().all(fit) {
            let reason = format!(
                "must be 1 to {MAX_NAME_LEN} of a-z, 0-9, _ and -, found {:?}",
                self.name
            );
            return wrong("name", reason);
        }
        let texts = [
            ("description", &self.description),
            ("style", &self.style),
            ("instruction", &self.instruction),
        ];
        for (field, text) in texts {
            if text.trim().is_empty() {
                return wrong(field, "is empty".to_owned());
            }
        }
        if self.seeds.is_empty() {
            return wrong("seeds", "is empty".to_owned());
        }
        let mut seen = HashSet::new();
        for (index, seed) in self.seeds.iter().enumerate() {
            if seed.trim().is_empty() {
                return wrong("seeds", format!("has an empty text at index {index}"));
            }
            if seed.contains(['\n', '\r']) {
                return wrong("seeds", format!("has a line break at index {index}"));
            }
            if !seen.insert(seed.trim()) {
                return wrong("seeds", format!("has the same text again at index {index}"));
            }
        }
        for (field, value) in [("max_words", self.max_words), ("count", self.count)] {
            if value == 0 {
                return wrong(field, "must be at least 1, found 0".to_owned());
            }
        }
        Ok(())
    }

    /// The full text of a request: the instruction, then the examples as a list numbered from 1, each after an empty
    /// line, exactly as SELMA's `encode_prompt` lays it out (without its indentation).
    pub fn render<S: AsRef<str>>(&self, examples: &[S]) -> String {
        let mut text = self
            .instruction
            .trim()
            .replace("{count}", &self.count.to_string())
            .replace("{max_words}", &self.max_words.to_string());
        text.push('\n');
        for (index, example) in examples.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{}. {}\n", index + 1, example.as_ref());
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"tea\"\ndescription = \"d\"\nstyle = \"s\"\n\
        instruction = \"Write {count}.\"\nseeds = [\"a cup\"]\nmax_words = 9\n";

    fn fails_with(toml: &str, expected: &str) {
        let error = Skill::parse(toml, Path::new("dir/tea.toml")).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn the_paper_s_five_are_sound() {
        let skills = Skill::builtins().unwrap();
        let names: Vec<&str> = skills.iter().map(|skill| skill.name.as_str()).collect();
        assert_eq!(names, Skill::builtin_names());
        let limits: Vec<usize> = skills.iter().map(|skill| skill.max_words).collect();
        assert_eq!(limits, [50, 50, 30, 30, 30]);
        for skill in &skills {
            assert_eq!((skill.seeds.len(), skill.count), (3, 20), "{}", skill.name);
            assert!(skill.instruction.contains("{max_words}"), "{}", skill.name);
        }
    }

    #[test]
    fn a_request_reads_as_the_paper_s() {
        let skill = Skill::builtin("whoops").unwrap();
        let expected = "Please create 20 more diverse image descriptions. Here are several rules for creating the image description:\n\
            1. The image should be used to evaluate one of the skills of an image generator: spatial, count, animal, human, object, location, activity, color, attribute, food, material, shape.\n\
            3. The image descriptions need to mention diverse objects that frequently appear in daily life, but have some commonsense-defying combination.\n\
            4. The image descriptions should be less than 30 words.\n\
            5. The text style of the image descriptions should be different from each other.\n\
            \n\
            Here're some image description examples:\n\
            \n\
            1. Wheat is covered by snow.\n\
            \n\
            2. b\n";
        assert_eq!(skill.render(&["Wheat is covered by snow.", "b"]), expected);
    }

    #[test]
    fn a_user_s_skill_is_read_with_defaults() {
        let skill = Skill::parse(GOOD, Path::new("tea.toml")).unwrap();
        assert_eq!(skill.count, 20);
        assert_eq!(skill.render(&["x"]), "Write 20.\n\n1. x\n");
    }

    #[test]
    fn unknown_missing_and_mistyped_keys_are_named_with_their_line() {
        fails_with(
            &format!("{GOOD}seed = 3\n"),
            "dir/tea.toml, line 7: unknown field `seed`, expected one of `name`, `description`, `style`, \
             `instruction`, `seeds`, `max_words`, `count`",
        );
        fails_with(
            &GOOD.replace("seeds = [\"a cup\"]\n", ""),
            "dir/tea.toml, line 1: missing field `seeds`",
        );
        fails_with(
            &GOOD.replace("max_words = 9", "max_words = \"9\""),
            "dir/tea.toml, line 6: invalid type: string \"9\", expected usize",
        );
        let error = Skill::parse("name = \"tea", Path::new("tea.toml")).unwrap_err();
        assert!(error.to_string().starts_with("tea.toml, line 1: "));
    }

    #[test]
    fn unusable_values_are_named() {
        fails_with(
            &GOOD.replace("[\"a cup\"]", "[]"),
            "dir/tea.toml: field `seeds` is empty",
        );
        fails_with(
            &GOOD.replace("[\"a cup\"]", "[\"a cup\", \" \"]"),
            "dir/tea.toml: field `seeds` has an empty text at index 1",
        );
        fails_with(
            &GOOD.replace("a cup", "a\\nb"),
            "dir/tea.toml: field `seeds` has a line break at index 0",
        );
        fails_with(
            &GOOD.replace("[\"a cup\"]", "[\"a cup\", \"a cup\"]"),
            "dir/tea.toml: field `seeds` has the same text again at index 1",
        );
        fails_with(
            &GOOD.replace("Write {count}.", "  "),
            "dir/tea.toml: field `instruction` is empty",
        );
        fails_with(
            &GOOD.replace("\"tea\"", "\"../tea\""),
            "dir/tea.toml: field `name` must be 1 to 64 of a-z, 0-9, _ and -, found \"../tea\"",
        );
        fails_with(
            &GOOD.replace("= 9", "= 0"),
            "dir/tea.toml: field `max_words` must be at least 1, found 0",
        );
    }

    #[test]
    fn absent_files_and_names_are_errors() {
        let error = Skill::load(Path::new("no/such.toml")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read skill no/such.toml: ")
        );
        let error = Skill::builtin("Coco").unwrap_err().to_string();
        assert!(error.contains("'Coco'") && error.contains("count_bench, coco"));
    }
}
