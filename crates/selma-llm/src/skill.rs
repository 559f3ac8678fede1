//! What an LLM is asked to write prompts about: [`Skill`], as TOML; the paper's five and two more are built in.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use selma_durable::DurableError;
use serde::{Deserialize, Serialize};

use crate::rules::script_of_name;
use crate::toml_text::parse_toml;
use crate::{Attributes, LlmError, Topics};

/// Longest name of a skill, in bytes: names become file names.
const MAX_NAME_LEN: usize = 64;

/// How many of the built-in skills, the first ones, are the paper's.
const OF_PAPER: usize = 5;

const BUILTINS: [(&str, &str); 7] = [
    (
        "localized_narratives",
        include_str!("../skills/localized_narratives.toml"),
    ),
    ("diffusion_db", include_str!("../skills/diffusion_db.toml")),
    ("count_bench", include_str!("../skills/count_bench.toml")),
    ("coco", include_str!("../skills/coco.toml")),
    ("whoops", include_str!("../skills/whoops.toml")),
    ("midjourney", include_str!("../skills/midjourney.toml")),
    ("all", include_str!("../skills/all.toml")),
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
    /// Fewest words a prompt may have. Default 1; Self-Instruct wants 4.
    #[serde(
        default = "default_min_words",
        skip_serializing_if = "is_default_min_words"
    )]
    pub min_words: usize,
    /// Most characters a prompt may have. Default 2000, far more than any text encoder reads; it keeps a text without a
    /// single space from counting as one word.
    #[serde(
        default = "default_max_characters",
        skip_serializing_if = "is_default_max_characters"
    )]
    pub max_characters: usize,
    /// Scripts whose letters a prompt may have, by their Unicode names, e.g. `["latin"]`; digits, punctuation and emoji
    /// belong to every script. Default: none, and any script is good. It stands for a limit of language, which a script can
    /// only hint at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
    /// What [`Strategy::Stratified`](crate::Strategy::Stratified) combines. Default: [`Attributes::builtin`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Attributes>,
    /// What [`Strategy::Taxonomy`](crate::Strategy::Taxonomy) goes through. Default: [`Topics::builtin`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<Topics>,
}

fn default_count() -> usize {
    20
}

fn default_min_words() -> usize {
    1
}

fn default_max_characters() -> usize {
    2000
}

// Settings at their default are not written, so that skills of earlier versions keep their text and its hash.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands the field over by reference"
)]
fn is_default_min_words(words: &usize) -> bool {
    *words == default_min_words()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands the field over by reference"
)]
fn is_default_max_characters(characters: &usize) -> bool {
    *characters == default_max_characters()
}

