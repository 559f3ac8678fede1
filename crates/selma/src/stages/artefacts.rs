//! What the stages left beside their results: how trainings went, what merges did, further evaluations, and hashes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use selma_durable::{DurableError, read_jsonl, sha256};
use serde::Deserialize;
use serde_json::Value;

use super::eval::{ANSWERS, RESULT_PREFIX};
use crate::adapters::PlannedTraining;
use crate::files::read_json;
use crate::report::{Evaluation, HumanRating, MergeRow, MergedLayer, TrainingCurve, TrainingStep};
use crate::{Expert, Metrics, Run, SelmaError};

/// The part of a merge's report that is shown.
#[derive(Deserialize)]
struct MergeFile {
    merge: BTreeMap<String, Value>,
    inputs: Vec<InputOfMerge>,
    norm: f64,
    truncation_error: f64,
    self_check: f64,
    modules: Vec<ModuleOfMerge>,
}

#[derive(Deserialize)]
struct InputOfMerge {
    weight: f64,
}

#[derive(Deserialize)]
struct ModuleOfMerge {
    module: String,
    rank: usize,
    norm: f64,
}

/// The losses of every training; adapters that the user brought have none.
pub(super) fn trainings(run: &Run) -> Result<Vec<TrainingCurve>, SelmaError> {
    let mut curves = Vec::new();
    for training in &run.trainings {
        let path = run.layout.expert(&training.name).join("metrics.jsonl");
        if !path.is_file() {
            continue;
        }
        let steps: Vec<Metrics> = read_jsonl(&path)?;
        let pairs = steps.iter().any(|step| step.accuracy.is_some());
        let objective = match pairs {
            true => "Preference between the pictures of pairs",
            false => "Prediction of the noise",
        };
        let steps = steps.into_iter().map(|step| TrainingStep {
            step: step.step,
            loss: f64::from(step.loss),
            accuracy: step.accuracy.map(f64::from),
        });
        curves.push(TrainingCurve {
            name: training.name.clone(),
            objective: objective.to_owned(),
            detail: detail(training),
            steps: steps.collect(),
        });
    }
    Ok(curves)
}

fn detail(training: &PlannedTraining) -> String {
    let config = &training.config;
    let of = match training.skills.as_slice() {
        [skill] if *skill != training.name => format!("{skill}, "),
        [] | [_] => String::new(),
        skills => format!("{} skills, ", skills.len()),
    };
    format!(
        "{of}{} steps of {}, rank {}, learning rate {}",
        config.steps, config.batch_size, config.rank, config.learning_rate
    )
}

/// What every merge did; merged adapters that the user brought have no report.
pub(super) fn merges(run: &Run) -> Result<Vec<MergeRow>, SelmaError> {
    let mut rows = Vec::new();
    for merge in &run.merges {
        let path = run.layout.merged(&merge.name).with_extension("json");
        if !path.is_file() {
            continue;
        }
        let file: MergeFile = read_json(&path)?;
        let inputs = merge.of.iter().zip(&file.inputs);
        let layers = file.modules.into_iter().map(|module| MergedLayer {
            module: module.module,
            rank: module.rank,
            norm: module.norm,
        });
        rows.push(MergeRow {
            name: merge.name.clone(),
            method: method(&file.merge),
            inputs: inputs
                .map(|(name, input)| (name.clone(), input.weight))
                .collect(),
            norm: file.norm,
            truncation_error: file.truncation_error,
            self_check: file.self_check,
            layers: layers.collect(),
        });
    }
    Ok(rows)
}

/// "peft_ties, density 0.3": the method and the options that were given.
fn method(merge: &BTreeMap<String, Value>) -> String {
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let options = merge
        .iter()
        .filter(|(key, value)| *key != "method" && !value.is_null() && !value.is_object())
        .map(|(key, value)| format!("{key} {}", text(value)));
    let method = merge.get("method").map(text);
    let parts: Vec<String> = method.into_iter().chain(options).collect();
    parts.join(", ")
}

/// What the recipe's scorers have written, and files of `selma eval … --out` that the user has put beside the results of the models:
/// `eval/MODEL/*.json` and `*.jsonl`.
pub(super) fn further_evaluations(run: &Run) -> Result<Vec<Evaluation>, SelmaError> {
    let mut evaluations = Vec::new();
    for model in run.models() {
        for path in files(&run.layout.eval_of(&model.name))? {
            evaluations.extend(Evaluation::read(&path, Some(&model.name))?);
        }
    }
    Ok(evaluations)
}

/// What people said of the models: files of `selma rate import --format json` that the user has put into `ratings/`.
pub(super) fn ratings(run: &Run) -> Result<Vec<HumanRating>, SelmaError> {
    let folder = run.layout.ratings();
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let files = files(&folder)?;
    files.iter().map(|path| HumanRating::read(path)).collect()
}

/// The files of evaluations in a folder that are not the run's own, by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, SelmaError> {
    let io = |source| SelmaError::Io {
        action: "read",
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ending = path.extension().unwrap_or_default();
        let of_metric = (ending == "json" || ending == "jsonl") && path.is_file();
        let own = name.starts_with(RESULT_PREFIX) || name == ANSWERS;
        if of_metric && !own && !name.starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Hashes of what the run has read, and of the adapters that it has made.
pub(super) fn hashes(
    run: &Run,
    further: &[Evaluation],
    ratings: &[HumanRating],
) -> Result<Vec<(String, String)>, SelmaError> {
    // Sees that it is the model that everything was made with, and that its hash is among those of the inputs.
    run.model_hash()?;
    let inputs: BTreeMap<String, String> = read_json(&run.layout.inputs())?;
    let mut hashes: Vec<(String, String)> = inputs.into_iter().collect();
    let trained = run.trainings.iter();
    let trained = trained.filter_map(|training| Expert::result(&run.layout.expert(&training.name)));
    let merged = run
        .merges
        .iter()
        .map(|merge| run.layout.merged(&merge.name));
    let mut files: Vec<PathBuf> = trained
        .chain(merged)
        .filter(|path| path.is_file())
        .collect();
    files.extend(further.iter().map(|evaluation| evaluation.path.clone()));
    files.extend(ratings.iter().map(|rating| rating.path.clone()));
    files.dedup();
    for path in files {
        let name = path.strip_prefix(run.layout.root()).unwrap_or(&path);
        let hash: Result<[u8; 32], DurableError> = sha256(&path);
        hashes.push((name.display().to_string(), hex::encode(hash?)));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_told_with_the_options_that_were_given() {
        let merge = serde_json::json!({"method": "peft_ties", "rank": null, "density": 0.3});
        let merge: BTreeMap<String, Value> = serde_json::from_value(merge).unwrap();
        assert_eq!(method(&merge), "peft_ties, density 0.3");
    }

    #[test]
    fn only_files_of_evaluations_that_are_not_the_runs_own_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "tifa.json",
            "pickscore.jsonl",
            "dsg-test-g2.json",
            ANSWERS,
            "notes.txt",
            ".x.json",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        std::fs::create_dir(dir.path().join("folder.json")).unwrap();
        let names: Vec<String> = files(dir.path())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names, ["pickscore.jsonl", "tifa.json"]);
    }
}
