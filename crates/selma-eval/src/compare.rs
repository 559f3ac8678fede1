//! Differences between two image models on the same questions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    EvalError, EvalResult, ItemResult, Paired,
    result::{Key, clusters},
    stats::{McNemar, holm},
};

/// What a comparison is broken down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// "entity", "attribute", …
    Broad,
    /// "whole", "color", …
    Detailed,
    /// Source or skill.
    Group,
}

/// The difference in one of several categories.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryDifference {
    /// The difference, as if the category were the only one.
    pub difference: Paired,
    /// Its p-value after Holm's correction for the number of categories.
    pub p_holm: f64,
}

/// The difference of the overall scores, `a` minus `b`, with its interval over resampled prompts and the p-value of
/// the paired permutation test. The settings of the bootstrap are those of the results.
///
/// # Errors
/// [`EvalError::SettingsDiffer`] when the two were judged by different VQA models or scored by different rules;
/// [`EvalError::ItemsDiffer`] with the first item that only one of them has; [`EvalError::QuestionsDiffer`] when they
/// asked different questions about an item.
pub fn compare(a: &EvalResult, b: &EvalResult) -> Result<Paired, EvalError> {
    compare_key(a, b, |_, _| Some(""))?
        .remove("")
        .ok_or(EvalError::Empty { what: "items" })
}

/// As [`compare`], for each category or group, with Holm's correction over them: of many categories, one in twenty would
/// otherwise be "significant" at 5% by chance.
///
/// # Errors
/// Those of [`compare`].
pub fn compare_by(
    a: &EvalResult,
    b: &EvalResult,
    by: By,
) -> Result<BTreeMap<String, CategoryDifference>, EvalError> {
    let differences = compare_key(
        a,
        b,
        match by {
            By::Broad => |_, question| Some(&question.category_broad),
            By::Detailed => |_, question| Some(&question.category_detailed),
            By::Group => |item, _| Some(&item.group),
        },
    )?;
    let p_values: Vec<f64> = differences.values().map(|paired| paired.p).collect();
    Ok(differences
        .into_iter()
        .zip(holm(&p_values)?)
        .map(|((name, difference), p_holm)| (name, CategoryDifference { difference, p_holm }))
        .collect())
}

/// McNemar's test over the questions: on how many is the picture of `a` right and that of `b` wrong, and the other way
/// round. It takes questions as independent, which those about one picture are not; [`compare`] does not.
///
/// # Errors
/// Those of [`compare`].
pub fn compare_questions(a: &EvalResult, b: &EvalResult) -> Result<McNemar, EvalError> {
    check_settings(a, b)?;
    let right = |items: &mut dyn Iterator<Item = &ItemResult>| -> Vec<bool> {
        items
            .flat_map(|item| &item.questions)
            .map(|question| question.score > 0.0)
            .collect()
    };
    let partners = pair_items(a, b)?;
    McNemar::paired(
        &right(&mut a.items.iter()),
        &right(&mut partners.into_iter()),
    )
}

fn compare_key(
    a: &EvalResult,
    b: &EvalResult,
    key: Key,
) -> Result<BTreeMap<String, Paired>, EvalError> {
    check_settings(a, b)?;
    let partners = pair_items(a, b)?;
    let mut others = clusters(partners, b.aggregation, key);
    clusters(&a.items, a.aggregation, key)
        .into_iter()
        .map(|(name, clusters)| {
            let others = others.remove(name).unwrap_or_default();
            Ok((name.to_owned(), a.bootstrap.paired(&clusters, &others)?))
        })
        .collect()
}

/// Sees that two results were judged and scored in the same way.
pub(crate) fn check_settings(a: &EvalResult, b: &EvalResult) -> Result<(), EvalError> {
    let settings = |result: &EvalResult| {
        [
            ("VQA model", result.vqa.clone()),
            ("aggregation", format!("{:?}", result.aggregation)),
            ("answer match", format!("{:?}", result.answer_match)),
            ("missing items", format!("{:?}", result.missing_items)),
            ("bootstrap", format!("{:?}", result.bootstrap)),
        ]
    };
    for ((what, a), (_, b)) in settings(a).into_iter().zip(settings(b)) {
        if a != b {
            return Err(EvalError::SettingsDiffer { what, a, b });
        }
    }
    Ok(())
}

/// The items of `b` in the order of those of `a`.
fn pair_items<'b>(a: &EvalResult, b: &'b EvalResult) -> Result<Vec<&'b ItemResult>, EvalError> {
    let by_id = |result: &'b EvalResult| -> BTreeMap<&'b str, &'b ItemResult> {
        result
            .items
            .iter()
            .map(|item| (item.item_id.as_str(), item))
            .collect()
    };
    let mut others = by_id(b);
    let differ =
        |item: &ItemResult, present: &EvalResult, absent: &EvalResult| EvalError::ItemsDiffer {
            item: item.item_id.clone(),
            present_in: present.model.clone(),
            absent_from: absent.model.clone(),
        };
    let mut partners = Vec::with_capacity(a.items.len());
    for item in &a.items {
        let partner = others
            .remove(item.item_id.as_str())
            .ok_or_else(|| differ(item, a, b))?;
        check_questions(item, partner)?;
        partners.push(partner);
    }
    match b
        .items
        .iter()
        .find(|item| others.contains_key(item.item_id.as_str()))
    {
        Some(item) => Err(differ(item, b, a)),
        None => Ok(partners),
    }
}

fn check_questions(a: &ItemResult, b: &ItemResult) -> Result<(), EvalError> {
    if a.group != b.group {
        return Err(EvalError::SettingsDiffer {
            what: "the group of an item",
            a: format!("{} in {}", a.item_id, a.group),
            b: format!("{} in {}", b.item_id, b.group),
        });
    }
    let differ = |proposition| EvalError::QuestionsDiffer {
        item: a.item_id.clone(),
        proposition,
    };
    for (a, b) in a.questions.iter().zip(&b.questions) {
        let same = a.proposition_id == b.proposition_id
            && a.question == b.question
            && a.category_broad == b.category_broad
            && a.category_detailed == b.category_detailed;
        if !same {
            return Err(differ(a.proposition_id));
        }
    }
    let (longer, shorter) = if a.questions.len() > b.questions.len() {
        (a, b)
    } else {
        (b, a)
    };
    match longer.questions.get(shorter.questions.len()) {
        Some(question) => Err(differ(question.proposition_id)),
        None => Ok(()),
    }
}
