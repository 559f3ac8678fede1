//! The result of an evaluation: scores with intervals, and every answer they were made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use selma_durable::write_json;
use serde::{Deserialize, Serialize};

use crate::{
    Answers, EvalError, QuestionSet, Reply, SoftScore, YesProbability,
    dsg::{Aggregation, AnswerMatch, Item, MissingItems},
    files,
    stats::{Bootstrap, Cluster, Estimate},
};

/// How answers become scores; the defaults are those of DSG's own evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvalOptions {
    /// What a "no" invalidates, and what is averaged; `official`.
    pub aggregation: Aggregation,
    /// Which answers mean "yes"; `exact`.
    pub answer_match: AnswerMatch,
    /// What an item without a single answer counts; `zero`.
    pub missing_items: MissingItems,
    /// The intervals.
    pub bootstrap: Bootstrap,
}

/// Faithfulness of one image model, judged by one VQA model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalResult {
    /// The image model.
    pub model: String,
    /// The VQA model.
    pub vqa: String,
    /// What a "no" invalidated, and what was averaged.
    pub aggregation: Aggregation,
    /// Which answers meant "yes".
    pub answer_match: AnswerMatch,
    /// What an item without answers counted.
    pub missing_items: MissingItems,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// Questions scored.
    pub questions: usize,
    /// Those of them without an answer, or with an empty one; they score zero.
    pub unanswered: usize,
    /// Answers that are neither "yes" nor "no"; they score zero. Many of them say that [`AnswerMatch`] does not fit the
    /// model, or the model not the questions. Files leave out 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub unclear: usize,
    /// The soft score, where the model told how likely "yes" was. Files leave it out where it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<SoftScore>,
    /// Items left out because they had no answer at all ([`MissingItems::Skip`]).
    pub skipped: Vec<String>,
    /// The score, between 0 and 1.
    pub overall: Estimate,
    /// The score by "entity", "attribute", …
    pub by_broad: BTreeMap<String, Estimate>,
    /// The score by "whole", "color", …; the same word below two broad categories counts as one, as in SELMA's
    /// evaluation.
    pub by_detailed: BTreeMap<String, Estimate>,
    /// The score by source or skill.
    pub by_group: BTreeMap<String, Estimate>,
    /// Every item that was scored, in the order of the questions.
    pub items: Vec<ItemResult>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The score of one prompt's image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ItemResult {
    /// The prompt's id.
    pub item_id: String,
    /// The prompt.
    pub text: String,
    /// Source or skill.
    pub group: String,
    /// Mean score of the questions, between 0 and 1.
    pub score: f64,
    /// The questions in the order of the file.
    pub questions: Vec<QuestionResult>,
}

/// One question, its answer and its score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionResult {
    /// The proposition's number within its item.
    pub proposition_id: u32,
    /// The question.
    pub question: String,
    /// "entity", "attribute", …
    pub category_broad: String,
    /// "whole", "color", …
    pub category_detailed: String,
    /// The VQA model's own words; `None` when there is no answer or an empty one.
    pub answer: Option<String>,
    /// 1 when the answer is "yes" and no parent invalidates it, else 0.
    pub score: f64,
    /// How likely "yes" was, where the model told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yes: Option<YesProbability>,
    /// Why there is no answer, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Scores given answers without any model, for example those of DSG's release. `model` and `vqa` name who drew the
/// images and who answered.
///
/// Under [`Aggregation::Official`] a category's score is the mean over the items that have questions of it, of their
/// means over these questions; under [`Aggregation::Selma`] it is the mean over its questions.
///
/// # Errors
/// [`EvalError::UnknownAnswer`] for an answer to a question that is not in the set, [`EvalError::Empty`] when every
/// item is skipped, [`EvalError::Setting`] for bootstrap settings that make no sense.
pub fn score(
    model: &str,
    vqa: &str,
    questions: &QuestionSet,
    answers: &Answers,
    options: &EvalOptions,
) -> Result<EvalResult, EvalError> {
    options.bootstrap.validate()?;
    check_known(questions, answers)?;
    let mut items = Vec::with_capacity(questions.items().len());
    let mut skipped = Vec::new();
    for item in questions.items() {
        let result = score_item(item, answers, options);
        let missing = result
            .questions
            .iter()
            .all(|question| question.answer.is_none());
        if missing && options.missing_items == MissingItems::Skip {
            skipped.push(item.id.clone());
        } else {
            items.push(result);
        }
    }
    summarise(model, vqa, options, items, skipped)
}

