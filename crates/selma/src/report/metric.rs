//! Several metrics of the same models, which need not be shares.

use std::collections::BTreeMap;

use selma_eval::{Estimate, Paired, stats::percentile};

use super::{ModelKind, number};

/// One metric of several models.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// "DSG", "TIFA", "VQAScore", or the name of a scorer.
    pub name: String,
    /// What tells it from another of this name, such as who judged; may be empty.
    pub detail: String,
    /// What its numbers mean.
    pub unit: Unit,
    /// The models that were measured by it.
    pub rows: Vec<MetricRow>,
}

/// What the numbers of a metric mean. More is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share between 0 and 1, shown in percent.
    Share,
    /// A number on the metric's own scale.
    Plain,
}

/// One model measured by one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRow {
    /// Name of the model.
    pub model: String,
    /// The part that it plays.
    pub kind: ModelKind,
    /// Over all prompts.
    pub overall: Estimate,
    /// This model minus the base, paired by prompt; `None` for the base itself, and where the two have other prompts.
    pub difference_to_base: Option<Paired>,
    /// By the question's category, or the prompt's skill where there are no questions.
    pub by_category: BTreeMap<String, Estimate>,
    /// The score of each prompt by its id.
    pub values: BTreeMap<String, f64>,
}

impl Metric {
    /// The row of a model.
    pub(super) fn row(&self, model: &str) -> Option<&MetricRow> {
        self.rows.iter().find(|row| row.model == model)
    }

    /// Name and detail in one line.
    pub(super) fn title(&self) -> String {
        match self.detail.is_empty() {
            true => self.name.clone(),
            false => format!("{}, {}", self.name, self.detail),
        }
    }
}

impl MetricRow {
    /// The lower quartile, the median and the upper quartile of the prompts' scores; `None` without a finite one.
    pub(super) fn quartiles(&self) -> Option<[f64; 3]> {
        let values: Vec<f64> = self.finite().collect();
        let at = |q| percentile(&values, q);
        Some([at(0.25)?, at(0.5)?, at(0.75)?])
    }

    /// The scores that have a place on an axis.
    pub(super) fn finite(&self) -> impl Iterator<Item = f64> {
        self.values
            .values()
            .copied()
            .filter(|value| value.is_finite())
    }
}

impl Unit {
    /// What an axis is labelled with.
    pub(super) const fn factor(self) -> f64 {
        match self {
            Self::Share => 100.0,
            Self::Plain => 1.0,
        }
    }

    /// The sign behind an axis.
    pub(super) const fn sign(self) -> &'static str {
        match self {
            Self::Share => "%",
            Self::Plain => "",
        }
    }

    /// Between what the values of an axis lie.
    pub(super) const fn bounds(self) -> (f64, f64) {
        match self {
            Self::Share => (0.0, 100.0),
            Self::Plain => (-1e9, 1e9),
        }
    }

    /// A score with as many digits as one of the size of `like` deserves.
    pub(super) fn score(self, value: f64, like: f64) -> String {
        match self {
            Self::Share => number::percent(value),
            Self::Plain => number::decimal(value, like),
        }
    }

    /// A difference with its sign, in points or with the digits of `like`.
    pub(super) fn difference(self, value: f64, like: f64) -> String {
        match self {
            Self::Share => number::points(value),
            Self::Plain => {
                let text = number::decimal(value, like);
                match value > 0.0 && text.contains(|c: char| ('1'..='9').contains(&c)) {
                    true => format!("+{text}"),
                    false => text,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_have_the_digits_of_their_scale() {
        let plain = Unit::Plain;
        assert_eq!(plain.score(21.4321, 21.4), "21.43");
        assert_eq!(plain.score(0.271_23, 0.27), "0.2712");
        assert_eq!(plain.score(f64::NAN, 1.0), "-");
        assert_eq!(plain.difference(0.034, 21.4), "+0.03");
        assert_eq!(plain.difference(-0.000_01, 21.4), "0.00");
        assert_eq!(Unit::Share.difference(0.034, 0.7), "+3.4");
        assert_eq!(Unit::Share.score(0.7, 0.7), "70.0");
    }
}
