//! Stage 6: the comparison is shown.

use std::collections::BTreeMap;

use selma_dataset::Dataset;
use selma_eval::{EvalResult, compare};
use selma_llm::Skill;

use super::eval::{chosen_guidance, image_folder, load};
use super::prompts::generation_report;
use super::{artefacts, chosen};
use crate::draw::file_name;
use crate::report::{
    Evaluation, FunnelRow, GuidanceCurve, ModelKind, ModelRow, Report, SampleImage, SampleRow,
    metrics_of,
};
use crate::{Model, Pick, Run, SelmaError};

/// Bytes of pictures that the report reads.
const SAMPLE_BYTES: u64 = 512 << 20;

/// Writes the report.
pub(crate) fn run(run: &Run) -> Result<(), SelmaError> {
    Ok(make(run)?.write(&run.layout.report())?)
}

/// Collects what the stages have measured.
pub(crate) fn make(run: &Run) -> Result<Report, SelmaError> {
    let mut results = Vec::new();
    for model in run.models() {
        let guidance = chosen_guidance(run, &model)?;
        let result = load(run, &model, "test", guidance)?;
        results.push((model, guidance, result));
    }
    let further = artefacts::further_evaluations(run)?;
    let mut evaluations: Vec<Evaluation> = results
        .iter()
        .map(|(model, _, result)| Evaluation {
            model: model.name.clone(),
            ..Evaluation::of_dsg(result)
        })
        .collect();
    let base = results.first().map(|(_, _, result)| result);
    let models = results
        .iter()
        .zip(&evaluations)
        .enumerate()
        .map(|(index, ((model, guidance, result), evaluation))| {
            let difference_to_base = match base {
                Some(base) if index > 0 => Some(compare(result, base)?),
                _ => None,
            };
            Ok(ModelRow {
                name: model.name.clone(),
                kind: model.kind,
                guidance: *guidance,
                overall: result.overall,
                by_skill: evaluation.by_group.clone(),
                by_category: evaluation.by_category.clone(),
                difference_to_base,
            })
        })
        .collect::<Result<Vec<_>, SelmaError>>()?;
    let ratings = artefacts::ratings(run)?;
    let hashes = artefacts::hashes(run, &further, &ratings)?;
    evaluations.extend(further);
    let kind = |name: &str| {
        let model = results.iter().find(|(model, _, _)| model.name == name);
        model.map_or(ModelKind::Other, |(model, _, _)| model.kind)
    };
    let name_of_base = results.first().map_or("", |(model, _, _)| &model.name);
    let (metrics, remarks) = metrics_of(&evaluations, name_of_base, &kind)?;
    let step = sample_step(run, &results);
    let mut notes = notes(run, &results, step);
    notes.extend(remarks);
    let recipe = &run.recipe;
    Ok(Report {
        title: format!("SELMA: {}", recipe.name),
        summary: summary(run),
        confidence: recipe.eval.bootstrap.confidence,
        models,
        metrics,
        samples: samples(run, &results, &evaluations, step)?,
        ratings,
        funnel: funnel(run)?,
        selected: chosen::rows(run)?,
        curves: curves(run, &results)?,
        training: artefacts::trainings(run)?,
        merges: artefacts::merges(run)?,
        settings: settings(run)?,
        hashes,
        notes,
    })
}

fn summary(run: &Run) -> String {
    let recipe = &run.recipe;
    let prompts = match &recipe.eval.questions {
        None => format!(
            "{} prompts a skill that none was trained on",
            recipe.eval.prompts
        ),
        Some(file) => format!("the prompts of {}", file.csv.display()),
    };
    let count = recipe.prompts.settings.count;
    let skills = run.skills.len();
    let (learns, drew) = match &recipe.images.model {
        None => ("teaches itself", "the model drew them itself".to_owned()),
        Some(teacher) => (
            "learns from another",
            format!("{} drew them", teacher.display()),
        ),
    };
    format!(
        "A text-to-image model {learns}: {count} prompts for each of {skills} skills were written and filtered, \
         {drew} at guidance {}, one LoRA expert was trained on each skill's pictures, and the \
         experts were merged. All models then drew {prompts}, from the same noise, \
         and every picture was asked the questions that its prompt implies. A score is the share of questions \
         answered yes.",
        recipe.images.guidance
    )
}

