//! What can go wrong in a run.

use std::path::PathBuf;

use selma_dataset::DatasetError;
use selma_diffusion::DiffusionError;
use selma_durable::DurableError;
use selma_eval::EvalError;
use selma_llm::LlmError;
use selma_lora::LoraError;
use selma_mini::MiniError;
use selma_train::TrainError;
use thiserror::Error;

/// An error of a run.
#[derive(Debug, Error)]
pub enum SelmaError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// `read`, `write`, ..
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A recipe with an unknown, missing or mistyped key.
    #[error("{path} is not a valid recipe")]
    Recipe {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A setting of a recipe that cannot be used.
    #[error("recipe setting {field}: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        field: String,
        /// What would be right.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A method of a recipe's `[merge]` with options that cannot be used.
    #[error("recipe setting merge.methods, {name}: {source}")]
    MergeMethod {
        /// What the recipe calls it.
        name: String,
        /// What is wrong with it.
        source: LoraError,
    },
    /// A folder that another recipe has made.
    #[error("{path} was made by another recipe; choose another folder, or remove it")]
    OtherRecipe {
        /// The folder.
        path: PathBuf,
    },
    /// A folder in which something else was trained.
    #[error(
        "{path} holds a training of other skills, settings, pictures, experts or of another base; choose another folder"
    )]
    OtherTraining {
        /// The folder.
        path: PathBuf,
    },
    /// A data set with pictures that are not those to be drawn.
    #[error("{path} holds {file_name}, {reason}; choose another folder, or remove it")]
    OtherPictures {
        /// The folder.
        path: PathBuf,
        /// One of the pictures.
        file_name: String,
        /// What is the matter with it.
        reason: &'static str,
    },
    /// Two pictures of which the second would take the place of the first.
    #[error("the prompts `{first}` and `{second}` would both be drawn as {file_name}; rename one")]
    SameFile {
        /// The prompt of the first.
        first: String,
        /// The prompt of the second.
        second: String,
        /// The name of both.
        file_name: String,
    },
    /// Another process works in the folder of the run.
    #[error("{path} is in use by another process")]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// Something that a run read before is not the same any more.
    #[error("the {what} is not the one that {path} was begun with")]
    Changed {
        /// `model`, or `skill` and its name.
        what: String,
        /// The folder of the run.
        path: PathBuf,
    },
    /// A stage needs what an earlier one makes.
    #[error("{path} is missing: run the stage `{stage}` first")]
    MissingStage {
        /// The file that is needed.
        path: PathBuf,
        /// The stage that makes it.
        stage: &'static str,
    },
    /// A file of the run is not as it was written.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Values that cannot be written as JSON.
    #[error("cannot write JSON")]
    Json(#[source] serde_json::Error),
    /// The observer asked to stop.
    #[error("interrupted; the same command continues where it was")]
    Cancelled,
    /// A file cannot be written, or a journal not be used.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The data set failed.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The diffusion model failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// The evaluation failed.
    #[error(transparent)]
    Eval(EvalError),
    /// The language model failed.
    #[error(transparent)]
    Llm(#[from] LlmError),
    /// An adapter failed.
    #[error(transparent)]
    Lora(#[from] LoraError),
    /// The miniature world failed.
    #[error(transparent)]
    Mini(#[from] MiniError),
    /// A training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl From<EvalError> for SelmaError {
    /// What an observer stopped is stopped here, too, and has not failed.
    fn from(error: EvalError) -> Self {
        match error {
            EvalError::Cancelled { .. } => Self::Cancelled,
            other => Self::Eval(other),
        }
    }
}
