//! A run: its folder, its stages, its models.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use burn::tensor::Device;
use selma_diffusion::noise::derive_seed;
use selma_diffusion::{Checkpoint, CheckpointOptions};
use selma_durable::{create_folder, remove_temporaries, write_json};
use selma_llm::Skill;
use selma_mini::Style;

use crate::adapters::{
    BASE, PlannedMerge, PlannedTraining, TEACHER, check_names, merges, trainings,
};
use crate::files::{begin_folder, read_json};
use crate::report::{ModelKind, Report};
use crate::stages;
use crate::{Layout, Recipe, RunEvent, RunObserver, SelmaError, Writer};

/// A part of a run. Each reads the files of those before it, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// A language model writes prompts, a filter keeps them diverse.
    Prompts,
    /// The model draws them.
    Images,
    /// One expert a skill is trained.
    Train,
    /// The experts are merged.
    Merge,
    /// All models are compared.
    Eval,
    /// The comparison is shown.
    Report,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 6] = [
        Self::Prompts,
        Self::Images,
        Self::Train,
        Self::Merge,
        Self::Eval,
        Self::Report,
    ];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prompts => "prompts",
            Self::Images => "images",
            Self::Train => "train",
            Self::Merge => "merge",
            Self::Eval => "eval",
            Self::Report => "report",
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Stage {
    type Err = SelmaError;

    fn from_str(name: &str) -> Result<Self, SelmaError> {
        let found = Self::ALL.into_iter().find(|stage| stage.name() == name);
        found.ok_or_else(|| SelmaError::Setting {
            field: "stage".to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
            found: name.to_owned(),
        })
    }
}

/// A model of the comparison: the base with at most one adapter or mixture, or the model that draws the pictures to train on, if that is another.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name in the report and of its folder.
    pub name: String,
    /// What kind of model it is.
    pub kind: ModelKind,
    /// The adapter, or the mixture of adapters, on the base.
    pub adapter: Option<PathBuf>,
    /// Whether it is the model that draws the pictures to train on, and not the base.
    pub is_teacher: bool,
}

/// What else may happen in the folder of a run while it is open.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access<'a> {
    /// Nothing.
    Alone,
    /// Other jobs than this one.
    Job(&'a str),
    /// Anything, as nothing is written.
    Look,
}

/// A run and its folder.
#[derive(Debug)]
pub struct Run {
    /// What it does.
    pub recipe: Recipe,
    /// Where things lie.
    pub layout: Layout,
    /// The skills, in the recipe's order.
    pub skills: Vec<Skill>,
    /// What the networks compute on.
    pub device: Device,
    /// Folder of the base model. What the recipe names, unless a program that takes names of another kind sets it to where such a
    /// model lies; the recipe, and all that is recorded, keep the name.
    pub model_folder: PathBuf,
    /// What is read instead of what the base model says, as the recipe has it; here, too, a program may set where a VAE lies.
    pub model_options: CheckpointOptions,
    /// The model that draws the pictures to train on, if it is another: as [`model_folder`](Self::model_folder).
    pub teacher_folder: Option<PathBuf>,
    /// All adapters to train, in order.
    pub(crate) trainings: Vec<PlannedTraining>,
    /// All models to merge, in order.
    pub(crate) merges: Vec<PlannedMerge>,
    /// The hash of the base model, once it is known.
    model_hash: OnceLock<String>,
    /// Keep other processes from working in the folder, or on the same job.
    _locks: Vec<File>,
}

impl Run {
    /// Opens the folder of a run; a new one is made, and one of the same recipe is continued.
    ///
    /// # Errors
    ///
    /// [`SelmaError::OtherRecipe`] if the folder belongs to another recipe, [`SelmaError::Busy`] if another process works
    /// in it; errors of skills that do not exist, and of a folder that cannot be written.
    pub fn open(recipe: Recipe, folder: &Path, device: &Device) -> Result<Self, SelmaError> {
        Self::open_as(recipe, folder, device, Access::Alone)
    }

    /// Opens the folder of a run for one of its [`jobs`](Self::jobs), while other processes do others.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and [`SelmaError::Busy`] also if another process does this job.
    pub fn open_for_job(
        recipe: Recipe,
        folder: &Path,
        device: &Device,
        job: &str,
    ) -> Result<Self, SelmaError> {
        Self::open_as(recipe, folder, device, Access::Job(job))
    }

