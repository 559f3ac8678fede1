//! What a run does, as a TOML file.

use std::path::{Path, PathBuf};

use selma_diffusion::CheckpointOptions;
use selma_diffusion::presets::Preset;
use selma_diffusion::schedulers::SchedulerKind;
use selma_eval::Bootstrap;
use selma_eval::dsg::Aggregation;
use selma_llm::{OpenAiConfig, PromptConfig};
use selma_train::TrainConfig;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};

use crate::files::{read_json, read_toml};
use crate::{
    FurtherMerge, FurtherMixture, FurtherTraining, Judge, Layout, MergeMethod, Pick, QuestionFile,
    RoundStage, ScorerSettings, Selection, SelmaError, TrainingPictures,
};

/// A run: everything that decides its results.
///
/// Paths are relative to the folder in which the program runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run, and of its folder below `runs/`.
    pub name: String,
    /// Seed of everything; prompts, pictures and trainings derive theirs from it.
    pub seed: u64,
    /// Folder of the base model, in diffusers' layout.
    pub model: PathBuf,
    /// What to read instead of what the model says.
    #[serde(default, skip_serializing_if = "ModelOptions::is_empty")]
    pub model_options: ModelOptions,
    /// Stage 1: prompts.
    pub prompts: PromptStage,
    /// Stage 2: pictures of the prompts by the model itself.
    pub images: ImageStage,
    /// Who judges the pictures to train on, where trainings choose among them.
    #[serde(default, skip_serializing_if = "Selection::is_default")]
    pub selection: Selection,
    /// Stage 3: one expert a skill, and one adapter on all data.
    pub train: TrainStage,
    /// Further adapters of stage 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trainings: Vec<FurtherTraining>,
    /// Mixtures of what was trained, the last of stage 3.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mixtures: Vec<FurtherMixture>,
    /// Stage 4: merging the experts.
    pub merge: MergeStage,
    /// Further merged models of stage 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merges: Vec<FurtherMerge>,
    /// How all models are compared.
    pub eval: EvalStage,
    /// How often all of it is gone through; once, if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<RoundStage>,
}

/// What to read instead of what a model says: see [`CheckpointOptions`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// Variant of the weight files, such as `fp16`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Configurations: a folder in the layout of diffusers, or the name of a published model, such as `sd2-base`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Folder of the tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Folder or file of the VAE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vae: Option<PathBuf>,
}

impl ModelOptions {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the reader of checkpoints takes them.
    ///
    /// # Errors
    ///
    /// [`SelmaError::Setting`] if the configurations are neither a folder nor a published model.
    pub fn checkpoint_options(&self) -> Result<CheckpointOptions, SelmaError> {
        let source = |name: &String| {
            name.parse().map_err(|_| SelmaError::Setting {
                field: "model_options.config".to_owned(),
                expected: format!(
                    "a folder, or one of {}",
                    Preset::ALL.map(Preset::name).join(", ")
                ),
                found: format!("{name:?}"),
            })
        };
        Ok(CheckpointOptions {
            variant: self.variant.clone(),
            config: self.config.as_ref().map(source).transpose()?,
            tokenizer: self.tokenizer.clone(),
            vae: self.vae.clone(),
            dtype: None,
            unet_dtype: None,
        })
    }
}

/// How prompts are written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptStage {
    /// Who writes.
    pub writer: Writer,
    /// Names of skills, or paths of skill files that end in `.toml`.
    pub skills: Vec<String>,
    /// How many prompts a skill and how they are filtered; the seed is replaced by one derived from the recipe's.
    #[serde(flatten, deserialize_with = "settings")]
    pub settings: PromptConfig,
}

/// Who writes the prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writer {
    /// The miniature world's grammar, which acts as a language model. Skills are those of the miniature.
    Mini,
    /// A server with OpenAI's interface.
    Openai(Box<OpenAiConfig>),
}

/// How pictures are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageStage {
    /// The model that draws, if it is not the one that is trained (weak-to-strong, section 5.5 of the paper).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance.
    pub guidance: f64,
    /// The scheduler; the checkpoint's if none is given.
    #[serde(default, with = "scheduler_name")]
    pub scheduler: Option<SchedulerKind>,
    /// Pictures drawn together. It does not change which noise a picture starts from.
    pub batch_size: usize,
    /// Pictures of each prompt, which differ by their noise; the paper draws one.
    #[serde(default = "one")]
    pub per_prompt: usize,
}

fn one() -> usize {
    1
}

/// How experts are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainStage {
    /// Whether one adapter is also trained on the data of all skills, for as many steps as all experts together.
    pub union: bool,
    /// Whether a further set of experts is trained on those pictures alone that the judge finds faultless (as DreamSync,
    /// arXiv 2311.17946, selects), and merged.
    #[serde(default)]
    pub filtered: bool,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Prompts of each skill, and captions of each other data set, whose pictures are not trained on: at every checkpoint the loss on them is written down.
    #[serde(default, skip_serializing_if = "is_default")]
    pub validation: usize,
    /// Which checkpoint becomes the adapter.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pick: Pick,
    /// Settings of every training; the seed is replaced by one derived from the recipe's, the same for all experts.
    #[serde(flatten, deserialize_with = "settings")]
    pub settings: TrainConfig,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Suffix of what is trained on faultless pictures alone.
