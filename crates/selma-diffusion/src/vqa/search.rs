//! How an answer is written, token by token.

use std::cmp::Ordering;

use crate::DiffusionError;

/// How the tokens of an answer are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// Beginnings of answers that are followed at once. 1 takes the likeliest token every time (greedy).
    pub beams: usize,
    /// The most tokens, the one that an answer begins with included.
    pub max_length: usize,
}

impl Default for Search {
    /// Greedy, and of at most 20 tokens, as transformers' `generate`.
    fn default() -> Self {
        Self {
            beams: 1,
            max_length: 20,
        }
    }
}

/// The beginning of an answer.
#[derive(Debug, Clone)]
struct Beam {
    ids: Vec<u32>,
    /// The logarithm of its probability; of a finished one, for each token.
    score: f32,
}

impl Search {
    /// Checks the numbers.
    ///
    /// # Errors
    ///
    /// If no beam is followed, more than 100, or no token can be written.
    pub fn validate(&self) -> Result<(), DiffusionError> {
        let refused = |what, expected: &str, found: usize| DiffusionError::Request {
            what,
            expected: expected.to_owned(),
            found: found.to_string(),
        };
        if !(1..=100).contains(&self.beams) {
            return Err(refused("beams", "1 to 100", self.beams));
        }
        if self.max_length < 2 {
            return Err(refused("length of an answer", "2 or more", self.max_length));
        }
        Ok(())
    }

    /// Writes after the token `begin` until the token `end`; both are in what comes out, unless there was no room for the end. `next` gives the
    /// logits of the token after each of several beginnings of one length.
    pub(super) fn write(
        &self,
        begin: u32,
        end: u32,
        next: impl FnMut(&[&[u32]]) -> Result<Vec<Vec<f32>>, DiffusionError>,
    ) -> Result<Vec<u32>, DiffusionError> {
        match self.beams {
            1 => self.greedy(begin, end, next),
            _ => self.beam(begin, end, next),
        }
    }

    fn greedy(
        &self,
        begin: u32,
        end: u32,
        mut next: impl FnMut(&[&[u32]]) -> Result<Vec<Vec<f32>>, DiffusionError>,
    ) -> Result<Vec<u32>, DiffusionError> {
        let mut ids = vec![begin];
        while ids.len() < self.max_length {
            let logits = next(&[&ids])?;
            let logits = logits.first().into_iter().flatten();
            // Of equal ones the first, as in torch.
            let best = logits.zip(0..).fold(None, |best, (&logit, id)| match best {
                Some((most, _)) if most >= logit => best,
                _ => Some((logit, id)),
            });
            let Some((_, id)) = best else { break };
            ids.push(id);
            if id == end {
                break;
            }
        }
        Ok(ids)
    }

    /// Beam search as transformers has it, with its default settings: `length_penalty` 1 and no early stopping (`_beam_search` in
    /// `generation/utils.py`).
    fn beam(
        &self,
        begin: u32,
        end: u32,
        mut next: impl FnMut(&[&[u32]]) -> Result<Vec<Vec<f32>>, DiffusionError>,
    ) -> Result<Vec<u32>, DiffusionError> {
        let mut running = vec![Beam {
            ids: vec![begin],
            score: 0.0,
        }];
        let mut finished: Vec<Beam> = Vec::new();
        for length in 1..self.max_length {
            let ids: Vec<&[u32]> = running.iter().map(|beam| beam.ids.as_slice()).collect();
            let logits = next(&ids)?;
            let mut candidates = Vec::new();
            for (beam, logits) in running.iter().zip(&logits) {
                let total = log_sum_exp(logits);
                let of = |(&logit, id): (&f32, u32)| (beam.score + (logit - total), beam, id);
                candidates.extend(logits.iter().zip(0..).map(of));
            }
            candidates.sort_by(|a, b| descending(a.0, b.0));
            // Each beam ends at most once, so that enough are left to go on.
            candidates.truncate(2 * self.beams);
            let full = length + 1 == self.max_length;
            let mut going = Vec::new();
            for (place, (score, beam, id)) in candidates.into_iter().enumerate() {
                let mut ids = beam.ids.clone();
                ids.push(id);
                if id == end || full {
                    // The rest stands by for going on alone.
                    if place < self.beams {
                        let score = score / length as f32;
                        finished.push(Beam { ids, score });
                    }
                } else if going.len() < self.beams {
                    going.push(Beam { ids, score });
                }
            }
            finished.sort_by(|a, b| descending(a.score, b.score));
            finished.truncate(self.beams);
            let hope = going.first().map(|beam| beam.score / length as f32);
            let worst = finished.last().map(|beam| beam.score);
            let done = finished.len() == self.beams && hope <= worst;
            running = going;
            if done || running.is_empty() {
                break;
            }
        }
        let best = finished.into_iter().next();
        Ok(best.map(|beam| beam.ids).unwrap_or_default())
    }
}

fn descending(a: f32, b: f32) -> Ordering {
    b.total_cmp(&a)
}

/// The logarithm of the sum of the exponentials.
fn log_sum_exp(logits: &[f32]) -> f32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| f64::from(l - most).exp()).sum();
    most + sum.ln() as f32
}

/// The probabilities of some tokens.
pub(super) fn probabilities<const N: usize>(logits: &[f32], ids: [u32; N]) -> Option<[f64; N]> {
    let total = f64::from(log_sum_exp(logits));
    let mut all = [0.0; N];
    for (probability, id) in all.iter_mut().zip(ids) {
        *probability = (f64::from(*logits.get(id as usize)?) - total).exp();
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three tokens: 0 begins, 2 ends. The likeliest first token leads to unlikely ends.
    fn next(beams: &[&[u32]]) -> Result<Vec<Vec<f32>>, DiffusionError> {
        let logits = |ids: &&[u32]| {
            let probabilities: [f32; 4] = match ids {
                [0] => [0.0, 0.6, 0.0, 0.4],
                [0, 1] => [0.3, 0.4, 0.3, 0.0],
                [0, 3] => [0.05, 0.05, 0.9, 0.0],
                _ => [0.4, 0.4, 0.2, 0.0],
            };
            probabilities.map(f32::ln).to_vec()
        };
        Ok(beams.iter().map(logits).collect())
    }

    fn written(beams: usize, max_length: usize) -> Vec<u32> {
        Search { beams, max_length }.write(0, 2, next).unwrap()
    }

    #[test]
    fn a_beam_finds_what_the_likeliest_token_misses() {
        assert_eq!(written(1, 4), [0, 1, 1, 0]);
        assert_eq!(written(2, 4), [0, 3, 2]);
        assert_eq!(written(2, 2), [0, 1]);
    }

    #[test]
    fn numbers_that_write_nothing_are_refused() {
        for (beams, max_length, named) in [(0, 20, "beams"), (101, 20, "beams"), (1, 1, "length")] {
            let error = Search { beams, max_length }.validate().unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        Search::default().validate().unwrap();
    }

    #[test]
    fn probabilities_are_of_all_tokens() {
        let found = probabilities(&[1.0, 1.0, 1.0, 1.0], [3, 0]).unwrap();
        assert!(found.iter().all(|p| (p - 0.25).abs() < 1e-7), "{found:?}");
        assert_eq!(probabilities(&[1.0], [1]), None);
    }
}
