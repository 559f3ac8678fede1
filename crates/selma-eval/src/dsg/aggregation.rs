//! From answers to the scores of one item's questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Item;

/// Which questions a "no" invalidates, and what is averaged. The two differ by about two points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// As `calc_vqa_score` of `j-min/DSG`: a question scores zero when the raw answer to any *direct* parent is not
    /// "yes". The score is the mean over items of each item's mean, so that every prompt weighs the same.
    #[default]
    Official,
    /// As `DSG/evaluation.py` of SELMA: in the order of the file, a question scores zero when the *score* of a
    /// parent is zero, so that a "no" cascades to grandchildren. A parent that stands further below counts with
    /// its raw answer, as in that program. The score is the mean over questions, so that long prompts weigh more.
    Selma,
}

/// Which answers mean "yes".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerMatch {
    /// Exactly "yes", as both reference programs.
    #[default]
    Exact,
    /// "yes" after lower-casing, stripping spaces at both ends and then removing `. , ? !`, as the reference does
    /// with GPT-4o's answers (`GPT4o.vqa` in `dsg/vqa_utils.py`). For chat models, which say "Yes.".
    Chat,
}

impl AnswerMatch {
    /// Whether the answer means "yes".
    pub fn is_yes(self, answer: &str) -> bool {
        self.is(answer, "yes")
    }

    /// Whether the answer means "no". What means neither scores as "no" does, and is counted apart.
    pub fn is_no(self, answer: &str) -> bool {
        self.is(answer, "no")
    }

    fn is(self, answer: &str, word: &str) -> bool {
        match self {
            Self::Exact => answer == word,
            Self::Chat => {
                let answer = answer.trim().to_lowercase();
                answer.replace(['.', ',', '?', '!'], "") == word
            }
        }
    }
}

/// What an item counts that has not one answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MissingItems {
    /// Zero on all its questions, as the reference's evaluation of DSG-1k counts its item `tifa160_134`.
    #[default]
    Zero,
    /// Nothing: it is left out, and listed in [`skipped`](crate::EvalResult::skipped).
    Skip,
}

impl Aggregation {
    /// The scores of an item's questions, given for each whether its raw answer means "yes" (unanswered: `false`).
    ///
    /// `raw` is in the order of the item's questions; so is the result.
    pub fn question_scores(self, item: &Item, raw: &[bool]) -> Vec<bool> {
        let positions: BTreeMap<u32, usize> = item
            .questions
            .iter()
            .enumerate()
            .map(|(position, question)| (question.proposition_id, position))
            .collect();
        let mut scores = raw.to_vec();
        for (position, question) in item.questions.iter().enumerate() {
            let seen = match self {
                Self::Official => raw,
                Self::Selma => scores.as_slice(),
            };
            // A parent that does not exist was refused or reported by the reader.
            let failed = question
                .dependency
                .iter()
                .filter_map(|parent| seen.get(*positions.get(parent)?))
                .any(|parent| !parent);
            if let Some(score) = scores.get_mut(position).filter(|_| failed) {
                *score = false;
            }
        }
        scores
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dsg::{QuestionSet, question::tests::question};

    fn scores(aggregation: Aggregation, edges: &[(u32, &[u32])], raw: &[u8]) -> Vec<u8> {
        let questions = edges
            .iter()
            .map(|(id, parents)| question("a_1", *id, parents))
            .collect();
        let set = QuestionSet::new(questions).unwrap();
        let raw: Vec<bool> = raw.iter().map(|&yes| yes == 1).collect();
        aggregation
            .question_scores(&set.items()[0], &raw)
            .into_iter()
            .map(u8::from)
            .collect()
    }

    #[test]
    fn only_selma_cascades() {
        let chain: &[(u32, &[u32])] = &[(1, &[]), (2, &[1]), (3, &[2])];
        assert_eq!(scores(Aggregation::Official, chain, &[0, 1, 1]), [0, 0, 1]);
        assert_eq!(scores(Aggregation::Selma, chain, &[0, 1, 1]), [0, 0, 0]);
    }

    #[test]
    fn any_failing_parent_is_enough() {
        let edges: &[(u32, &[u32])] = &[(1, &[]), (2, &[]), (3, &[1, 2])];
        for aggregation in [Aggregation::Official, Aggregation::Selma] {
            assert_eq!(scores(aggregation, edges, &[1, 0, 1]), [1, 0, 0]);
            assert_eq!(scores(aggregation, edges, &[1, 1, 1]), [1, 1, 1]);
            assert_eq!(scores(aggregation, edges, &[1, 1, 0]), [1, 1, 0]);
        }
    }

    #[test]
    fn selma_sees_a_parent_further_below_before_its_own_zero_out() {
        // 1 depends on 3, which is zeroed by 2, but only after 1 was scored.
        let edges: &[(u32, &[u32])] = &[(1, &[3]), (2, &[]), (3, &[2])];
        assert_eq!(scores(Aggregation::Selma, edges, &[1, 0, 1]), [1, 0, 0]);
        assert_eq!(scores(Aggregation::Selma, edges, &[1, 1, 0]), [0, 1, 0]);
    }

    #[test]
    fn what_counts_as_yes() {
        for answer in [
            "Yes",
            " yes",
            "yes.",
            "no",
            "no bus",
            "unanswerable",
            "",
            "yes it is",
        ] {
            assert!(!AnswerMatch::Exact.is_yes(answer), "{answer:?}");
        }
        for answer in ["yes", "Yes.", " YES!\n", "Yes,"] {
            assert!(AnswerMatch::Chat.is_yes(answer), "{answer:?}");
        }
        for answer in ["no", "", "yes, there is", "no. yes"] {
            assert!(!AnswerMatch::Chat.is_yes(answer), "{answer:?}");
        }
        assert!(AnswerMatch::Exact.is_no("no") && !AnswerMatch::Exact.is_no("No."));
        assert!(AnswerMatch::Chat.is_no("No.") && !AnswerMatch::Chat.is_no("no bus"));
    }
}
