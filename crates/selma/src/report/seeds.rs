//! Several runs of one recipe with different seeds, side by side.

use selma_eval::{Estimate, Paired};

use super::{escape, markdown::rows_of, number};

/// The models of one recipe in several runs, and what the runs show together.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedTable {
    /// Names of the runs.
    pub runs: Vec<String>,
    /// The models in the order of the runs' own tables, the base first.
    pub models: Vec<SeedRow>,
}

/// One model in several runs.
#[derive(Clone, Debug, PartialEq)]
pub struct SeedRow {
    /// Its name in every run.
    pub name: String,
    /// Its score in each run, in their order; shares between 0 and 1.
    pub scores: Vec<Estimate>,
    /// Its score minus the base's in each run, paired by prompt; empty for the base itself.
    pub differences: Vec<Paired>,
    /// Its score over the prompts of all runs.
    pub together: Estimate,
    /// Its score minus the base's over the prompts of all runs; `None` for the base itself.
    pub difference_together: Option<Paired>,
}

impl SeedTable {
    /// A Markdown table: scores of the base, differences of the others to it in each run and over the prompts of all.
    #[must_use]
    pub fn markdown(&self) -> String {
        let runs = self.runs.iter().map(|run| escape::markdown(run));
        let head: Vec<String> = std::iter::once("model".to_owned())
            .chain(runs)
            .chain(["together".to_owned(), "vs base".to_owned()])
            .collect();
        let rows = self.models.iter().map(|model| {
            let mut row = vec![escape::markdown(&model.name)];
            if model.differences.is_empty() {
                row.extend(model.scores.iter().map(score));
            } else {
                row.extend(model.differences.iter().map(difference));
            }
            row.push(score(&model.together));
            let together = model.difference_together.as_ref();
            row.push(together.map_or_else(String::new, difference));
            row
        });
        rows_of(&head, rows) + "\n"
    }
}

fn difference(paired: &Paired) -> String {
    escape::markdown(&number::difference(paired))
}

fn score(estimate: &Estimate) -> String {
    format!(
        "{} ({} to {})",
        number::percent(estimate.mean),
        number::percent(estimate.low),
        number::percent(estimate.high)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_base_has_scores_and_the_others_differences() {
        let estimate = |mean| Estimate {
            mean,
            low: mean - 0.02,
            high: mean + 0.02,
            n: 30,
            clusters: 10,
        };
        let paired = |difference| Paired {
            difference,
            low: difference - 0.01,
            high: difference + 0.01,
            p: 0.04,
            n: 30,
            clusters: 10,
        };
        let table = SeedTable {
            runs: vec!["one".to_owned(), "two".to_owned()],
            models: vec![
                SeedRow {
                    name: "base".to_owned(),
                    scores: vec![estimate(0.7), estimate(0.6)],
                    differences: Vec::new(),
                    together: estimate(0.65),
                    difference_together: None,
                },
                SeedRow {
                    name: "merged".to_owned(),
                    scores: vec![estimate(0.72), estimate(0.64)],
                    differences: vec![paired(0.02), paired(0.04)],
                    together: estimate(0.68),
                    difference_together: Some(paired(0.03)),
                },
            ],
        };
        let expected = "\
| model | one | two | together | vs base |
| --- | ---: | ---: | ---: | ---: |
| base | 70.0 (68.0 to 72.0) | 60.0 (58.0 to 62.0) | 65.0 (63.0 to 67.0) |  |
| merged | +2.0 (+1.0 to +3.0, p = 0.040) | +4.0 (+3.0 to +5.0, p = 0.040) | 68.0 (66.0 to 70.0) | +3.0 (+2.0 to +4.0, p = 0.040) |
";
        assert_eq!(table.markdown().replace('\u{a0}', " "), expected);
    }
}
