//! Repetitions of one evaluation as one.

use crate::{
    EvalError, EvalOptions, EvalResult, ItemResult, compare::check_settings, result::summarise,
};

/// The prompts of several evaluations of one model, for example of trainings with different seeds, as one evaluation. Each
/// comes with a name that tells it from the others and goes before the ids of its items: `NAME/ID`. [`compare`](crate::compare())
/// pairs two pools that were made with the same names.
///
/// A prompt that stands in several counts as several prompts, so the intervals are those of independent prompts. How much
/// the score varies between repetitions, these intervals do not know: look at the repetitions themselves, too.
///
/// # Errors
/// [`EvalError::Empty`] without evaluations; [`EvalError::SettingsDiffer`] when two were judged by different VQA models or
/// scored by different rules; [`EvalError::RepeatedName`] for two with one name.
pub fn pool<'a>(
    evaluations: impl IntoIterator<Item = (String, &'a EvalResult)>,
) -> Result<EvalResult, EvalError> {
    let evaluations: Vec<(String, &EvalResult)> = evaluations.into_iter().collect();
    let Some((_, first)) = evaluations.first() else {
        return Err(EvalError::Empty {
            what: "evaluations",
        });
    };
    let mut items = Vec::new();
    let mut skipped = Vec::new();
    for (index, (name, result)) in evaluations.iter().enumerate() {
        if evaluations
            .iter()
            .take(index)
            .any(|(other, _)| other == name)
        {
            return Err(EvalError::RepeatedName { name: name.clone() });
        }
        check_settings(first, result)?;
        items.extend(result.items.iter().map(|item| ItemResult {
            item_id: format!("{name}/{}", item.item_id),
            ..item.clone()
        }));
        skipped.extend(result.skipped.iter().map(|id| format!("{name}/{id}")));
    }
    let options = EvalOptions {
        aggregation: first.aggregation,
        answer_match: first.answer_match,
        missing_items: first.missing_items,
        bootstrap: first.bootstrap,
    };
    summarise(&first.model, &first.vqa, &options, items, skipped)
}
