//! A tree of topics: [`Topics`].

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::Path;

use selma_durable::DurableError;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::LlmError;
use crate::toml_text::parse_toml;

/// A tree of topics for [`Strategy::Taxonomy`](crate::Strategy::Taxonomy): tables of tables of lists, e.g.
/// `animals.pets = ["a cat"]`.
///
/// In TOML it is `[topics]` in a skill file or the whole of a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Topics {
    /// The topics that requests name.
    Leaves(Vec<String>),
    /// Trees by their names.
    Branches(BTreeMap<String, Topics>),
}

impl Topics {
    /// The built-in tree for the skill of this name: kinds of art for `diffusion_db` and `midjourney`, ways to defy common
    /// sense for `whoops`, things that can be counted for `count_bench`, everyday life for all others. The trees are ours.
    ///
    /// # Errors
    /// Those of [`Topics::parse`]; a test makes sure that there are none.
    pub fn builtin(skill: &str) -> Result<Self, LlmError> {
        let (name, toml) = match skill {
            "diffusion_db" | "midjourney" => ("art", include_str!("../../topics/art.toml")),
            "whoops" => ("unusual", include_str!("../../topics/unusual.toml")),
            "count_bench" => ("countable", include_str!("../../topics/countable.toml")),
            _ => ("everyday", include_str!("../../topics/everyday.toml")),
        };
        Self::parse(toml, Path::new(&format!("topics/{name}.toml")))
    }

    /// Reads a file of topics.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if the file cannot be read as UTF-8, else those of [`Topics::parse`].
    pub fn load(path: &Path) -> Result<Self, LlmError> {
        let read = std::fs::read_to_string(path);
        Self::parse(&read.map_err(DurableError::io("read topics", path))?, path)
    }

    /// Reads topics from TOML; `path` is what errors call the source.
    ///
    /// # Errors
    /// [`LlmError::SkillSyntax`] for what is no tree of lists of texts, [`LlmError::SkillField`] for a branch without topics
    /// and a topic that is empty, has a line break or stands twice in its list.
    pub fn parse(toml: &str, path: &Path) -> Result<Self, LlmError> {
        let topics: Self = parse_toml(toml, path)?;
        topics.check().map_err(|reason| LlmError::SkillField {
            path: path.to_owned(),
            field: "topics",
            reason,
        })?;
        Ok(topics)
    }

    /// What cannot be used.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Self::Leaves(leaves) if leaves.is_empty() => {
                Err("has a list without topics".to_owned())
            }
            Self::Branches(branches) if branches.is_empty() => {
                Err("has a table without topics".to_owned())
            }
            Self::Leaves(leaves) => {
                let mut seen = HashSet::new();
                for (index, leaf) in leaves.iter().enumerate() {
                    if leaf.trim().is_empty() || leaf.contains(['\n', '\r']) {
                        return Err(format!(
                            "has an empty text or a line break at index {index} of a list"
                        ));
                    }
                    if !seen.insert(leaf) {
                        return Err(format!("has {leaf:?} twice in a list"));
                    }
                }
                Ok(())
            }
            Self::Branches(branches) => branches.values().try_for_each(Self::check),
        }
    }

    /// All topics with the names of their branches, the nearest first: `a cat (pets, animals)`.
    pub fn leaves(&self) -> Vec<String> {
        let mut leaves = Vec::new();
        self.collect(&mut Vec::new(), &mut leaves);
        leaves
    }

    fn collect<'a>(&'a self, branch: &mut Vec<&'a str>, found: &mut Vec<String>) {
        match self {
            Self::Leaves(leaves) => {
                let names: Vec<&str> = branch.iter().rev().copied().collect();
                let branch = names.join(", ");
                found.extend(leaves.iter().map(|leaf| match branch.as_str() {
                    "" => leaf.clone(),
                    branch => format!("{leaf} ({branch})"),
                }));
            }
            Self::Branches(branches) => {
                for (name, topics) in branches {
                    branch.push(name);
                    topics.collect(branch, found);
                    branch.pop();
                }
            }
        }
    }
}

/// By hand, because serde's `untagged` would not say what is wrong, nor where.
impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;

        impl<'de> Visitor<'de> for Tree {
            type Value = Topics;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of topics or a table of such lists")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Topics, A::Error> {
                let mut leaves = Vec::new();
                while let Some(leaf) = values.next_element()? {
                    leaves.push(leaf);
                }
                Ok(Topics::Leaves(leaves))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Topics, A::Error> {
                let mut branches = BTreeMap::new();
                while let Some((name, topics)) = fields.next_entry()? {
                    branches.insert(name, topics);
                }
                Ok(Topics::Branches(branches))
            }
        }

        deserializer.deserialize_any(Tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Skill;

    #[test]
    fn built_in_topics_are_sound() {
        let mut trees = HashSet::new();
        for name in Skill::builtin_names() {
            let leaves = Topics::builtin(name).unwrap().leaves();
            assert!(leaves.len() >= 30, "{name}: {}", leaves.len());
            let different: HashSet<&String> = leaves.iter().collect();
            assert_eq!(different.len(), leaves.len(), "{name}");
            assert!(
                leaves.iter().all(|leaf| !leaf.contains("example")),
                "{name}"
            );
            trees.insert(leaves);
        }
        assert_eq!(trees.len(), 4);
    }

    #[test]
    fn a_tree_of_any_depth_is_read() {
        let toml = "plain = [\"tea\"]\n[animals]\npets = [\"a cat\", \"a dog\"]\n[animals.wild]\nbirds = [\"an owl\"]";
        let topics = Topics::parse(toml, Path::new("t.toml")).unwrap();
        assert_eq!(
            topics.leaves(),
            [
                "a cat (pets, animals)",
                "a dog (pets, animals)",
                "an owl (birds, wild, animals)",
                "tea (plain)"
            ]
        );
        let json = serde_json::to_string(&topics).unwrap();
        assert_eq!(serde_json::from_str::<Topics>(&json).unwrap(), topics);
        assert_eq!(Topics::Leaves(vec!["x".to_owned()]).leaves(), ["x"]);
    }

    #[test]
    fn unusable_topics_are_named() {
        for (toml, expected) in [
            ("", "t.toml: field `topics` has a table without topics"),
            ("a = []", "t.toml: field `topics` has a list without topics"),
            (
                "a = [\"x\", \"\"]",
                "t.toml: field `topics` has an empty text or a line break at index 1 of a list",
            ),
            (
                "a = [\"x\", \"x\"]",
                "t.toml: field `topics` has \"x\" twice in a list",
            ),
            (
                "a = [\"x\"]\nb = 3",
                "t.toml, line 2: invalid type: integer `3`, expected a list of topics or a table of such lists",
            ),
            (
                "a = [\"x\", 3]",
                "t.toml, line 1: invalid type: integer `3`, expected a string",
            ),
        ] {
            let error = Topics::parse(toml, Path::new("t.toml")).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