fn notes(run: &Run, results: &[(Model, f64, EvalResult)], step: usize) -> Vec<String> {
    let mut notes = vec![
        "Intervals are bootstrap intervals clustered by prompt; differences are paired by prompt."
            .to_owned(),
    ];
    if run.recipe.eval.guidances.len() > 1 {
        notes.push(format!(
            "Each model's guidance was chosen among {:?} on {} validation prompts a skill that are not among the test \
             prompts.",
            run.recipe.eval.guidances, run.recipe.eval.validation
        ));
    }
    if let Some(teacher) = &run.recipe.images.model {
        notes.push(format!(
            "The model called teacher is {}, which drew the pictures to train on.",
            teacher.display()
        ));
    }
    if run.recipe.train.validation > 0 {
        notes.push(format!(
            "Of each skill {} prompts were not trained on; {}",
            run.recipe.train.validation,
            match run.recipe.train.pick {
                Pick::Last => "the loss on them was watched alone.",
                Pick::Best => "each adapter is the one with the smallest loss on them.",
            }
        ));
    }
    if run.recipe.train.filtered {
        notes.push(
            "Models called filtered were trained on those pictures alone in which the judge found no fault, as \
             DreamSync selects its data; the others on all pictures, as SELMA does."
                .to_owned(),
        );
    }
    if let (false, Some((_, _, base))) = (run.recipe.eval.judge.is_oracle(), results.first()) {
        notes.push(format!("The questions were answered by {}.", base.vqa));
    }
    for (model, _, result) in results {
        let (unanswered, unclear) = (result.unanswered, result.unclear);
        if unanswered + unclear > 0 {
            notes.push(format!(
                "{}: of {} questions {unanswered} have no answer and {unclear} have one that is neither yes nor no; they score zero.",
                model.name, result.questions
            ));
        }
    }
    if step > 1 {
        notes.push(format!(
            "The pictures of one prompt in {step} are shown; all are in the folder of the run."
        ));
    }
    notes
}

fn funnel(run: &Run) -> Result<Vec<FunnelRow>, SelmaError> {
    let row = |skill: &Skill| {
        let Some(report) = generation_report(run, skill)? else {
            return Ok(None);
        };
        Ok(Some(FunnelRow {
            skill: skill.name.clone(),
            requests: usize::try_from(report.requests).unwrap_or(usize::MAX),
            parsed: report.parsed,
            kept: report.kept,
            images: Dataset::open(run.layout.images_of(&skill.name))?.len(),
            rejected: (report.rejections().into_iter())
                .chain([("more than were asked for", report.surplus)])
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
        }))
    };
    run.skills
        .iter()
        .map(row)
        .filter_map(Result::transpose)
        .collect()
}

fn curves(
    run: &Run,
    results: &[(Model, f64, EvalResult)],
) -> Result<Vec<GuidanceCurve>, SelmaError> {
    let guidances = &run.recipe.eval.guidances;
    if guidances.len() < 2 {
        return Ok(Vec::new());
    }
    let set = if run.recipe.eval.curve {
        "test"
    } else {
        "validation"
    };
    let curves = results.iter().map(|(model, chosen, _)| {
        let points = guidances
            .iter()
            .map(|&guidance| Ok((guidance, load(run, model, set, guidance)?.overall)));
        Ok(GuidanceCurve {
            model: model.name.clone(),
            points: points.collect::<Result<_, SelmaError>>()?,
            chosen: Some(*chosen),
        })
    });
    curves.collect()
}

/// The pictures of one prompt in so many are shown, so that all of them fit in memory.
fn sample_step(run: &Run, results: &[(Model, f64, EvalResult)]) -> usize {
    let size = |(model, guidance, result): &(Model, f64, EvalResult)| -> u64 {
        let folder = image_folder(run, model, "test", *guidance);
        let sizes = result.items.iter().map(|item| {
            let file = std::fs::metadata(folder.join(file_name(&item.item_id)));
            file.map_or(0, |file| file.len())
        });
        sizes.sum()
    };
    let total: u64 = results.iter().map(size).sum();
    usize::try_from(total.div_ceil(SAMPLE_BYTES)).map_or(1, |step| step.max(1))
}

fn samples(
    run: &Run,
    results: &[(Model, f64, EvalResult)],
    evaluations: &[Evaluation],
    step: usize,
) -> Result<Vec<SampleRow>, SelmaError> {
    let mut rows: BTreeMap<String, SampleRow> = BTreeMap::new();
    let mut order = Vec::new();
    for ((model, guidance, _), evaluation) in results.iter().zip(evaluations) {
        let folder = image_folder(run, model, "test", *guidance);
        for item in evaluation.items.iter().step_by(step) {
            let path = folder.join(file_name(&item.id));
            let png = std::fs::read(&path).map_err(|source| SelmaError::Io {
                action: "read",
                path: path.clone(),
                source,
            })?;
            let image = SampleImage {
                model: model.name.clone(),
                png,
                score: item.score.unwrap_or(f64::NAN),
                answers: item.answers.clone(),
            };
            let row = rows.entry(item.id.clone()).or_insert_with(|| {
                order.push(item.id.clone());
                SampleRow {
                    id: item.id.clone(),
                    skill: item.group.clone(),
                    prompt: item.text.clone(),
                    images: Vec::new(),
                }
            });
            row.images.push(image);
        }
    }
    Ok(order.iter().filter_map(|id| rows.remove(id)).collect())
}

fn settings(run: &Run) -> Result<Vec<(String, String)>, SelmaError> {
    let mut settings = vec![("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
    let recipe = serde_json::to_value(&run.recipe).map_err(SelmaError::Json)?;
    flatten("", &recipe, &mut settings);
    // The recipe's seed is in their place.
    settings.retain(|(key, _)| key != "prompts.seed" && key != "train.seed");
    Ok(settings)
}

/// Turns nested settings into `section.key` and value.
fn flatten(path: &str, value: &serde_json::Value, settings: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                flatten(&path, value, settings);
            }
        }
        serde_json::Value::String(text) => settings.push((path.to_owned(), text.clone())),
        other => settings.push((path.to_owned(), other.to_string())),
    }
}