impl Skill {
    /// The names of the built-in skills: the paper's five in its order, then those that only its code has.
    pub fn builtin_names() -> Vec<&'static str> {
        BUILTINS.iter().map(|(name, _)| *name).collect()
    }

    /// The built-in skill of this name.
    ///
    /// # Errors
    /// [`LlmError::UnknownSkill`] lists the names there are.
    pub fn builtin(name: &str) -> Result<Self, LlmError> {
        let toml = Self::builtin_toml(name)?;
        Self::parse(toml, &PathBuf::from(format!("skills/{name}.toml")))
    }

    /// The file of a built-in skill, with its comments: what to begin a skill of one's own with.
    ///
    /// # Errors
    /// [`LlmError::UnknownSkill`] lists the names there are.
    pub fn builtin_toml(name: &str) -> Result<&'static str, LlmError> {
        let found = BUILTINS.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, toml)| *toml)
            .ok_or_else(|| LlmError::UnknownSkill {
                name: name.to_owned(),
                known: Self::builtin_names(),
            })
    }

    /// All built-in skills, in the order of [`Skill::builtin_names`].
    ///
    /// # Errors
    /// Those of [`Skill::parse`]; a test makes sure that there are none.
    pub fn builtins() -> Result<Vec<Self>, LlmError> {
        let names = BUILTINS.iter().map(|(name, _)| name);
        names.map(|name| Self::builtin(name)).collect()
    }

    /// The paper's five skills, in its order: Localized Narratives, DiffusionDB, CountBench, COCO, Whoops.
    ///
    /// # Errors
    /// Those of [`Skill::parse`]; a test makes sure that there are none.
    pub fn of_paper() -> Result<Vec<Self>, LlmError> {
        let names = BUILTINS.iter().take(OF_PAPER).map(|(name, _)| name);
        names.map(|name| Self::builtin(name)).collect()
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
    /// values that cannot be used: a name unfit for a file name, an empty text, no seeds, a seed twice, a limit of zero
    /// or below another, an unknown script, and attributes or topics as [`Attributes::parse`] and [`Topics::parse`] refuse them.
    pub fn parse(toml: &str, path: &Path) -> Result<Self, LlmError> {
        let skill: Self = parse_toml(toml, path)?;
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
        let numbers = [
            ("max_words", self.max_words),
            ("count", self.count),
            ("min_words", self.min_words),
            ("max_characters", self.max_characters),
        ];
        for (field, value) in numbers {
            if value == 0 {
                return wrong(field, "must be at least 1, found 0".to_owned());
            }
        }
        if self.min_words > self.max_words {
            let reason = format!(
                "must be at most `max_words`, {}, found {}",
                self.max_words, self.min_words
            );
            return wrong("min_words", reason);
        }
        for name in &self.scripts {
            if script_of_name(name).is_none() {
                let reason =
                    format!("must have names of Unicode scripts as `latin`, found {name:?}");
                return wrong("scripts", reason);
            }
        }
        let attributes = self.attributes.as_ref().map(Attributes::check);
        if let Some(Err(reason)) = attributes {
            return wrong("attributes", reason);
        }
        if let Some(Err(reason)) = self.topics.as_ref().map(Topics::check) {
            return wrong("topics", reason);
        }
        Ok(())
    }

    /// The full text of a request: the instruction, then the examples as a list numbered from 1, each after an empty
    /// line, exactly as SELMA's `encode_prompt` lays it out (without its indentation).
    pub fn render<S: AsRef<str>>(&self, examples: &[S]) -> String {
        self.render_with(None, examples)
    }

    /// The same with a further sentence, in a paragraph before the last line of the instruction, which announces the examples.
    pub(crate) fn render_with<S: AsRef<str>>(
        &self,
        sentence: Option<&str>,
        examples: &[S],
    ) -> String {
        let mut text = self
            .instruction
            .trim()
            .replace("{count}", &self.count.to_string())
            .replace("{max_words}", &self.max_words.to_string());
        if let Some(sentence) = sentence {
            let last = text.rfind('\n').map_or(0, |end| end + 1);
            text.insert_str(last, &format!("{sentence}\n\n"));
        }
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
    fn the_built_in_ones_are_sound() {
        let skills = Skill::builtins().unwrap();
        let names: Vec<&str> = skills.iter().map(|skill| skill.name.as_str()).collect();
        assert_eq!(names, Skill::builtin_names());
        assert_eq!(Skill::of_paper().unwrap(), skills[..5]);
        let limits: Vec<usize> = skills.iter().map(|skill| skill.max_words).collect();
        assert_eq!(limits, [50, 50, 30, 30, 30, 50, 30]);
        for skill in &skills {
            let seeds = if skill.name == "all" { 15 } else { 3 };
            assert_eq!(skill.seeds.len(), seeds, "{}", skill.name);
            assert_eq!(skill.count, 20, "{}", skill.name);
            assert!(skill.instruction.contains("{max_words}"), "{}", skill.name);
        }
        let skill = |name| Skill::builtin(name).unwrap();
        assert_eq!(
            skill("midjourney").instruction,
            skill("diffusion_db").instruction
        );
        assert_eq!(skill("all").instruction, skill("coco").instruction);
        let seeds = Skill::of_paper().unwrap();
        let seeds: Vec<String> = seeds.into_iter().flat_map(|skill| skill.seeds).collect();
        assert_eq!(skill("all").seeds, seeds);
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
        let with = skill.render_with(Some("Only tea."), &["Wheat is covered by snow.", "b"]);
        assert_eq!(with, expected.replace("Here're", "Only tea.\n\nHere're"));
    }

    #[test]
    fn a_user_s_skill_is_read_with_defaults() {
        let skill = Skill::parse(GOOD, Path::new("tea.toml")).unwrap();
        assert_eq!((skill.count, skill.min_words), (20, 1));
        assert_eq!(skill.render(&["x"]), "Write 20.\n\n1. x\n");
        assert_eq!(
            skill.render_with(Some("Only tea."), &["x"]),
            "Only tea.\n\nWrite 20.\n\n1. x\n"
        );
        // As an editor on Windows writes it.
        let dos = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
        assert_eq!(Skill::parse(&dos, Path::new("tea.toml")).unwrap(), skill);
    }

    #[test]
    fn the_skill_of_the_page_is_sound() {
        let page = include_str!("../README.md");
        let (_, page) = page.split_once("## A skill of your own").unwrap();
        let (_, toml) = page.split_once("```toml\n").unwrap();
        let (toml, _) = toml.split_once("```").unwrap();
        let skill = Skill::parse(toml, Path::new("README.md")).unwrap();
        assert_eq!((skill.min_words, skill.max_characters), (4, 300));
        assert_eq!(skill.topics.unwrap().leaves().len(), 4);
    }

    #[test]
    fn settings_at_their_default_are_not_written() {
        let skill = Skill::parse(GOOD, Path::new("tea.toml")).unwrap();
        let json = serde_json::to_string(&skill).unwrap();
        assert!(json.ends_with("\"max_words\":9,\"count\":20}"), "{json}");
        let toml = format!(
            "{GOOD}min_words = 2\nmax_characters = 50\nscripts = [\"Han\"]\n\
            attributes = {{ color = [\"red\"] }}\ntopics = {{ teas = [\"green\"] }}\n"
        );
        let skill = Skill::parse(&toml, Path::new("tea.toml")).unwrap();
        let json = serde_json::to_string(&skill).unwrap();
        assert!(json.contains("\"max_characters\":50"), "{json}");
        assert_eq!(serde_json::from_str::<Skill>(&json).unwrap(), skill);
        let toml = toml::to_string(&skill).unwrap();
        assert_eq!(Skill::parse(&toml, Path::new("tea.toml")).unwrap(), skill);
    }

    #[test]
    fn unknown_missing_and_mistyped_keys_are_named_with_their_line() {
        fails_with(
            &format!("{GOOD}seed = 3\n"),
            "dir/tea.toml, line 7: unknown field `seed`, expected one of `name`, `description`, `style`, \
             `instruction`, `seeds`, `max_words`, `count`, `min_words`, `max_characters`, `scripts`, `attributes`, `topics`",
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
        for (line, expected) in [
            (
                "max_characters = 0",
                "`max_characters` must be at least 1, found 0",
            ),
            (
                "min_words = 10",
                "`min_words` must be at most `max_words`, 9, found 10",
            ),
            (
                "scripts = [\"latin\", \"klingon\"]",
                "`scripts` must have names of Unicode scripts as `latin`, found \"klingon\"",
            ),
            (
                "attributes = { color = [] }",
                "`attributes` has no value for `color`",
            ),
            ("topics = {}", "`topics` has a table without topics"),
        ] {
            fails_with(
                &format!("{GOOD}{line}\n"),
                &format!("dir/tea.toml: field {expected}"),
            );
        }
    }

    #[test]
    fn absent_files_and_names_are_errors() {
        let error = Skill::load(Path::new("no/such.toml")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("cannot read skill no/such.toml: ")
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bytes.toml");
        std::fs::write(&path, b"name = \"\xff\"").unwrap();
        let error = Skill::load(&path).unwrap_err().to_string();
        assert!(
            error.contains("bytes.toml") && error.contains("UTF-8"),
            "{error}"
        );
        let error = Skill::builtin("Coco").unwrap_err().to_string();
        assert!(error.contains("'Coco'") && error.contains("count_bench, coco"));
    }
}
