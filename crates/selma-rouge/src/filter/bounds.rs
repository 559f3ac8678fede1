//! How much two texts must have in common, by their lengths.
#![allow(
    clippy::indexing_slicing,
    reason = "the tables are square, and read only for lengths below their side"
)]

use crate::Score;

/// Lengths below this have their answers in tables; a prompt for an image is hardly ever longer.
const SIDE: usize = 64;

/// The question whether F is greater than a threshold, turned into whole numbers.
///
/// F grows with the common length for fixed lengths of the texts: a step changes it by a factor of at least
/// `1 + 1 / common`, far more than its rounding. So one least common length answers for all, and the float is compared
/// only here.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    threshold: f64,
    beta: f64,
    /// [`least`](Self::least) of a target's length `t` and a prediction's length `p` at `p * SIDE + t`.
    least: Box<[u16]>,
    /// [`compute_prefix`](Self::compute_prefix) by length, of targets and of predictions.
    target_prefix: Box<[u16]>,
    prediction_prefix: Box<[u16]>,
}

impl Bounds {
    pub(super) fn new(threshold: f64, beta: f64) -> Self {
        let mut bounds = Self {
            threshold,
            beta,
            least: Box::default(),
            target_prefix: Box::default(),
            prediction_prefix: Box::default(),
        };
        let pairs = (0..SIDE * SIDE).map(|i| bounds.compute(i % SIDE, i / SIDE) as u16);
        let least = pairs.collect();
        let target_prefix =
            (0..SIDE).map(|length| bounds.compute_prefix(length, Role::Target) as u16);
        let target_prefix = target_prefix.collect();
        let prediction_prefix =
            (0..SIDE).map(|length| bounds.compute_prefix(length, Role::Prediction) as u16);
        bounds.prediction_prefix = prediction_prefix.collect();
        bounds.target_prefix = target_prefix;
        bounds.least = least;
        bounds
    }

    /// The score of `common` tokens, with the F that is asked for.
    pub(super) fn score(&self, common: usize, target: usize, prediction: usize) -> Score {
        Score::from_common_beta(common, target, prediction, self.beta)
    }

    /// The least common length whose F is greater than the threshold; more than either length if there is none.
    pub(super) fn least(&self, target: usize, prediction: usize) -> usize {
        if target < SIDE && prediction < SIDE {
            usize::from(self.least[prediction * SIDE + target])
        } else {
            self.compute(target, prediction)
        }
    }

    /// [`least`](Self::least) by the lengths of targets, as far as the table goes.
    pub(super) fn row(&self, prediction: usize) -> &[u16] {
        self.least
            .chunks_exact(SIDE)
            .nth(prediction)
            .unwrap_or_default()
    }

    /// The least common length, at least 1, whose F is not less than `fmeasure`; more than either length if there is
    /// none.
    pub(super) fn least_reaching(&self, fmeasure: f64, target: usize, prediction: usize) -> usize {
        self.search(fmeasure, target, prediction, |f| f >= fmeasure)
    }

    fn compute(&self, target: usize, prediction: usize) -> usize {
        self.search(self.threshold, target, prediction, |f| f > self.threshold)
    }

    fn search(
        &self,
        fmeasure: f64,
        target: usize,
        prediction: usize,
        reaches: impl Fn(f64) -> bool,
    ) -> usize {
        let most = target.min(prediction);
        let reaches = |common| reaches(self.score(common, target, prediction).fmeasure);
        // F is (1 + b²) common / (b² target + prediction) up to rounding.
        let square = self.beta * self.beta;
        let guess = fmeasure * (square * target as f64 + prediction as f64) / (1.0 + square);
        let mut least = (guess as usize).clamp(1, most + 1);
        while least > 1 && reaches(least - 1) {
            least -= 1;
        }
        while least <= most && !reaches(least) {
            least += 1;
        }
        least
    }

