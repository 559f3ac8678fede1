//! From free words to the choice that means most nearly the same.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::{ChoiceMethod, TifaAnswers, TifaQuestion, TifaSet};
use crate::embedder::Embedded;
use crate::{Embedder, EvalError};

impl TifaAnswers {
    /// Takes answers for choices as the reference program does (`multiple_choice_vqa` in `tifascore/vqa_models.py`): an answer that is a choice for
    /// that, all others for the choice whose sentence embedding has the largest cosine with the answer's.
    ///
    /// Answers that came with a choice keep it. An empty answer stays unanswered, whereas the reference program embeds it. Each different text is
    /// embedded once. The observer is told how many texts of how many are done, and stops the work by [`ControlFlow::Break`].
    ///
    /// # Errors
    /// [`EvalError::Embedder`] from the model, [`EvalError::Embeddings`] when it does not give a vector for each text,
    /// [`EvalError::Cancelled`] when the observer stopped. The answers are then as they were.
    pub fn take_nearest(
        &mut self,
        set: &TifaSet,
        embedder: &dyn Embedder,
        observer: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), EvalError> {
        let taken = self.taken(set, embedder, observer)?;
        for (question, choice, method) in taken {
            if let Some(answer) = self.get_mut(&question.id, &question.question) {
                answer.choice = Some(choice.to_owned());
                answer.method = Some(method);
            }
        }
        self.embedder = Some(embedder.id());
        Ok(())
    }

    /// The questions whose answers had no choice, with those that were found.
    fn taken<'a>(
        &self,
        set: &'a TifaSet,
        embedder: &dyn Embedder,
        observer: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Vec<(&'a TifaQuestion, &'a str, ChoiceMethod)>, EvalError> {
        let questions = set.items().iter().flat_map(|item| &item.questions);
        let open = questions.filter_map(|question| {
            let answer = self.get(&question.id, &question.question)?;
            let words = answer.words().filter(|_| answer.choice.is_none())?;
            let exact = question.choices.iter().position(|choice| choice == words);
            Some((question, words, exact))
        });
        let open: Vec<(&TifaQuestion, &str, Option<usize>)> = open.collect();
        let free = open.iter().filter(|(_, _, exact)| exact.is_none());
        let texts = free.flat_map(|(question, words, _)| {
            let choices = question.choices.iter().map(String::as_str);
            choices.chain([*words])
        });
        let texts: BTreeSet<&str> = texts.collect();
        let embedded = Embedded::new(embedder, texts, observer)?;
        let take = |(question, words, exact): (&'a TifaQuestion, &str, Option<usize>)| {
            let nearest = || embedded.nearest(words, &question.choices);
            let (index, method) = match exact {
                Some(index) => (index, ChoiceMethod::Exact),
                None => (nearest()?, ChoiceMethod::Embedding),
            };
            Some((question, question.choices.get(index)?.as_str(), method))
        };
        Ok(open.into_iter().filter_map(take).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::question::tests::question;
    use super::*;
    use crate::tifa::{TifaAnswer, score};
    use crate::{Bootstrap, EmbedderId};

    /// Knows what colours are made of.
    #[derive(Default)]
    struct Colours {
        asked: Mutex<Vec<String>>,
        short: bool,
    }

    impl Embedder for Colours {
        fn id(&self) -> EmbedderId {
            EmbedderId {
                name: "colours".to_owned(),
                sha256: "00".to_owned(),
            }
        }

        fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, EvalError> {
            let mut asked = self.asked.lock().unwrap();
            asked.extend(texts.iter().map(|&text| text.to_owned()));
            let vector = |text: &&str| match *text {
                "red" | "scarlet" => vec![1.0, 0.0],
                "green" | "Green" => vec![0.6, 0.8],
                "blue" => vec![0.6, -0.8],
                "nan" => vec![f64::NAN, 0.0],
                "wide" => vec![0.0, 0.0, 1.0],
                // As far from green as from blue.
                _ => vec![-1.0, 0.0],
            };
            let vectors = texts.iter().map(vector);
            Ok(vectors.skip(usize::from(self.short)).collect())
        }
    }

    fn answered(words: &[&str]) -> (TifaSet, TifaAnswers) {
        let asked = |place: usize| question("a_1", &format!("question {place}"), "color");
        let set = TifaSet::new((0..words.len()).map(asked).collect()).unwrap();
        let mut answers = TifaAnswers::new();
        for (question, words) in set.items()[0].questions.iter().zip(words) {
            let answer = TifaAnswer {
                free_form: (*words).to_owned(),
                ..TifaAnswer::default()
            };
            answers.insert(&question.id, &question.question, answer);
        }
        (set, answers)
    }

    fn go_on(_: usize, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn exact_answers_go_first_and_different_texts_are_embedded_once() {
        let words = ["scarlet", "blue", "Green", "scarlet", " ", "?", "pink"];
        let (set, mut answers) = answered(&words);
        let given = TifaAnswer {
            free_form: "pink".to_owned(),
            choice: Some("blue".to_owned()),
            ..TifaAnswer::default()
        };
        answers.insert("a_1", "question 6", given);
        let colours = Colours::default();
        answers.take_nearest(&set, &colours, go_on).unwrap();
        let asked = colours.asked.into_inner().unwrap();
        assert_eq!(asked, ["?", "Green", "blue", "green", "red", "scarlet"]);
        let result = score("m", "v", None, &set, &answers, &Bootstrap::default()).unwrap();
        let questions = result.items[0].questions.iter();
        let found: Vec<_> = questions.map(|q| (q.choice.as_deref(), q.method)).collect();
        use ChoiceMethod::{Embedding, Exact, Given};
        assert_eq!(
            found,
            [
                (Some("red"), Some(Embedding)),
                (Some("blue"), Some(Exact)),
                // But for its case it would be exact; the reference program embeds it.
                (Some("green"), Some(Embedding)),
                (Some("red"), Some(Embedding)),
                (None, None),
                (Some("green"), Some(Embedding)),
                (Some("blue"), Some(Given)),
            ]
        );
        assert_eq!((result.unanswered, result.methods[&Embedding]), (1, 4));
        assert_eq!(result.embedder, Some(Colours::default().id()));
    }

    #[test]
    fn an_embedder_that_breaks_its_word_changes_nothing() {
        for (word, short, named) in [
            (
                "nan",
                false,
                "of 4 texts: found numbers that are not finite",
            ),
            ("wide", false, "found one of 3 among those of 2"),
            ("pink", true, "found 3 of 2"),
        ] {
            let (set, mut answers) = answered(&[word]);
            let before = answers.clone();
            let colours = Colours {
                short,
                ..Colours::default()
            };
            let error = answers.take_nearest(&set, &colours, go_on).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(answers, before);
        }
        let (set, mut answers) = answered(&["pink"]);
        let stop = |_, _| ControlFlow::Break(());
        let stopped = answers.take_nearest(&set, &Colours::default(), stop);
        let stopped = stopped.unwrap_err();
        assert!(
            matches!(stopped, EvalError::Cancelled { done: 0, total: 4 }),
            "{stopped}"
        );
        assert_eq!(answers.embedder(), None);
    }
}