    pub(crate) fn open_as(
        recipe: Recipe,
        folder: &Path,
        device: &Device,
        access: Access<'_>,
    ) -> Result<Self, SelmaError> {
        recipe.validate()?;
        let skills = recipe
            .prompts
            .skills
            .iter()
            .map(|name| load_skill(&recipe, name));
        let skills: Vec<Skill> = skills.collect::<Result<_, _>>()?;
        let names: Vec<String> = skills.iter().map(|skill| skill.name.clone()).collect();
        let trainings = trainings(&recipe, &names, derive_seed(recipe.seed, "train", &[]))?;
        let merges = merges(&recipe, &names, &trainings)?;
        check_names(&trainings, &merges)?;
        let layout = Layout::new(folder);
        let locks = begin(&recipe, &layout, access)?;
        Ok(Self {
            model_folder: recipe.model.clone(),
            model_options: recipe.model_options.checkpoint_options()?,
            teacher_folder: recipe.images.model.clone(),
            trainings,
            merges,
            recipe,
            layout,
            skills,
            device: device.clone(),
            model_hash: OnceLock::new(),
            _locks: locks,
        })
    }

    /// Runs all stages; what is finished is not done again.
    ///
    /// # Errors
    ///
    /// The first error of a stage. [`SelmaError::Cancelled`] if the observer stops; nothing finished is lost.
    pub fn run(&self, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
        stages::eval::check(self)?;
        Stage::ALL
            .into_iter()
            .try_for_each(|stage| self.stage(stage, observer))
    }

    /// Runs one stage, on the files that the stages before it have left.
    ///
    /// # Errors
    ///
    /// [`SelmaError::MissingStage`] if they are not there; else as [`run`](Self::run).
    pub fn stage(&self, stage: Stage, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
        self.part(stage, None, observer)
    }

    /// Runs one stage, or only what has this name there.
    pub(crate) fn part(
        &self,
        stage: Stage,
        only: Option<&str>,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        if observer(RunEvent::Stage(stage)).is_break() {
            return Err(SelmaError::Cancelled);
        }
        let wanted = |name: &str| only.is_none_or(|only| only == name);
        match stage {
            Stage::Prompts => stages::prompts::run(self, &wanted, observer),
            Stage::Images => stages::images::run(self, &wanted, observer),
            Stage::Train => stages::train::run(self, &wanted, observer),
            Stage::Merge => stages::merge::run(self, &wanted, observer),
            Stage::Eval => stages::eval::run(self, &wanted, observer),
            Stage::Report => stages::report::run(self),
        }
    }

    /// The report on what the stages have measured.
    ///
    /// # Errors
    ///
    /// [`SelmaError::MissingStage`] if the evaluation is not finished.
    pub fn report(&self) -> Result<Report, SelmaError> {
        stages::report::make(self)
    }

    /// All models of the comparison, in the order of the report: the base, the model that draws the pictures to train on if it is another, the adapters that are
    /// compared by themselves, and the merged models.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let base = Model {
            name: BASE.to_owned(),
            kind: ModelKind::Base,
            adapter: None,
            is_teacher: false,
        };
        let teacher = self.recipe.images.model.iter().map(|_| Model {
            name: TEACHER.to_owned(),
            kind: ModelKind::Other,
            adapter: None,
            is_teacher: true,
        });
        let trained = self.trainings.iter().filter_map(|training| {
            Some(Model {
                name: training.name.clone(),
                kind: training.kind?,
                adapter: Some(match training.mixture {
                    None => self.layout.adapter_of(&training.name),
                    Some(_) => self.layout.mixture_of(&training.name),
                }),
                is_teacher: false,
            })
        });
        let merged = self.merges.iter().map(|merge| Model {
            name: merge.model_name(),
            kind: ModelKind::Merged,
            adapter: Some(self.layout.merged(&merge.name)),
            is_teacher: false,
        });
        let unadapted = std::iter::once(base).chain(teacher);
        unadapted.chain(trained).chain(merged).collect()
    }

    /// The base model on disk.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::open_with`].
    pub fn checkpoint(&self) -> Result<Checkpoint, SelmaError> {
        let options = self.model_options.clone();
        Ok(Checkpoint::open_with(&self.model_folder, options)?)
    }

    /// The model that draws the pictures to train on, on disk: the base, unless the recipe names another.
    ///
    /// # Errors
    ///
    /// Those of [`Checkpoint::open`].
    pub fn teacher(&self) -> Result<Checkpoint, SelmaError> {
        match &self.teacher_folder {
            Some(folder) => Ok(Checkpoint::open(folder)?),
            None => self.checkpoint(),
        }
    }

    /// The hash of the model that draws the pictures to train on, as [`model_hash`](Self::model_hash).
    pub(crate) fn teacher_hash(&self) -> Result<String, SelmaError> {
        if self.teacher_folder.is_none() {
            return Ok(self.model_hash()?.to_owned());
        }
        let hash = self.teacher()?.sha256()?;
        self.unchanged("images.model", &hash)?;
        Ok(hash)
    }

    /// The hash of the base model, which must stay the same as long as the run goes on.
    pub(crate) fn model_hash(&self) -> Result<&str, SelmaError> {
        if let Some(hash) = self.model_hash.get() {
            return Ok(hash);
        }
        let hash = self.checkpoint()?.sha256()?;
        self.unchanged("model", &hash)?;
        Ok(self.model_hash.get_or_init(|| hash))
    }

    /// Sees that something that the run reads is as it was when the run read it first.
    pub(crate) fn unchanged(&self, what: &str, hash: &str) -> Result<(), SelmaError> {
        let path = self.layout.inputs();
        let _alone = alone(self.layout.root())?;
        let mut known: BTreeMap<String, String> = if path.is_file() {
            read_json(&path)?
        } else {
            BTreeMap::new()
        };
        match known.get(what) {
            Some(before) if before == hash => Ok(()),
            Some(_) => Err(SelmaError::Changed {
                what: what.to_owned(),
                path: self.layout.root().to_owned(),
            }),
            None => {
                known.insert(what.to_owned(), hash.to_owned());
                Ok(write_json(&path, &known)?)
            }
        }
    }

    /// A seed for one purpose, derived from the recipe's.
    pub(crate) fn seed(&self, purpose: &str, indices: &[u64]) -> u64 {
        derive_seed(self.recipe.seed, purpose, indices)
    }
}

