//! A run: its folder, its stages, its models.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;

use burn::tensor::Device;
use selma_diffusion::noise::derive_seed;
use selma_diffusion::{Checkpoint, CheckpointOptions};
use selma_durable::{remove_temporaries, write_json};
use selma_llm::Skill;
use selma_mini::Style;

use crate::files::{begin_folder, read_json};
use crate::recipe::FILTERED;
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

/// A model of the comparison: the base with at most one adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// Its name in the report and of its folder.
    pub name: String,
    /// What kind of model it is.
    pub kind: ModelKind,
    /// The adapter on the base.
    pub adapter: Option<PathBuf>,
}

/// Name of the adapter on the data of all skills.
pub(crate) const UNION: &str = "union";

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
    /// The hash of the base model, once it is known.
    model_hash: OnceLock<String>,
    /// Keeps other processes from working in the folder.
    _lock: File,
}

impl Run {
    /// Opens the folder of a run; a new one is made, and one of the same recipe is continued.
    ///
    /// # Errors
    ///
    /// [`SelmaError::OtherRecipe`] if the folder belongs to another recipe, [`SelmaError::Busy`] if another process works
    /// in it; errors of skills that do not exist, and of a folder that cannot be written.
    pub fn open(recipe: Recipe, folder: &Path, device: &Device) -> Result<Self, SelmaError> {
        recipe.validate()?;
        let skills = recipe
            .prompts
            .skills
            .iter()
            .map(|name| load_skill(&recipe, name));
        let skills: Vec<Skill> = skills.collect::<Result<_, _>>()?;
        check_names(&recipe, &skills)?;
        let layout = Layout::new(folder);
        let lock = begin(&recipe, &layout)?;
        Ok(Self {
            model_folder: recipe.model.clone(),
            model_options: recipe.model_options.checkpoint_options()?,
            recipe,
            layout,
            skills,
            device: device.clone(),
            model_hash: OnceLock::new(),
            _lock: lock,
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
        if observer(RunEvent::Stage(stage)).is_break() {
            return Err(SelmaError::Cancelled);
        }
        match stage {
            Stage::Prompts => stages::prompts::run(self, observer),
            Stage::Images => stages::images::run(self, observer),
            Stage::Train => stages::train::run(self, observer),
            Stage::Merge => stages::merge::run(self, observer),
            Stage::Eval => stages::eval::run(self, observer),
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

    /// All models of the comparison, in the order of the report.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        models(&self.recipe, &self.skills, &self.layout)
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

/// Makes the folder, or sees that it belongs to the recipe and tidies up after an interruption. The file is locked.
fn begin(recipe: &Recipe, layout: &Layout) -> Result<File, SelmaError> {
    let folder = layout.root();
    let before = begin_folder(folder, &layout.recipe(), recipe, "run")?;
    let file = File::open(layout.recipe()).map_err(|source| SelmaError::Io {
        action: "open",
        path: layout.recipe(),
        source,
    })?;
    // A file system without locks is used without.
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        return Err(SelmaError::Busy {
            path: folder.to_owned(),
        });
    }
    if before {
        remove_temporaries(folder)?;
    }
    Ok(file)
}

/// Refuses skills whose results would overwrite each other.
fn check_names(recipe: &Recipe, skills: &[Skill]) -> Result<(), SelmaError> {
    let models = models(recipe, skills, &Layout::new("")).into_iter();
    let filtered = skills.iter().map(|s| format!("{}{FILTERED}", s.name));
    let mut names = BTreeSet::new();
    for name in models.map(|model| model.name).chain(filtered) {
        if let Some(name) = names.replace(name) {
            return Err(SelmaError::Setting {
                field: "prompts.skills".to_owned(),
                expected: "names that no other skill or model has".to_owned(),
                found: format!("{name} twice"),
            });
        }
    }
    Ok(())
}

/// The base, the experts, the adapter on all data, and the merged models.
fn models(recipe: &Recipe, skills: &[Skill], layout: &Layout) -> Vec<Model> {
    let mut models = vec![Model {
        name: "base".to_owned(),
        kind: ModelKind::Base,
        adapter: None,
    }];
    for skill in skills {
        models.push(Model {
            name: skill.name.clone(),
            kind: ModelKind::Expert,
            adapter: Some(layout.adapter_of(&skill.name)),
        });
    }
    if recipe.train.union {
        models.push(Model {
            name: UNION.to_owned(),
            kind: ModelKind::Union,
            adapter: Some(layout.adapter_of(UNION)),
        });
    }
    for arm in recipe.train.arms() {
        for method in &recipe.merge.methods {
            models.push(Model {
                name: format!("merged-{}{arm}", method.name),
                kind: ModelKind::Merged,
                adapter: Some(layout.merged(&format!("{}{arm}", method.name))),
            });
        }
    }
    models
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
