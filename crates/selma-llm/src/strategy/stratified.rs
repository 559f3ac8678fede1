//! Attributes that prompts are made to combine: [`Attributes`].

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use selma_durable::DurableError;
use serde::{Deserialize, Serialize};

use crate::LlmError;
use crate::toml_text::parse_toml;

/// Most combinations that the values may have.
const MAX_COMBINATIONS: u64 = u32::MAX as u64;

/// Attributes and their values, e.g. `color = ["red", "green"]`, for [`Strategy::Stratified`](crate::Strategy::Stratified).
///
/// In TOML it is a table of lists, `[attributes]` in a skill file or the whole of a file of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attributes(BTreeMap<String, Vec<String>>);

impl Attributes {
    /// Everyday objects, colors, counts up to three (as CountBench's rule has it) and spatial relations; the lists are ours.
    ///
    /// # Errors
    /// Those of [`Attributes::parse`]; a test makes sure that there are none.
    pub fn builtin() -> Result<Self, LlmError> {
        let path = Path::new("lists/attributes.toml");
        Self::parse(include_str!("../../lists/attributes.toml"), path)
    }

    /// Reads a file of attributes.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if the file cannot be read as UTF-8, else those of [`Attributes::parse`].
    pub fn load(path: &Path) -> Result<Self, LlmError> {
        let read = std::fs::read_to_string(path);
        Self::parse(
            &read.map_err(DurableError::io("read attributes", path))?,
            path,
        )
    }

    /// Reads attributes from TOML; `path` is what errors call the source.
    ///
    /// # Errors
    /// [`LlmError::SkillSyntax`] for what is no table of lists of texts, [`LlmError::SkillField`] if there is no attribute, an
    /// attribute without a value, a value that is empty, has a line break or stands there twice, or if there are more than
    /// 2³² - 1 combinations.
    pub fn parse(toml: &str, path: &Path) -> Result<Self, LlmError> {
        let attributes: Self = parse_toml(toml, path)?;
        attributes.check().map_err(|reason| LlmError::SkillField {
            path: path.to_owned(),
            field: "attributes",
            reason,
        })?;
        Ok(attributes)
    }

    /// What cannot be used.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.0.is_empty() {
            return Err("is empty".to_owned());
        }
        for (name, values) in &self.0 {
            if values.is_empty() {
                return Err(format!("has no value for `{name}`"));
            }
            let mut seen = HashSet::new();
            for (index, value) in values.iter().enumerate() {
                if value.trim().is_empty() || value.contains(['\n', '\r']) {
                    return Err(format!(
                        "has an empty text or a line break for `{name}` at index {index}"
                    ));
                }
                if !seen.insert(value) {
                    return Err(format!("has {value:?} twice for `{name}`"));
                }
            }
        }
        if self.combinations() > MAX_COMBINATIONS {
            return Err(format!(
                "has more than {MAX_COMBINATIONS} combinations of values"
            ));
        }
        Ok(())
    }

    /// How many combinations there are of one value of each attribute.
    pub fn combinations(&self) -> u64 {
        let sizes = self.0.values().map(|values| values.len() as u64);
        sizes.fold(1, u64::saturating_mul)
    }

    /// The combination with this number, counted from 0: `color: red, count: two, object: dog`.
    pub(crate) fn combination(&self, index: u64) -> String {
        let mut rest = index;
        let parts: Vec<String> = self
            .0
            .iter()
            .filter_map(|(name, values)| {
                let size = (values.len() as u64).max(1);
                let value = values.get(usize::try_from(rest % size).ok()?)?;
                rest /= size;
                Some(format!("{name}: {value}"))
            })
            .collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::strategy::cycle::Cycle;

    #[test]
    fn built_in_attributes_are_sound() {
        let attributes = Attributes::builtin().unwrap();
        let names: Vec<&String> = attributes.0.keys().collect();
        assert_eq!(names, ["color", "count", "object", "relation"]);
        assert!(attributes.combinations() > 10_000);
    }

    #[test]
    fn a_round_has_every_combination_once_and_a_stretch_every_value_equally_often() {
        let toml = "color = [\"red\", \"green\", \"blue\"]\ncount = [\"one\", \"two\"]\nobject = [\"dog\", \"cup\"]";
        let attributes = Attributes::parse(toml, Path::new("a.toml")).unwrap();
        assert_eq!(attributes.combinations(), 12);
        assert_eq!(
            attributes.combination(0),
            "color: red, count: one, object: dog"
        );
        assert_eq!(
            attributes.combination(11),
            "color: blue, count: two, object: cup"
        );
        let all: std::collections::HashSet<_> =
            (0..12).map(|i| attributes.combination(i)).collect();
        assert_eq!(all.len(), 12);

        let attributes = Attributes::builtin().unwrap();
        let cycle = Cycle::new(attributes.combinations(), 99);
        let mut seen: HashMap<String, usize> = HashMap::new();
        for k in 0..1000 {
            for part in attributes.combination(cycle.at(k)).split(", ") {
                *seen.entry(part.to_owned()).or_default() += 1;
            }
        }
        for (name, values) in &attributes.0 {
            let even = 1000 / values.len();
            for value in values {
                let count = seen[&format!("{name}: {value}")];
                assert!(
                    count.abs_diff(even) <= 2 + even / 4,
                    "{name} {value}: {count} of {even}"
                );
            }
        }
    }

    #[test]
    fn unusable_attributes_are_named() {
        for (toml, expected) in [
            ("", "a.toml: field `attributes` is empty"),
            (
                "color = []",
                "a.toml: field `attributes` has no value for `color`",
            ),
            (
                "color = [\"red\", \" \"]",
                "a.toml: field `attributes` has an empty text or a line break for `color` at index 1",
            ),
            (
                "color = [\"red\", \"red\"]",
                "a.toml: field `attributes` has \"red\" twice for `color`",
            ),
            (
                "\n\ncolor = 3",
                "a.toml, line 3: invalid type: integer `3`, expected a sequence",
            ),
        ] {
            let error = Attributes::parse(toml, Path::new("a.toml")).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let values: Vec<String> = (0..70_000).map(|i| format!("\"{i}\"")).collect();
        let toml = format!("a = [{0}]\nb = [{0}]", values.join(","));
        let error = Attributes::parse(&toml, Path::new("a.toml")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.toml: field `attributes` has more than 4294967295 combinations of values"
        );
        let error = Attributes::load(Path::new("no/such.toml")).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("cannot read attributes no/such.toml")
        );
    }
}