    /// How many of its rarest tokens a kept text must be found by; see [`Role`].
    pub(super) fn target_prefix(&self, length: usize) -> usize {
        match self.target_prefix.get(length) {
            Some(&prefix) => usize::from(prefix),
            None => self.compute_prefix(length, Role::Target),
        }
    }

    /// How many of its rarest tokens must be looked up for a text that is offered; see [`Role`].
    pub(super) fn prediction_prefix(&self, length: usize) -> usize {
        match self.prediction_prefix.get(length) {
            Some(&prefix) => usize::from(prefix),
            None => self.compute_prefix(length, Role::Prediction),
        }
    }

    /// Two texts that have `a` tokens in common share one of the first `m - a + 1` and `n - a + 1` in any order that
    /// both are sorted by. Here `a` is the least that any length of the other text can ask for: the shortest other text
    /// that still reaches the threshold when it is wholly contained.
    fn compute_prefix(&self, length: usize, role: Role) -> usize {
        // A longer text must not have a greater F by rounding. A token more changes F by far more than that, unless beta is
        // so extreme that F hardly depends on one of the lengths. A prefix that is too long is merely slower.
        let slack = if (0.01..=100.0).contains(&self.beta) {
            0.0
        } else {
            1e-9
        };
        let threshold = self.threshold * (1.0 - slack);
        let reaches = |other| {
            let score = match role {
                Role::Target => self.score(other, length, other),
                Role::Prediction => self.score(other, other, length),
            };
            score.fmeasure > threshold
        };
        // The first of 1..=length that reaches it, by bisection.
        let (mut low, mut high) = (1, length + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            if reaches(middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        length + 1 - low
    }
}

/// What a text is when its score is computed.
#[derive(Debug, Clone, Copy)]
enum Role {
    /// A kept text.
    Target,
    /// A text that is offered.
    Prediction,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_definition(bounds: &Bounds, threshold: f64, target: usize, prediction: usize) -> usize {
        let most = target.min(prediction);
        (1..=most)
            .find(|&common| bounds.score(common, target, prediction).fmeasure > threshold)
            .unwrap_or(most + 1)
    }

    #[test]
    fn least_lengths_are_those_of_the_float() {
        for threshold in [0.05, 0.3, 0.7, 0.8, 0.8_f64.next_down(), 0.999, 1.0] {
            for beta in [0.0, 0.5, 1.0, 1.2, 8.0, 1000.0] {
                let bounds = Bounds::new(threshold, beta);
                for target in 1..90 {
                    for prediction in 1..90 {
                        assert_eq!(
                            bounds.least(target, prediction),
                            by_definition(&bounds, threshold, target, prediction),
                            "{threshold} {beta} {target} {prediction}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn prefixes_are_long_enough_and_no_longer_for_the_usual_f() {
        for threshold in [0.05, 0.3, 0.7, 0.8, 1.0] {
            for beta in [0.0, 0.5, 1.0, 8.0, 1000.0] {
                let bounds = Bounds::new(threshold, beta);
                for length in 1..80 {
                    let needed = |least: &dyn Fn(usize) -> usize| {
                        let others = (1..400).map(|other| (other, least(other)));
                        let possible = others.filter(|&(other, least)| least <= other.min(length));
                        possible.map(|(_, least)| length + 1 - least).max()
                    };
                    let target = needed(&|other| by_definition(&bounds, threshold, length, other));
                    let prediction =
                        needed(&|other| by_definition(&bounds, threshold, other, length));
                    assert!(target.is_none_or(|least| bounds.target_prefix(length) >= least));
                    assert!(
                        prediction.is_none_or(|least| bounds.prediction_prefix(length) >= least)
                    );
                    if beta == 1.0 && threshold == 0.7 {
                        assert_eq!(Some(bounds.target_prefix(length)), target);
                        assert_eq!(Some(bounds.prediction_prefix(length)), prediction);
                    }
                }
            }
        }
        assert_eq!(Bounds::new(0.8, 1.0).target_prefix(12), 4);
    }
}
