//! Scores with intervals, and every answer they were made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use selma_durable::write_json;
use serde::{Deserialize, Serialize};

use super::{
    ChoiceMethod, TifaAnswer, TifaAnswers, TifaItem, TifaPrompt, TifaQuestion, TifaSet, choose,
};
use crate::{
    EmbedderId, EvalError, files,
    stats::{Bootstrap, Cluster, Estimate},
};

/// TIFA of one image model, judged by one VQA model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TifaResult {
    /// The image model.
    pub model: String,
    /// The VQA model.
    pub vqa: String,
    /// How it was asked; `None` for answers from elsewhere.
    pub prompt: Option<TifaPrompt>,
    /// The model of sentences that took free words for choices; `None` if it was done without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedder: Option<EmbedderId>,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// Questions scored.
    pub questions: usize,
    /// Those of them without an answer, or with an empty one; they score zero.
    pub unanswered: usize,
    /// How many answers became choices by which method.
    pub methods: BTreeMap<ChoiceMethod, usize>,
    /// The score, between 0 and 1: the mean over prompts of the share of right answers (`tifa_average`).
    pub overall: Estimate,
    /// Standard deviation of the prompts' scores (`tifa_stdev`); `None` for a single prompt.
    pub stdev: Option<f64>,
    /// The share of right answers by element type, over questions (`accuracy_by_type`); intervals are over prompts.
    pub by_type: BTreeMap<String, Estimate>,
    /// Every item, in the order of the questions.
    pub items: Vec<TifaItemResult>,
}

/// The score of one prompt's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TifaItemResult {
    /// The prompt's id.
    pub item_id: String,
    /// The prompt.
    pub text: String,
    /// Share of right answers, between 0 and 1.
    pub score: f64,
    /// The questions in the order of the file.
    pub questions: Vec<TifaQuestionResult>,
}

/// One question, its answer and its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TifaQuestionResult {
    /// The question.
    pub question: String,
    /// "object", "color", …
    pub element_type: String,
    /// What could be answered.
    pub choices: Vec<String>,
    /// The right choice.
    pub expected: String,
    /// The VQA model's own words; `None` when there is no answer or an empty one.
    pub answer: Option<String>,
    /// The choice that they were taken for.
    pub choice: Option<String>,
    /// How it was found.
    pub method: Option<ChoiceMethod>,
    /// 1 for the right choice, else 0.
    pub score: f64,
    /// Why there is no answer, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Scores given answers without any model. `model` and `vqa` name who drew the images and who answered, `prompt` says how.
///
/// A choice that is [known](TifaAnswer::choice) is taken as it is; the others are found by [`choose`].
///
/// # Errors
/// [`EvalError::UnknownQuestion`] for an answer to a question that is not in the set, [`EvalError::Setting`] for bootstrap settings
/// that make no sense.
pub fn score(
    model: &str,
    vqa: &str,
    prompt: Option<TifaPrompt>,
    set: &TifaSet,
    answers: &TifaAnswers,
    bootstrap: &Bootstrap,
) -> Result<TifaResult, EvalError> {
    bootstrap.validate()?;
    check_known(set, answers)?;
    let items: Vec<TifaItemResult> = set
        .items()
        .iter()
        .map(|item| score_item(item, answers))
        .collect();
    let mut overall = Vec::with_capacity(items.len());
    let mut by_type: BTreeMap<&str, Vec<Cluster>> = BTreeMap::new();
    for item in &items {
        overall.push(Cluster {
            sum: item.score,
            count: 1,
        });
        let mut sums: BTreeMap<&str, Cluster> = BTreeMap::new();
        for question in &item.questions {
            let cluster = sums.entry(&question.element_type);
            let cluster = cluster.or_insert(Cluster { sum: 0.0, count: 0 });
            cluster.sum += question.score;
            cluster.count += 1;
        }
        for (name, cluster) in sums {
            by_type.entry(name).or_default().push(cluster);
        }
    }
    let by_type = by_type
        .into_iter()
        .map(|(name, clusters)| Ok((name.to_owned(), bootstrap.estimate(&clusters)?)))
        .collect::<Result<_, EvalError>>()?;
    let overall = bootstrap.estimate(&overall)?;
    let asked = || items.iter().flat_map(|item| &item.questions);
    let mut methods = BTreeMap::new();
    for method in asked().filter_map(|question| question.method) {
        *methods.entry(method).or_insert(0) += 1;
    }
    Ok(TifaResult {
        model: model.to_owned(),
        vqa: vqa.to_owned(),
        prompt,
        embedder: answers.embedder().cloned(),
        bootstrap: *bootstrap,
        questions: asked().count(),
        unanswered: asked().filter(|question| question.answer.is_none()).count(),
        methods,
        stdev: deviation(&items, overall.mean),
        overall,
        by_type,
        items,
    })
}

/// As `statistics.stdev` of Python.
fn deviation(items: &[TifaItemResult], mean: f64) -> Option<f64> {
    let others = items.len().checked_sub(1).filter(|&others| others > 0)?;
    let squares: f64 = items.iter().map(|item| (item.score - mean).powi(2)).sum();
    Some((squares / others as f64).sqrt())
}

fn score_item(item: &TifaItem, answers: &TifaAnswers) -> TifaItemResult {
    let questions: Vec<TifaQuestionResult> = item
        .questions
        .iter()
        .map(|question| score_question(question, answers))
        .collect();
    let sum: f64 = questions.iter().map(|question| question.score).sum();
    TifaItemResult {
        item_id: item.id.clone(),
        text: item.caption.clone(),
        score: sum / questions.len() as f64,
        questions,
    }
}

fn score_question(question: &TifaQuestion, answers: &TifaAnswers) -> TifaQuestionResult {
    let given = answers.get(&question.id, &question.question);
    let words = given.and_then(TifaAnswer::words);
    let known = given.and_then(|given| Some((given.choice.clone()?, given.method)));
    let (choice, method) = match (known, words) {
        (Some((choice, method)), _) => (Some(choice), method.or(Some(ChoiceMethod::Given))),
        (None, Some(words)) => match choose(words, &question.choices) {
            Some((index, method)) => (question.choices.get(index).cloned(), Some(method)),
            None => (None, None),
        },
        (None, None) => (None, None),
    };
    TifaQuestionResult {
        question: question.question.clone(),
        element_type: question.element_type.clone(),
        choices: question.choices.clone(),
        expected: question.answer.clone(),
        score: f64::from(u8::from(choice.as_ref() == Some(&question.answer))),
        answer: words.map(str::to_owned),
        choice,
        method,
        failure: given.and_then(|given| given.failure.clone()),
    }
}

fn check_known(set: &TifaSet, answers: &TifaAnswers) -> Result<(), EvalError> {
    let questions = set.items().iter().flat_map(|item| &item.questions);
    let known: BTreeSet<(&str, &str)> = questions
        .map(|question| (question.id.as_str(), question.question.as_str()))
        .collect();
    match answers
        .iter()
        .find(|(item, question, _)| !known.contains(&(*item, *question)))
    {
        None => Ok(()),
        Some((item, question, _)) => Err(EvalError::UnknownQuestion {
            item: item.to_owned(),
            question: question.to_owned(),
        }),
    }
}

impl TifaResult {
    /// Writes the result as indented JSON, in full or not at all.
    ///
    /// # Errors
    /// [`EvalError::Durable`] when the file cannot be written; the old one is then untouched.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        Ok(write_json(path, self)?)
    }

    /// Reads a result that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::Json`] for a torn file, a missing or an unknown key.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        files::read_result(path)
    }
}
