//! Krippendorff's alpha.

use std::collections::BTreeMap;

/// Krippendorff's alpha for nominal labels (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability"): how far several
/// raters agree beyond what chance gives. 1 is agreement throughout, 0 that of chance; below 0 they disagree more than that.
///
/// Each unit is the list of the labels it was given, by any number of raters; one of fewer than two labels says nothing of
/// agreement and is left out. `None` if no unit is left, or all labels are the same, which chance would agree on, too.
pub fn krippendorff(units: &[Vec<usize>]) -> Option<f64> {
    let mut coincidences = Coincidences::default();
    for labels in units {
        coincidences.add_unit(labels);
    }
    coincidences.alpha()
}

/// How often two labels stand at the same unit; each unit counts as much as it has labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coincidences {
    counts: BTreeMap<(usize, usize), f64>,
}

impl Coincidences {
    /// Counts the pairs of labels of a unit.
    pub(crate) fn add_unit(&mut self, labels: &[usize]) {
        for (index, &label) in labels.iter().enumerate() {
            for (other, &second) in labels.iter().enumerate() {
                if index != other {
                    let count = self.counts.entry((label, second)).or_default();
                    *count += 1.0 / (labels.len() as f64 - 1.0);
                }
            }
        }
    }

    /// Adds the counts of other units.
    pub(crate) fn add(&mut self, other: &Self) {
        for (&labels, count) in &other.counts {
            *self.counts.entry(labels).or_default() += count;
        }
    }

    /// The share of the pairs of labels that agree; `None` without pairs.
    pub(crate) fn agreement(&self) -> Option<f64> {
        let all: f64 = self.counts.values().sum();
        let equal: f64 = self
            .counts
            .iter()
            .filter(|((first, second), _)| first == second)
            .map(|(_, count)| count)
            .sum();
        (all > 0.0).then_some(equal / all)
    }

    /// Krippendorff's alpha; see [`krippendorff`].
    pub(crate) fn alpha(&self) -> Option<f64> {
        let observed = 1.0 - self.agreement()?;
        let mut labels: BTreeMap<usize, f64> = BTreeMap::new();
        for ((label, _), count) in &self.counts {
            *labels.entry(*label).or_default() += count;
        }
        let all: f64 = labels.values().sum();
        let equal: f64 = labels.values().map(|count| count * (count - 1.0)).sum();
        let expected = 1.0 - equal / (all * (all - 1.0));
        (labels.len() > 1).then(|| 1.0 - observed / expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_throughout_is_1_and_one_label_alone_says_nothing() {
        assert_eq!(krippendorff(&[vec![0, 0], vec![1, 1, 1]]), Some(1.0));
        assert_eq!(krippendorff(&[vec![0, 0], vec![0, 0]]), None);
        assert_eq!(krippendorff(&[vec![0], vec![1], vec![]]), None);
        assert_eq!(krippendorff(&[]), None);
    }

    #[test]
    fn units_with_one_label_are_left_out() {
        let units = [vec![0, 0, 1], vec![1, 1], vec![2, 0]];
        let mut more = units.to_vec();
        more.extend([vec![2], vec![7], vec![]]);
        assert_eq!(krippendorff(&units), krippendorff(&more));
    }

    #[test]
    fn disagreement_throughout_is_below_0() {
        // Two raters, two units: the chance that two of the four labels differ is 4 of 6.
        let alpha = krippendorff(&[vec![0, 1], vec![1, 0]]).unwrap();
        assert!((alpha + 0.5).abs() < 1e-12, "{alpha}");
    }
}
