//! What a recipe trains and merges beyond one expert a skill: `[[trainings]]`, `[[mixtures]]` and `[[merges]]`.

use std::path::PathBuf;

use selma_lora::{Adapter, Mixture};
use selma_train::{TrainConfig, ValidTrainConfig};
use serde::{Deserialize, Serialize};

use crate::{MergeMethod, SelmaError, Stage};

/// A further adapter, or one for each of several skills. All start from the same factors as the experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherTraining {
    /// Name of the adapter and of the model in the report; with `each` the adapters are called `SKILL-NAME`, and are merged but not
    /// compared by themselves.
    pub name: String,
    /// The skills whose data it sees; all, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// One adapter for each skill, instead of one for all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub each: bool,
    /// What it is trained on.
    #[serde(default)]
    pub data: TrainingPictures,
    /// Settings that replace those of `[train]`. Without `steps` an adapter on several skills is trained for as many steps as an expert on each of them.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
}

/// What an adapter is trained on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainingPictures {
    /// The pictures that were drawn for the skills: SELMA.
    #[default]
    Own,
    /// Those in which the judge finds no fault.
    Faultless,
    /// Of each prompt the picture that the judge finds best, if its faithfulness is at least this (DreamSync, arXiv 2311.17946); several pictures
    /// a prompt are there with `images.per_prompt`.
    Best(f64),
    /// Of each prompt the best and the worst picture, as a preference (Diffusion-DPO, arXiv 2311.12908).
    Pairs,
    /// Pictures of the prompts as they should be: the miniature world's own. The ground truth that a model without teacher does not have.
    Truth,
    /// A data set in any layout that can be read, instead of the skills' pictures.
    Folder(PathBuf),
}

/// Several adapters with learned shares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherMixture {
    /// Name of the mixture and of the model in the report.
    pub name: String,
    /// Names of adapters, or of `[[trainings]]` with `each`, which stand for all of theirs.
    pub of: Vec<String>,
    /// What is learned.
    pub mixing: MixtureKind,
    /// The skills whose pictures it is learned from; all, if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// Settings that replace those of `[train]`.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub settings: toml::Table,
}

/// What is learned of a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixtureKind {
    /// In every layer a router that gives each input to all experts (MoE-LoRA).
    Router,
    /// The same, but to so many experts.
    TopK(usize),
    /// In every layer a weight for each expert (CAT, arXiv 2410.13025).
    Weights,
}

/// A further merged model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FurtherMerge {
    /// The model is called `merged-NAME`.
    pub name: String,
    /// Names of adapters, or of `[[trainings]]` with `each`, which stand for all of theirs.
    pub of: Vec<String>,
    /// A method's name, or a table with a method and its options.
    pub method: MergeMethod,
}

impl TrainingPictures {
    /// The stage whose files of a skill it is made of.
    pub(crate) fn made_by(&self) -> Stage {
        match self {
            Self::Truth => Stage::Prompts,
            _ => Stage::Images,
        }
    }
}

impl MixtureKind {
    /// The mixture as it begins.
    ///
    /// # Errors
    ///
    /// Those of [`Mixture::router`].
    pub(crate) fn mixed(self, experts: &[Adapter], seed: u64) -> Result<Mixture, SelmaError> {
        let experts: Vec<&Adapter> = experts.iter().collect();
        Ok(match self {
            Self::Router => Mixture::router(&experts, experts.len(), seed)?,
            Self::TopK(count) => Mixture::router(&experts, count, seed)?,
            Self::Weights => Mixture::weights(&experts)?,
        })
    }
}

/// The settings of a training with `settings` of its own, given those of `[train]` with its steps and its seed. `what` it is, is for the message.
///
/// # Errors
///
/// [`SelmaError::Setting`] for keys that no training has and values that cannot be used.
pub(crate) fn with_settings(
    common: &TrainConfig,
    own: &toml::Table,
    what: &str,
) -> Result<ValidTrainConfig, SelmaError> {
    let wrong = |error: &dyn std::fmt::Display| SelmaError::Setting {
        field: format!("{what}: settings"),
        expected: "settings of a training".to_owned(),
        found: error.to_string(),
    };
    if let Some(seed) = own.get("seed") {
        let found = format!("seed = {seed}, which is derived from the recipe's `seed`");
        return Err(wrong(&found));
    }
    let mut settings = toml::Table::try_from(common).map_err(|error| wrong(&error))?;
    settings.extend(own.clone());
    let config: TrainConfig = settings.try_into().map_err(|error| wrong(&error))?;
    config.validate().map_err(|error| wrong(&error))
}
