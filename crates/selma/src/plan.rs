//! The parts of a run that can be done by processes of their own, on several machines with one file system.

use std::path::Path;

use burn::tensor::Device;
use serde::Serialize;

use crate::run::Access;
use crate::{Expert, Recipe, Run, RunObserver, SelmaError, Stage, stages};

/// A part of a run: what one process can do by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// The stage and what is made there, such as `train/coco`; `report` for the report.
    pub id: String,
    /// The stage it belongs to.
    pub stage: &'static str,
    /// Ids of the jobs that have to be finished before.
    pub needs: Vec<String>,
    /// Whether what it makes is there already.
    pub finished: bool,
}

/// The parts of a run, each after those that it needs. Nothing is written; what is in the folder already decides what is finished.
///
/// # Errors
///
/// If the recipe cannot be used.
pub fn jobs(recipe: Recipe, folder: &Path, device: &Device) -> Result<Vec<Job>, SelmaError> {
    Ok(Run::open_as(recipe, folder, device, Access::Look)?.jobs())
}

impl Run {
    /// All parts of the run, each after those that it needs.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        let id = |stage: Stage, name: &str| format!("{}/{name}", stage.name());
        let layout = &self.layout;
        let mut jobs = Vec::new();
        let mut push = |stage: Stage, name: &str, needs: Vec<String>, finished: bool| {
            jobs.push(Job {
                id: id(stage, name),
                stage: stage.name(),
                needs,
                finished,
            });
        };
        for skill in &self.skills {
            let finished = layout.prompts_of(&skill.name).is_file();
            push(Stage::Prompts, &skill.name, Vec::new(), finished);
        }
        for skill in &self.skills {
            let needs = vec![id(Stage::Prompts, &skill.name)];
            let finished = stages::images::is_finished(self, &skill.name);
            push(Stage::Images, &skill.name, needs, finished);
        }
        for training in &self.trainings {
            let stage = training.pictures.made_by();
            let pictures = training.skills.iter().map(|skill| id(stage, skill));
            let mixture = training.mixture.iter();
            let experts = mixture.flat_map(|(experts, _)| experts);
            let needs = pictures.chain(experts.map(|name| id(Stage::Train, name)));
            let finished = Expert::result(&layout.expert(&training.name)).is_some();
            push(Stage::Train, &training.name, needs.collect(), finished);
        }
        for merge in &self.merges {
            let needs = merge.of.iter().map(|name| id(Stage::Train, name));
            let finished = layout.merged(&merge.name).is_file();
            push(Stage::Merge, &merge.name, needs.collect(), finished);
        }
        let models = self.models();
        for model in &models {
            let trained = self.trainings.iter().map(|training| &training.name);
            let merged = model.name.strip_prefix("merged-");
            let needs = match (merged, trained.into_iter().any(|name| *name == model.name)) {
                (_, true) => vec![id(Stage::Train, &model.name)],
                (Some(name), false) => vec![id(Stage::Merge, name)],
                (None, false) => Vec::new(),
            };
            let finished = stages::eval::is_finished(self, model);
            push(Stage::Eval, &model.name, needs, finished);
        }
        let needs = models.iter().map(|model| id(Stage::Eval, &model.name));
        jobs.push(Job {
            id: Stage::Report.name().to_owned(),
            stage: Stage::Report.name(),
            needs: needs.collect(),
            finished: layout.report().is_dir(),
        });
        jobs
    }

    /// Does one part, on the files that those before it have left.
    ///
    /// # Errors
    ///
    /// [`SelmaError::Setting`] for an id that is none of [`jobs`](Self::jobs); else as [`stage`](Self::stage).
    pub fn job(&self, id: &str, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
        let jobs = self.jobs();
        let Some(job) = jobs.iter().find(|job| job.id == id) else {
            let ids: Vec<&str> = jobs.iter().map(|job| job.id.as_str()).collect();
            return Err(SelmaError::Setting {
                field: "job".to_owned(),
                expected: ids.join(", "),
                found: id.to_owned(),
            });
        };
        let name = id.split_once('/').map(|(_, name)| name);
        self.part(job.stage.parse()?, name, observer)
    }
}