pub(crate) const FILTERED: &str = "-filtered";

impl TrainStage {
    /// The sets of experts, by the suffix of their names.
    pub(crate) fn arms(&self) -> &'static [&'static str] {
        if self.filtered {
            &["", FILTERED]
        } else {
            &[""]
        }
    }

    /// Checks what trainings are watched by, given the prompts of a skill.
    fn validate(&self, prompts: usize) -> Result<(), SelmaError> {
        let wrong = |field: &str, expected: String, found: String| {
            Err(SelmaError::Setting {
                field: format!("train.{field}"),
                expected,
                found,
            })
        };
        if self.validation >= prompts && self.validation > 0 {
            let expected = format!("less than prompts.count, {prompts}");
            return wrong("validation", expected, self.validation.to_string());
        }
        if self.pick != Pick::Last && self.validation == 0 {
            let expected = format!("{}, as `train.validation` is 0", Pick::Last.name());
            return wrong("pick", expected, self.pick.name().to_owned());
        }
        Ok(())
    }
}

/// How experts are merged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MergeStage {
    /// One merged model for each: a method's name, or a table with a method and its options.
    pub methods: Vec<MergeMethod>,
}

/// How models are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalStage {
    /// Who answers the questions.
    #[serde(default, skip_serializing_if = "Judge::is_oracle")]
    pub judge: Judge,
    /// Pictures are sent to a server as JPEG of this quality, 1 to 100, instead of PNG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<u8>,
    /// The test prompts and their questions; the miniature's own, if there is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub questions: Option<QuestionFile>,
    /// What else scores the pictures of the test prompts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scorers: Vec<ScorerSettings>,
    /// Test prompts a skill. Of a file: of each source, the first ones; all, if it is 0.
    #[serde(default)]
    pub prompts: usize,
    /// Validation prompts a skill, on which each model's guidance is chosen. A file has none.
    #[serde(default)]
    pub validation: usize,
    /// Scales of guidance to choose from. With one scale nothing has to be chosen.
    pub guidances: Vec<f64>,
    /// Denoising steps.
    pub steps: usize,
    /// The scheduler; the checkpoint's if none is given.
    #[serde(default, with = "scheduler_name")]
    pub scheduler: Option<SchedulerKind>,
    /// Pictures drawn together.
    pub batch_size: usize,
    /// Whether the test prompts are drawn at every scale, not only at the chosen one: the whole guidance curve.
    #[serde(default)]
    pub curve: bool,
    /// How answers become a score.
    pub aggregation: Aggregation,
    /// How intervals are made.
    #[serde(default)]
    pub bootstrap: Bootstrap,
}