/// Makes the folder, or sees that it belongs to the recipe and tidies up after an interruption. Its recipe is locked, for one process or for
/// all that do jobs, which each lock their job, too.
fn begin(recipe: &Recipe, layout: &Layout, access: Access<'_>) -> Result<Vec<File>, SelmaError> {
    if let Access::Look = access {
        return Ok(Vec::new());
    }
    let folder = layout.root();
    create_folder(folder)?;
    let before = {
        let _alone = alone(folder)?;
        begin_folder(folder, &layout.recipe(), recipe, "run")?
    };
    let file = open(&layout.recipe())?;
    let Access::Job(job) = access else {
        locked(&file.try_lock(), folder)?;
        if before {
            remove_temporaries(folder)?;
        }
        return Ok(vec![file]);
    };
    locked(&file.try_lock_shared(), folder)?;
    let path = layout.lock_of(job);
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let own = File::create(&path).map_err(|source| SelmaError::Io {
        action: "create",
        path: path.clone(),
        source,
    })?;
    locked(&own.try_lock(), folder)?;
    Ok(vec![file, own])
}

/// Waits until no other process changes what all of them share. The folder itself is locked, where the system has that.
fn alone(folder: &Path) -> Result<Option<File>, SelmaError> {
    let Ok(file) = File::open(folder) else {
        return Ok(None);
    };
    Ok(file.lock().is_ok().then_some(file))
}

fn open(path: &Path) -> Result<File, SelmaError> {
    File::open(path).map_err(|source| SelmaError::Io {
        action: "open",
        path: path.to_owned(),
        source,
    })
}

/// Refuses a folder in which another process works. A file system without locks is used without.
fn locked(result: &Result<(), TryLockError>, folder: &Path) -> Result<(), SelmaError> {
    match result {
        Err(TryLockError::WouldBlock) => Err(SelmaError::Busy {
            path: folder.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn load_skill(recipe: &Recipe, name: &str) -> Result<Skill, SelmaError> {
    if name.ends_with(".toml") {
        return Ok(Skill::load(Path::new(name))?);
    }
    Ok(match recipe.prompts.writer {
        Writer::Mini => selma_mini::skill(mini_style(name)?)?,
        Writer::Openai(_) => Skill::builtin(name)?,
    })
}

/// The style of the miniature world that a skill is about.
fn mini_style(name: &str) -> Result<Style, SelmaError> {
    let found = Style::ALL.iter().find(|style| style.name() == name);
    found.copied().ok_or_else(|| SelmaError::Setting {
        field: "prompts.skills".to_owned(),
        expected: Style::ALL
            .iter()
            .map(|style| style.name())
            .collect::<Vec<_>>()
            .join(", "),
        found: name.to_owned(),
    })
}
