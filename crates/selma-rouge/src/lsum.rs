//! ROUGE-L of texts of several sentences.

use std::collections::HashMap;

use crate::lcs::Pattern;
use crate::rouge::numbers;
use crate::words::Words;
use crate::{Score, Tokenizer};

/// Summary-level ROUGE-L of `prediction` against `target` (Lin 2004, section 3.2), with [`Tokenizer::Rouge`] the same bits
/// as `rougeLsum` of Python's `rouge_score` 0.1.2: sentences are lines, and a sentence of the target scores by the union of
/// its common subsequences with all sentences of the prediction, no token more often than both texts have it.
///
/// A text without tokens scores zero against everything, itself included. For two sentences of `m` and `n` tokens it takes
/// `m * n / 8` bytes of memory.
pub fn rouge_lsum(target: &str, prediction: &str, tokenizer: Tokenizer) -> Score {
    let mut words = Words::default();
    let mut sentences = |text: &str| -> Vec<Vec<u32>> {
        let lines = text
            .split('\n')
            .map(|line| numbers(&mut words, line, tokenizer));
        lines.collect()
    };
    let (target, prediction) = (sentences(target), sentences(prediction));
    let (mut unmatched_target, mut unmatched_prediction) = (count(&target), count(&prediction));
    let prediction_len = prediction.iter().map(Vec::len).sum();
    let patterns: Vec<_> = prediction
        .into_iter()
        .map(|sentence| (Pattern::new(&sentence), sentence))
        .collect();
    let mut hits = 0;
    for sentence in &target {
        let mut union = vec![false; sentence.len()];
        for (pattern, other) in &patterns {
            mark_lcs(sentence, other, pattern, &mut union);
        }
        for (token, _) in sentence.iter().zip(union).filter(|(_, marked)| *marked) {
            let left = (
                unmatched_target.get_mut(token),
                unmatched_prediction.get_mut(token),
            );
            if let (Some(target @ 1..), Some(prediction @ 1..)) = left {
                *target -= 1;
                *prediction -= 1;
                hits += 1;
            }
        }
    }
    Score::from_common(hits, target.iter().map(Vec::len).sum(), prediction_len)
}

fn count(sentences: &[Vec<u32>]) -> HashMap<u32, usize> {
    let mut counts = HashMap::new();
    for &token in sentences.iter().flatten() {
        *counts.entry(token).or_default() += 1;
    }
    counts
}

/// Marks the tokens of `target` that stand in the one longest common subsequence which `rouge_score` reads out of its
/// table (`rouge_scorer._backtrack_norec`). `pattern` is that of `prediction`.
fn mark_lcs(target: &[u32], prediction: &[u32], pattern: &Pattern, marks: &mut [bool]) {
    // Row `i` of the table is the step bits of `rows[i]`: its entry `j` is the number of zeros among the first `j`.
    let mut rows = vec![pattern.first_column()];
    for &token in target {
        let mut row = rows.last().cloned().unwrap_or_default();
        pattern.advance(&mut row, token);
        rows.push(row);
    }
    let mut rows = rows.iter().rev();
    let (Some(mut row), mut rest) = (rows.next(), target.iter().zip(marks).rev()) else {
        return;
    };
    let mut j = prediction.len();
    for above in rows {
        let Some((token, mark)) = rest.next() else {
            return;
        };
        // The table's entries here and in the row above.
        let (mut here, mut up) = (zeros(row, j), zeros(above, j));
        // Where the tokens differ, the left entry is greater than the upper one if and only if this one is.
        while let Some(other) = j.checked_sub(1).and_then(|last| prediction.get(last)) {
            if other == token {
                *mark = true;
                j -= 1;
                break;
            }
            if here <= up {
                break;
            }
            j -= 1;
            here -= step(row, j);
            up -= step(above, j);
        }
        row = above;
    }
}

/// Number of zeros among the first `count` bits.
fn zeros(row: &[u64], count: usize) -> usize {
    let whole = row.iter().take(count / 64);
    let part = row.get(count / 64).map_or(0, |word| {
        (!word & ((1_u64 << (count % 64)) - 1)).count_ones()
    });
    whole.map(|word| word.count_zeros() as usize).sum::<usize>() + part as usize
}

/// 1 if the bit is zero.
fn step(row: &[u64], bit: usize) -> usize {
    row.get(bit / 64)
        .map_or(0, |word| usize::from(word >> (bit % 64) & 1 == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_join_their_common_subsequences() {
        // The example of Lin 2004, section 3.2: w1 w2 w3 w5 of five words.
        let score = rouge_lsum(
            "w1 w2 w3 w4 w5",
            "w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5",
            Tokenizer::Rouge,
        );
        assert_eq!(score, Score::from_common(4, 5, 10));
    }

    #[test]
    fn no_token_counts_more_often_than_both_texts_have_it() {
        let score = rouge_lsum("a b\na c", "a", Tokenizer::Rouge);
        assert_eq!(score, Score::from_common(1, 4, 1));
    }

    #[test]
    fn blank_lines_are_nothing() {
        for (target, prediction) in [("", ""), ("\n\n", "a"), ("a", "...\n"), ("a", "b")] {
            assert_eq!(
                rouge_lsum(target, prediction, Tokenizer::Rouge),
                Score::default()
            );
        }
        let score = rouge_lsum("\na b\n\n", "a\n\nb", Tokenizer::Rouge);
        assert_eq!(score, Score::from_common(2, 2, 2));
    }
}
