//! The scorers of selma-diffusion, as selma-eval asks for one, and as a recipe names them.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use burn::tensor::Device;
use image::RgbImage;
use selma_diffusion::scorers::{PictureScorer, ScorerKind};
use selma_eval::{EvalError, Scorer};
use serde::{Deserialize, Serialize};

use crate::{Run, SelmaError};

/// Pictures that a run scores together.
pub(crate) const SCORED_TOGETHER: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// A [`PictureScorer`] by the name that stands beside its scores.
#[derive(Debug)]
pub struct NamedScorer {
    /// The name.
    pub name: String,
    /// The model.
    pub scorer: PictureScorer,
    /// [`PictureScorer::sha256`], which stands beside its scores, too.
    pub sha256: String,
}

impl Scorer for NamedScorer {
    fn name(&self) -> &str {
        &self.name
    }

    fn sha256(&self) -> Option<&str> {
        Some(&self.sha256)
    }

    fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, EvalError> {
        let scores = self.scorer.score(pictures);
        scores.map_err(|source| EvalError::Scorer {
            scorer: self.name.clone(),
            source: Box::new(source),
        })
    }
}

/// A scorer by its short name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScorerName {
    /// CLIP score.
    Clip,
    /// PickScore.
    PickScore,
    /// Human preference score v2.
    Hps,
    /// The same, v2.1, which differs in its weights alone.
    Hps21,
    /// LAION's aesthetic predictor.
    Aesthetic,
    /// ImageReward.
    ImageReward,
}

impl ScorerName {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Clip,
        Self::PickScore,
        Self::Hps,
        Self::Hps21,
        Self::Aesthetic,
        Self::ImageReward,
    ];

    /// The name on the command line and in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::PickScore => "pickscore",
            Self::Hps => "hps",
            Self::Hps21 => "hps21",
            Self::Aesthetic => "aesthetic",
            Self::ImageReward => "imagereward",
        }
    }
}

impl FromStr for ScorerName {
    type Err = SelmaError;

    fn from_str(name: &str) -> Result<Self, SelmaError> {
        let found = Self::ALL.into_iter().find(|scorer| scorer.name() == name);
        found.ok_or_else(|| SelmaError::Setting {
            field: "scorer".to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
            found: name.to_owned(),
        })
    }
}

/// A scorer and its weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScorerSettings {
    /// Which one.
    pub scorer: ScorerName,
    /// A folder in the layout of transformers, or a file under OpenCLIP's or transformers' names; `ImageReward.pt` or its folder.
    pub weights: PathBuf,
    /// The weights on top of CLIP, of the aesthetic predictor alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<PathBuf>,
    /// What stands beside its scores; its own name, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ScorerSettings {
    /// What stands beside its scores.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.scorer.name())
    }

    /// What it scores, and how.
    ///
    /// # Errors
    ///
    /// [`SelmaError::Setting`] if the aesthetic predictor has no head, or another has one.
    pub fn kind(&self) -> Result<ScorerKind, SelmaError> {
        Ok(match (self.scorer, &self.head) {
            (ScorerName::Clip, None) => ScorerKind::Clip,
            (ScorerName::PickScore, None) => ScorerKind::PickScore,
            (ScorerName::Hps | ScorerName::Hps21, None) => ScorerKind::Hps,
            (ScorerName::ImageReward, None) => ScorerKind::ImageReward,
            (ScorerName::Aesthetic, Some(head)) => ScorerKind::Aesthetic { head: head.clone() },
            (scorer, head) => {
                return Err(SelmaError::Setting {
                    field: "head".to_owned(),
                    expected: "weights on top of CLIP, of the scorer aesthetic alone".to_owned(),
                    found: match head {
                        Some(head) => format!("{} of {}", head.display(), scorer.name()),
                        None => "none".to_owned(),
                    },
                });
            }
        })
    }

    /// Loads it.
    ///
    /// # Errors
    ///
    /// Those of [`sha256`](Self::sha256) and [`PictureScorer::load`].
    pub fn load(&self, device: &Device) -> Result<NamedScorer, SelmaError> {
        self.load_as(self.sha256()?, device)
    }

    /// Loads it, with the hash that it is known to have.
    pub(crate) fn load_as(
        &self,
        sha256: String,
        device: &Device,
    ) -> Result<NamedScorer, SelmaError> {
        Ok(NamedScorer {
            name: self.name().to_owned(),
            scorer: PictureScorer::load(self.kind()?, &self.weights, device)?,
            sha256,
        })
    }

    /// The hash of its weights and of what else it is made of.
    ///
    /// # Errors
    ///
    /// Those of [`kind`](Self::kind) and [`PictureScorer::sha256`].
    pub fn sha256(&self) -> Result<String, SelmaError> {
        Ok(PictureScorer::sha256(&self.kind()?, &self.weights)?)
    }

    /// Its hash, which has to be that of the scorer that the run has used before as `what`.
    pub(crate) fn unchanged(&self, run: &Run, what: &str) -> Result<String, SelmaError> {
        self.check_files()?;
        let sha256 = self.sha256()?;
        run.unchanged(what, &sha256)?;
        Ok(sha256)
    }

    /// Sees that its files are there, before any work is done.
    fn check_files(&self) -> Result<(), SelmaError> {
        let mut files = std::iter::once(&self.weights).chain(&self.head);
        match files.find(|path| !path.exists()) {
            None => Ok(()),
            Some(path) => Err(SelmaError::Setting {
                field: format!("scorer {}", self.name()),
                expected: "weights on the disk".to_owned(),
                found: format!("nothing at {}", path.display()),
            }),
        }
    }
}