impl EvalStage {
    /// Checks who is asked what.
    fn validate(&self, plain: impl Fn(&str) -> bool) -> Result<(), SelmaError> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(SelmaError::Setting {
                field: format!("eval.{field}"),
                expected: expected.to_owned(),
                found,
            })
        };
        self.judge.validate("eval", self.jpeg)?;
        if self.guidances.is_empty() {
            return wrong("guidances", "at least one", "none".to_owned());
        }
        match &self.questions {
            None if self.prompts == 0 => return wrong("prompts", "at least 1", "0".to_owned()),
            None if self.guidances.len() > 1 && self.validation == 0 => {
                let expected = "at least 1, to choose from several guidances";
                return wrong("validation", expected, "0".to_owned());
            }
            Some(_) if self.guidances.len() > 1 || self.validation > 0 => {
                let expected = "one guidance and no validation, as questions from a file are for the test alone";
                let found = format!("{:?} and {}", self.guidances, self.validation);
                return wrong("guidances and validation", expected, found);
            }
            _ => {}
        }
        for (index, scorer) in self.scorers.iter().enumerate() {
            scorer.kind()?;
            let name = scorer.name();
            if !plain(name) {
                let expected = "names of letters, digits, '-', '_' and '.'";
                return wrong("scorers", expected, format!("{name:?}"));
            }
            let mut others = self.scorers.iter().skip(index + 1);
            if others.any(|other| other.name() == name) {
                let expected = "each once, or with a `name` of its own";
                return wrong("scorers", expected, format!("{name} twice"));
            }
        }
        Ok(())
    }
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, has an unknown, missing or mistyped key, or a setting cannot be used.
    pub fn load(path: &Path) -> Result<Self, SelmaError> {
        let recipe: Self = read_toml(path)?;
        recipe.validate()?;
        Ok(recipe)
    }

    /// The recipe that a run was begun with.
    ///
    /// # Errors
    ///
    /// If the folder is no run.
    pub fn of_run(folder: &Path) -> Result<Self, SelmaError> {
        read_json(&Layout::new(folder).recipe())
    }

    /// Checks all settings before anything expensive starts.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used.
    pub fn validate(&self) -> Result<(), SelmaError> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(SelmaError::Setting {
                field: field.to_owned(),
                expected: expected.to_owned(),
                found,
            })
        };
        let plain = |name: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && !name.starts_with('.') && name.chars().all(allowed)
        };
        if !plain(&self.name) {
            return wrong(
                "name",
                "letters, digits, '-', '_' and '.'",
                format!("{:?}", self.name),
            );
        }
        if self.prompts.skills.is_empty() {
            return wrong("prompts.skills", "at least one", "none".to_owned());
        }
        let methods = &self.merge.methods;
        if methods.is_empty() {
            return wrong("merge.methods", "at least one", "none".to_owned());
        }
        for (index, method) in methods.iter().enumerate() {
            let name = &method.name;
            if !plain(name) {
                let expected = "names of letters, digits, '-', '_' and '.'";
                return wrong("merge.methods", expected, format!("{name:?}"));
            }
            if methods
                .iter()
                .skip(index + 1)
                .any(|other| other.name == *name)
            {
                let expected = "each once, or with a `name` of its own";
                return wrong("merge.methods", expected, format!("{name} twice"));
            }
            method.validate(self.prompts.skills.len())?;
        }
        let further = self.trainings.iter().map(|training| &training.name);
        let mixtures = self.mixtures.iter().map(|mixture| &mixture.name);
        let merges = self.merges.iter().map(|merge| &merge.name);
        for name in further.chain(mixtures).chain(merges) {
            if !plain(name) {
                let expected = "names of letters, digits, '-', '_' and '.'";
                return wrong(
                    "trainings, mixtures and merges",
                    expected,
                    format!("{name:?}"),
                );
            }
        }
        if let Some(rounds) = &self.rounds {
            if rounds.count == 0 {
                return wrong("rounds.count", "at least 1", "0".to_owned());
            }
            let merges = methods.iter().map(|method| &method.name);
            let mut names = merges.chain(self.merges.iter().map(|merge| &merge.name));
            if let Some(carry) = &rounds.carry
                && !names.any(|name| name == carry)
            {
                let expected = "the name of one of merge.methods or merges";
                return wrong("rounds.carry", expected, format!("{carry:?}"));
            }
        }
        for (field, value) in [
            ("images.steps", self.images.steps),
            ("images.batch_size", self.images.batch_size),
            ("images.per_prompt", self.images.per_prompt),
            ("train.checkpoint_every", self.train.checkpoint_every),
            ("eval.steps", self.eval.steps),
            ("eval.batch_size", self.eval.batch_size),
        ] {
            if value == 0 {
                return wrong(field, "at least 1", "0".to_owned());
            }
        }
        self.eval.validate(plain)?;
        self.selection.validate()?;
        let faultless = |training: &FurtherTraining| training.data == TrainingPictures::Faultless;
        let any_faultless = self.train.filtered || self.trainings.iter().any(faultless);
        if any_faultless && !self.selection.knows_faults() {
            let expected = "the oracle, or a server or BLIP with questions, to tell which pictures are faultless";
            return wrong("selection", expected, "a score".to_owned());
        }
        for (field, values) in [
            (
                "images.guidance",
                std::slice::from_ref(&self.images.guidance),
            ),
            ("eval.guidances", self.eval.guidances.as_slice()),
        ] {
            if let Some(bad) = values
                .iter()
                .find(|value| !(value.is_finite() && **value >= 1.0))
            {
                return wrong(field, "1 (none) or more", bad.to_string());
            }
        }
        // They are derived from the recipe's seed, so that one would have no effect.
        for (field, seed, default) in [
            (
                "prompts.seed",
                self.prompts.settings.seed,
                PromptConfig::default().seed,
            ),
            (
                "train.seed",
                self.train.settings.seed,
                TrainConfig::default().seed,
            ),
        ] {
            if seed != default {
                let expected = "none, as it is derived from the recipe's `seed`";
                return wrong(field, expected, seed.to_string());
            }
        }
        let (weights, skills) = (&self.train.settings.data_weights, &self.prompts.skills);
        let usable = self.train.union && weights.len() == skills.len();
        if !weights.is_empty() && !usable {
            let expected = format!(
                "a weight for each of {} skills, with `union = true`",
                skills.len()
            );
            return wrong("train.data_weights", &expected, weights.len().to_string());
        }
        self.train.validate(self.prompts.settings.count)?;
        self.prompts.settings.validate()?;
        self.train.settings.clone().validate()?;
        self.eval.bootstrap.validate()?;
        Ok(())
    }
}

/// Settings among the keys of a stage, unknown keys included, which they refuse. Serde alone would not say which key has
/// a value that cannot be used.
fn settings<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    let keys = toml::Table::deserialize(deserializer)?;
    keys.try_into().map_err(D::Error::custom)
}

/// A scheduler by its short name.
mod scheduler_name {
    use selma_diffusion::schedulers::SchedulerKind;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde hands the field over by reference")]
    pub(super) fn serialize<S: Serializer>(
        kind: &Option<SchedulerKind>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        kind.map(SchedulerKind::name).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SchedulerKind>, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        name.map(|name| name.parse().map_err(D::Error::custom))
            .transpose()
    }
}
