//! Strengths of several models from comparisons of two at a time.

#![allow(
    clippy::indexing_slicing,
    reason = "all positions are below the number of models, and the table is checked to be square"
)]

use crate::EvalError;

/// Steps of the algorithm after which it is left; each raises the likelihood.
const STEPS: usize = 10_000;
/// It has converged when no strength changes by more than this.
const TOLERANCE: f64 = 1e-10;

/// The strengths of the Bradley-Terry model, as natural logarithms whose sum is zero: a model wins against another with the
/// odds `exp(difference)`. By the MM algorithm of Hunter (2004), "MM algorithms for generalized Bradley-Terry models".
///
/// `wins[a][b]` says how often `a` won against `b`; a tie counts half a win for both.
///
/// # Errors
/// [`EvalError::Sample`] for a table that is not square, has fewer than two models, or numbers that are negative or not
/// finite; also if the models can be divided in two so that none of one part ever won or tied against the other, because
/// then the odds have no bound.
pub fn bradley_terry(wins: &[Vec<f64>]) -> Result<Vec<f64>, EvalError> {
    check(wins)?;
    let models = wins.len();
    let total: Vec<f64> = wins.iter().map(|row| row.iter().sum()).collect();
    let mut logs = vec![0.0_f64; models];
    for _ in 0..STEPS {
        let strengths: Vec<f64> = logs.iter().map(|log| log.exp()).collect();
        let mut next: Vec<f64> = (0..models)
            .map(|a| {
                let games: f64 = (0..models)
                    .filter(|&b| b != a)
                    .map(|b| (wins[a][b] + wins[b][a]) / (strengths[a] + strengths[b]))
                    .sum();
                (total[a] / games).ln()
            })
            .collect();
        let mean = next.iter().sum::<f64>() / models as f64;
        next.iter_mut().for_each(|log| *log -= mean);
        let change = next
            .iter()
            .zip(&logs)
            .fold(0.0_f64, |most, (a, b)| most.max((a - b).abs()));
        logs = next;
        if change < TOLERANCE {
            break;
        }
    }
    Ok(logs)
}

fn check(wins: &[Vec<f64>]) -> Result<(), EvalError> {
    let wrong = |expected, found: String| {
        Err(EvalError::Sample {
            name: "wins of models over each other",
            expected,
            found,
        })
    };
    if wins.len() < 2 {
        return wrong("at least two models", wins.len().to_string());
    }
    if let Some(row) = wins.iter().find(|row| row.len() != wins.len()) {
        let found = format!("{} by {}", wins.len(), row.len());
        return wrong("a square table", found);
    }
    for (a, row) in wins.iter().enumerate() {
        for (b, &count) in row.iter().enumerate() {
            let itself = a == b && count != 0.0;
            if itself || !(count >= 0.0 && count.is_finite()) {
                let found = format!("{count} of {a} over {b}");
                return wrong("counts, and none of a model over itself", found);
            }
        }
    }
    // Every model leads to every other by wins if the first leads to all and all lead to the first.
    let forwards = reached(wins, |a, b| wins[a][b] > 0.0);
    let backwards = reached(wins, |a, b| wins[b][a] > 0.0);
    let apart = (0..wins.len()).find(|&model| !(forwards[model] && backwards[model]));
    match apart {
        None => Ok(()),
        Some(model) => wrong(
            "each model to be linked with each other by wins or ties in both directions",
            format!("model {model}, which is not linked so with model 0"),
        ),
    }
}

/// Which models can be reached from the first.
fn reached(wins: &[Vec<f64>], leads: impl Fn(usize, usize) -> bool) -> Vec<bool> {
    let mut reached = vec![false; wins.len()];
    let mut open = vec![0];
    while let Some(a) = open.pop() {
        if !std::mem::replace(&mut reached[a], true) {
            open.extend((0..wins.len()).filter(|&b| leads(a, b)));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_have_the_odds_of_their_wins() {
        let logs = bradley_terry(&[vec![0.0, 3.0], vec![1.0, 0.0]]).unwrap();
        assert!((logs[0] - logs[1] - 3.0_f64.ln()).abs() < 1e-9, "{logs:?}");
        assert!((logs[0] + logs[1]).abs() < 1e-12);
    }

    #[test]
    fn the_likelihood_is_at_its_peak() {
        let wins = [
            vec![0.0, 7.5, 9.0, 2.0],
            vec![2.5, 0.0, 6.0, 0.0],
            vec![1.0, 4.0, 0.0, 3.0],
            vec![1.0, 0.0, 2.0, 0.0],
        ];
        let logs = bradley_terry(&wins).unwrap();
        // There, wins are those expected.
        for a in 0..4 {
            let expected: f64 = (0..4)
                .map(|b| (wins[a][b] + wins[b][a]) / (1.0 + (logs[b] - logs[a]).exp()))
                .sum();
            let won: f64 = wins[a].iter().sum();
            assert!((expected - won).abs() < 1e-6, "{a}: {expected} {won}");
        }
    }

    #[test]
    fn refuses_what_has_no_strengths() {
        let error = |wins: &[Vec<f64>]| bradley_terry(wins).unwrap_err().to_string();
        assert!(error(&[vec![0.0]]).contains("at least two models"));
        assert!(error(&[vec![0.0, 1.0], vec![1.0]]).contains("found 2 by 1"));
        for wrong in [-1.0, f64::NAN, f64::INFINITY] {
            assert!(error(&[vec![0.0, wrong], vec![1.0, 0.0]]).contains("of 0 over 1"));
        }
        assert!(error(&[vec![1.0, 1.0], vec![1.0, 0.0]]).contains("1 of 0 over 0"));
        // The third never wins; then the third is never compared.
        let never = [
            vec![0.0, 1.0, 1.0],
            vec![1.0, 0.0, 0.0],
            vec![0.0, 0.0, 0.0],
        ];
        assert!(error(&never).contains("model 2, which is not linked"));
        let apart = [
            vec![0.0, 1.0, 0.0],
            vec![1.0, 0.0, 0.0],
            vec![0.0, 0.0, 0.0],
        ];
        assert!(error(&apart).contains("model 2, which is not linked"));
    }
}
