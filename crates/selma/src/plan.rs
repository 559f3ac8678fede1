//! The parts of a run that can be done by processes of their own, on several machines with one file system.

use std::path::Path;

use burn::tensor::Device;
use serde::Serialize;

use crate::adapters::{BASE, TEACHER};
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

/// A job, without what only the disk knows.
struct Part {
    stage: Stage,
    /// What is made; nothing for the report.
    name: Option<String>,
    /// Ids.
    needs: Vec<String>,
}

impl Part {
    fn id(&self) -> String {
        match &self.name {
            Some(name) => id(self.stage, name),
            None => self.stage.name().to_owned(),
        }
    }
}

fn id(stage: Stage, name: &str) -> String {
    format!("{}/{name}", stage.name())
}

impl Run {
    /// All parts of the run, each after those that it needs.
    #[must_use]
    pub fn jobs(&self) -> Vec<Job> {
        let job = |part: Part| Job {
            id: part.id(),
            stage: part.stage.name(),
            finished: self.is_finished(part.stage, part.name.as_deref().unwrap_or_default()),
            needs: part.needs,
        };
        self.parts().into_iter().map(job).collect()
    }

    fn parts(&self) -> Vec<Part> {
        let part = |stage: Stage, name: &str, needs: Vec<String>| Part {
            stage,
            name: Some(name.to_owned()),
            needs,
        };
        let skills = || self.skills.iter().map(|skill| skill.name.as_str());
        let prompts = skills().map(|skill| part(Stage::Prompts, skill, Vec::new()));
        let images =
            skills().map(|skill| part(Stage::Images, skill, vec![id(Stage::Prompts, skill)]));
        let trainings = self.trainings.iter().map(|training| {
            let stage = training.pictures.made_by();
            let pictures = training.skills.iter().map(|skill| id(stage, skill));
            let mixture = training.mixture.iter();
            let experts = mixture.flat_map(|(experts, _)| experts);
            let needs = pictures.chain(experts.map(|name| id(Stage::Train, name)));
            part(Stage::Train, &training.name, needs.collect())
        });
        let merges = self.merges.iter().map(|merge| {
            let needs = merge.of.iter().map(|name| id(Stage::Train, name));
            part(Stage::Merge, &merge.name, needs.collect())
        });
        let mut parts: Vec<Part> = prompts
            .chain(images)
            .chain(trainings)
            .chain(merges)
            .collect();
        let compared = self.trainings.iter();
        let compared = compared.filter(|training| training.kind.is_some());
        let trained =
            compared.map(|training| (training.name.clone(), id(Stage::Train, &training.name)));
        let merged = self.merges.iter();
        let merged = merged.map(|merge| (merge.model_name(), id(Stage::Merge, &merge.name)));
        let adapted = trained.chain(merged);
        let adapted = adapted.map(|(model, adapter)| part(Stage::Eval, &model, vec![adapter]));
        let teacher = self.recipe.images.model.iter().map(|_| TEACHER);
        let unadapted = std::iter::once(BASE).chain(teacher);
        let unadapted = unadapted.map(|name| part(Stage::Eval, name, Vec::new()));
        let evals: Vec<Part> = unadapted.chain(adapted).collect();
        let needs = evals.iter().map(Part::id).collect();
        parts.extend(evals);
        parts.push(Part {
            stage: Stage::Report,
            name: None,
            needs,
        });
        parts
    }

    /// Whether what a part makes is there.
    fn is_finished(&self, stage: Stage, name: &str) -> bool {
        let layout = &self.layout;
        match stage {
            Stage::Prompts => layout.prompts_of(name).is_file(),
            Stage::Images => stages::images::is_finished(self, name),
            Stage::Train => Expert::result(&layout.expert(name)).is_some(),
            Stage::Merge => layout.merged(name).is_file(),
            Stage::Eval => {
                let models = self.models();
                let mut named = models.iter().filter(|model| model.name == name);
                named.any(|model| stages::eval::is_finished(self, model))
            }
            Stage::Report => layout.report().is_dir(),
        }
    }

    /// Does one part, on the files that those before it have left.
    ///
    /// # Errors
    ///
    /// [`SelmaError::Setting`] for an id that is none of [`jobs`](Self::jobs); else as [`stage`](Self::stage).
    pub fn job(&self, id: &str, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
        let parts = self.parts();
        let Some(part) = parts.iter().find(|part| part.id() == id) else {
            let ids: Vec<String> = parts.iter().map(Part::id).collect();
            return Err(SelmaError::Setting {
                field: "job".to_owned(),
                expected: ids.join(", "),
                found: id.to_owned(),
            });
        };
        self.part(part.stage, part.name.as_deref(), observer)
    }
}
