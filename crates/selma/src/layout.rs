//! Where things lie in the folder of a run.

use std::path::{Path, PathBuf};

use crate::Expert;

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout of a folder.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The recipe as it was when the run began.
    #[must_use]
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.json")
    }

    /// Hashes of what the run has read besides the recipe.
    #[must_use]
    pub fn inputs(&self) -> PathBuf {
        self.root.join("inputs.json")
    }

    /// What a process locks that does one job of the run.
    #[must_use]
    pub fn lock_of(&self, job: &str) -> PathBuf {
        let name = job.replace('/', "-");
        self.root.join("locks").join(format!("{name}.lock"))
    }

    /// Folder of the prompts.
    #[must_use]
    pub fn prompts(&self) -> PathBuf {
        self.root.join("prompts")
    }

    /// Prompts of a skill.
    #[must_use]
    pub fn prompts_of(&self, skill: &str) -> PathBuf {
        self.prompts().join(format!("{skill}.jsonl"))
    }

    /// Data set of a skill's pictures.
    #[must_use]
    pub fn images_of(&self, skill: &str) -> PathBuf {
        self.root.join("images").join(skill)
    }

    /// Data set of the pictures of a skill's prompts as they should be.
    #[must_use]
    pub fn truth_of(&self, skill: &str) -> PathBuf {
        self.root.join("truth").join(skill)
    }

    /// Folder of a trained adapter.
    #[must_use]
    pub fn expert(&self, name: &str) -> PathBuf {
        self.root.join("experts").join(name)
    }

    /// What a judge has answered about the pictures that an adapter is trained on.
    #[must_use]
    pub fn selection_of(&self, name: &str) -> PathBuf {
        self.root.join("selection").join(format!("{name}.jsonl"))
    }

    /// How many of them were chosen.
    #[must_use]
    pub fn selected_of(&self, name: &str) -> PathBuf {
        self.root.join("selection").join(format!("{name}.json"))
    }

    /// A trained adapter.
    #[must_use]
    pub fn adapter_of(&self, name: &str) -> PathBuf {
        self.expert(name).join(Expert::ADAPTER)
    }

    /// A trained mixture of adapters.
    #[must_use]
    pub fn mixture_of(&self, name: &str) -> PathBuf {
        self.expert(name).join(Expert::MIXTURE)
    }

    /// Folder of encoded pictures and texts, while experts are trained.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// A merged adapter.
    #[must_use]
    pub fn merged(&self, name: &str) -> PathBuf {
        self.root.join("merged").join(format!("{name}.safetensors"))
    }

    /// Folder of a model's evaluation.
    #[must_use]
    pub fn eval_of(&self, model: &str) -> PathBuf {
        self.root.join("eval").join(model)
    }

    /// Folder of what people said of the models: files of `selma rate import --format json`.
    #[must_use]
    pub fn ratings(&self) -> PathBuf {
        self.root.join("ratings")
    }

    /// Folder of the report.
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.root.join("report")
    }
}