/// The scores of judged items.
///
/// # Errors
/// [`EvalError::Empty`] without items, [`EvalError::Setting`] for bootstrap settings that make no sense.
pub(crate) fn summarise(
    model: &str,
    vqa: &str,
    options: &EvalOptions,
    items: Vec<ItemResult>,
    skipped: Vec<String>,
) -> Result<EvalResult, EvalError> {
    let Some(overall) = clusters(&items, options.aggregation, |_, _| Some("")).remove("") else {
        return Err(EvalError::Empty {
            what: "answered items",
        });
    };
    let estimates = |key: Key| -> Result<BTreeMap<String, Estimate>, EvalError> {
        clusters(&items, options.aggregation, key)
            .into_iter()
            .map(|(name, clusters)| Ok((name.to_owned(), options.bootstrap.estimate(&clusters)?)))
            .collect()
    };
    let asked = || items.iter().flat_map(|item| &item.questions);
    Ok(EvalResult {
        model: model.to_owned(),
        vqa: vqa.to_owned(),
        aggregation: options.aggregation,
        answer_match: options.answer_match,
        missing_items: options.missing_items,
        bootstrap: options.bootstrap,
        questions: asked().count(),
        unanswered: asked().filter(|question| question.answer.is_none()).count(),
        unclear: asked()
            .filter_map(|question| question.answer.as_deref())
            .filter(|answer| {
                let rule = options.answer_match;
                !rule.is_yes(answer) && !rule.is_no(answer)
            })
            .count(),
        soft: SoftScore::of(&items, &options.bootstrap)?,
        skipped,
        overall: options.bootstrap.estimate(&overall)?,
        by_broad: estimates(|_, question| Some(&question.category_broad))?,
        by_detailed: estimates(|_, question| Some(&question.category_detailed))?,
        by_group: estimates(|item, _| Some(&item.group))?,
        items,
    })
}

fn score_item(item: &Item, answers: &Answers, options: &EvalOptions) -> ItemResult {
    let given: Vec<Option<&Reply>> = item
        .questions
        .iter()
        .map(|question| answers.reply(&item.id, question.proposition_id))
        .collect();
    let words = |reply: &Option<&Reply>| -> Option<String> {
        let reply = reply.filter(|reply| reply.is_answered())?;
        Some(reply.text.clone())
    };
    let raw: Vec<bool> = given
        .iter()
        .map(|reply| words(reply).is_some_and(|answer| options.answer_match.is_yes(&answer)))
        .collect();
    let scores = options.aggregation.question_scores(item, &raw);
    let questions: Vec<QuestionResult> = item
        .questions
        .iter()
        .zip(given)
        .zip(scores)
        .map(|((question, reply), score)| QuestionResult {
            proposition_id: question.proposition_id,
            question: question.question.clone(),
            category_broad: question.category_broad.clone(),
            category_detailed: question.category_detailed.clone(),
            answer: words(&reply),
            score: f64::from(u8::from(score)),
            yes: reply.and_then(|reply| reply.yes),
            failure: reply.and_then(|reply| reply.failure.clone()),
        })
        .collect();
    let sum: f64 = questions.iter().map(|question| question.score).sum();
    ItemResult {
        item_id: item.id.clone(),
        text: item.text.clone(),
        group: item.group.clone(),
        score: sum / questions.len() as f64,
        questions,
    }
}

fn check_known(questions: &QuestionSet, answers: &Answers) -> Result<(), EvalError> {
    let known: BTreeSet<(&str, u32)> = questions
        .items()
        .iter()
        .flat_map(|item| &item.questions)
        .map(|question| (question.item_id.as_str(), question.proposition_id))
        .collect();
    match answers
        .iter()
        .find(|(item, proposition, _)| !known.contains(&(*item, *proposition)))
    {
        None => Ok(()),
        Some((item, proposition, _)) => Err(EvalError::UnknownAnswer {
            item: item.to_owned(),
            proposition,
        }),
    }
}

/// The name under which a question of an item is counted, if at all.
pub(crate) type Key = for<'a> fn(&'a ItemResult, &'a QuestionResult) -> Option<&'a str>;

/// One cluster for each item that has questions under a name, by name, in the order of the items.
pub(crate) fn clusters<'a>(
    items: impl IntoIterator<Item = &'a ItemResult>,
    aggregation: Aggregation,
    key: Key,
) -> BTreeMap<&'a str, Vec<Cluster>> {
    let mut by_name: BTreeMap<&str, Vec<Cluster>> = BTreeMap::new();
    for item in items {
        let mut sums: BTreeMap<&str, Cluster> = BTreeMap::new();
        for question in &item.questions {
            if let Some(name) = key(item, question) {
                let cluster = sums.entry(name).or_insert(Cluster { sum: 0.0, count: 0 });
                cluster.sum += question.score;
                cluster.count += 1;
            }
        }
        for (name, cluster) in sums {
            let cluster = match aggregation {
                Aggregation::Official => Cluster {
                    sum: cluster.sum / f64::from(cluster.count),
                    count: 1,
                },
                Aggregation::Selma => cluster,
            };
            by_name.entry(name).or_default().push(cluster);
        }
    }
    by_name
}

impl EvalResult {
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
    /// [`EvalError::Io`]; [`EvalError::Json`] for a torn file, a missing or an unknown key;
    /// [`EvalError::DuplicateItem`] when an item stands twice.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        let result: Self = files::read_result(path)?;
        let mut seen = BTreeSet::new();
        for item in &result.items {
            if !seen.insert(&item.item_id) {
                return Err(EvalError::DuplicateItem {
                    path: path.to_path_buf(),
                    item: item.item_id.clone(),
                });
            }
        }
        Ok(result)
    }
}
