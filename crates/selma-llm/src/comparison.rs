//! Sets of prompts side by side: [`PromptComparison`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::PromptStatistics;
use crate::statistics::ratio;

/// Statistics of several sets, to be read side by side: of two language models, of two strategies, of all skills.
///
/// Its text is a table with a column for each set; [`PromptComparison::rows`] has the same numbers for other uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PromptComparison {
    /// The sets, in the order of the columns.
    pub sets: Vec<PromptStatistics>,
}

/// One number of every set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComparisonRow {
    /// What it is, e.g. `distinct_2`, `coverage.color` or `rejected.similar`.
    pub name: String,
    /// The number of each set, in order; none where it is not known.
    pub values: Vec<Option<f64>>,
}

impl PromptComparison {
    /// The sets in this order.
    pub fn new(sets: Vec<PromptStatistics>) -> Self {
        Self { sets }
    }

    /// Every number, one row each. Coverage is a share of the prompts, tokens are also given for each accepted prompt.
    pub fn rows(&self) -> Vec<ComparisonRow> {
        let columns: Vec<Vec<(String, Option<f64>)>> = self.sets.iter().map(column).collect();
        let names = columns.first().into_iter().flatten().map(|(name, _)| name);
        let row = |(place, name): (usize, &String)| ComparisonRow {
            name: name.clone(),
            values: columns
                .iter()
                .map(|column| column.get(place).and_then(|(_, value)| *value))
                .collect(),
        };
        names.enumerate().map(row).collect()
    }
}

/// The numbers of one set; all sets have the same, in the same order.
fn column(set: &PromptStatistics) -> Vec<(String, Option<f64>)> {
    let report = set.report.unwrap_or_default();
    // Without a report none of its numbers is known.
    let of_run = |value: f64| set.report.map(|_| value);
    let [distinct_1, distinct_2, distinct_3] = set.distinct;
    let sure = [
        ("prompts", set.prompts as f64),
        ("words.min", set.words.min as f64),
        ("words.median", set.words.median),
        ("words.mean", set.words.mean),
        ("words.max", set.words.max as f64),
        ("vocabulary", set.vocabulary as f64),
        ("distinct_1", distinct_1),
        ("distinct_2", distinct_2),
        ("distinct_3", distinct_3),
        ("mean_nearest", set.mean_nearest),
    ];
    let coverage = set.coverage.iter().map(|kind| {
        let share = ratio(kind.prompts, set.prompts);
        (format!("coverage.{}", kind.kind), Some(share))
    });
    let asked = [
        ("requested", report.requested as f64),
        ("requests", report.requests as f64),
        ("parsed", report.parsed as f64),
        ("kept", report.kept as f64),
    ];
    let rejected = report
        .rejections()
        .map(|(reason, count)| (format!("rejected.{reason}"), of_run(count as f64)));
    let tokens = report.usage.total_tokens() as f64;
    let answers = [
        ("surplus", report.surplus as f64),
        ("cut", report.cut as f64),
        ("filtered", report.filtered as f64),
        ("without_prompts", report.without_prompts as f64),
        ("skipped_lines", report.skipped_lines as f64),
        ("misnumbered", report.misnumbered as f64),
        ("empty", report.empty as f64),
        ("removed_characters", report.removed_characters as f64),
        ("tokens", tokens),
        ("tokens_per_prompt", tokens / report.kept.max(1) as f64),
    ];
    let named = |(name, value): (&str, f64)| (name.to_owned(), of_run(value));
    sure.into_iter()
        .map(|(name, value)| (name.to_owned(), Some(value)))
        .chain(coverage)
        .chain(asked.into_iter().map(named))
        .chain(rejected)
        .chain(answers.into_iter().map(named))
        .chain([("cost".to_owned(), report.cost)])
        .collect()
}

/// Columns as wide as their widest text; whole numbers without, others with three decimals, `-` for what is not known.
impl fmt::Display for PromptComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = self.sets.iter().map(|set| set.name.clone());
        let mut lines: Vec<Vec<String>> = vec![[String::new()].into_iter().chain(head).collect()];
        for row in self.rows() {
            let values = row.values.iter().map(|value| match value {
                Some(value) if value.fract() == 0.0 => format!("{value}"),
                Some(value) => format!("{value:.3}"),
                None => "-".to_owned(),
            });
            lines.push([row.name].into_iter().chain(values).collect());
        }
        let widths: Vec<usize> = (0..=self.sets.len())
            .map(|column| {
                let cells = lines.iter().filter_map(|line| line.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for line in &lines {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:width$}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use selma_rouge::Tokenizer;

    use super::*;
    use crate::{GenerationReport, Prompt, Usage};

    fn set(name: &str, texts: &[&str]) -> PromptStatistics {
        let prompts: Vec<Prompt> = (0..)
            .zip(texts)
            .map(|(number, text)| Prompt::new("coco", number, *text))
            .collect();
        PromptStatistics::new(name, &prompts, Tokenizer::Rouge).unwrap()
    }

    #[test]
    fn rows_have_a_value_of_each_set() {
        let report = GenerationReport {
            requested: 2,
            kept: 2,
            rejected_similar: 3,
            misnumbered: 4,
            cost: Some(0.125),
            usage: Usage {
                prompt_tokens: 30,
                completion_tokens: 15,
            },
            ..GenerationReport::default()
        };
        let comparison = PromptComparison::new(vec![
            set("llama", &["a red dog", "two cups of tea"]).with_report(report),
            set("gpt", &["a red dog"]),
        ]);
        let rows = comparison.rows();
        let row = |name: &str| {
            let row = rows.iter().find(|row| row.name == name);
            row.unwrap_or_else(|| panic!("{name}")).values.clone()
        };
        assert_eq!(row("prompts"), [Some(2.0), Some(1.0)]);
        assert_eq!(row("coverage.color"), [Some(0.5), Some(1.0)]);
        assert_eq!(row("rejected.similar"), [Some(3.0), None]);
        assert_eq!(row("tokens_per_prompt"), [Some(22.5), None]);
        assert_eq!(row("misnumbered"), [Some(4.0), None]);
        assert_eq!(row("cost"), [Some(0.125), None]);
        assert!(rows.iter().all(|row| row.values.len() == 2));

        let text = comparison.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), rows.len() + 1);
        assert!(lines[0].ends_with("  llama  gpt"), "{text}");
        assert!(lines[1].starts_with("prompts  ") && lines[1].ends_with("     2    1"));
        assert!(text.contains("22.500    -\n"), "{text}");
        let length = lines[0].len();
        assert!(lines.iter().all(|line| line.len() == length), "{text}");

        let json = serde_json::to_string(&comparison).unwrap();
        let read: PromptComparison = serde_json::from_str(&json).unwrap();
        assert_eq!(read, comparison);
    }

    #[test]
    fn nothing_compares_to_nothing() {
        assert!(PromptComparison::default().rows().is_empty());
        assert_eq!(PromptComparison::default().to_string(), "\n");
    }
}
