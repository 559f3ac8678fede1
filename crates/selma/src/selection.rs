//! Who judges the pictures to train on: `[selection]`.

use std::path::PathBuf;

use selma_llm::OpenAiConfig;
use serde::{Deserialize, Serialize};

use crate::{BlipJudge, Judge, ScorerSettings, SelmaError};

/// How the pictures to train on are judged, where trainings want the faultless, the best, or pairs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// Who judges.
    #[serde(default)]
    pub judge: Selector,
    /// For a server or BLIP: files of questions about the prompts that are drawn, with the columns of DSG's annotations. Without them it is asked of each prompt as
    /// a whole how likely the picture shows it (VQAScore).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<PathBuf>,
    /// Pictures are sent to a server as JPEG of this quality, 1 to 100, instead of PNG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<u8>,
}

/// Who judges pictures to train on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selector {
    /// The oracle of the miniature, by the questions that captions of its world imply.
    #[default]
    Oracle,
    /// A vision model on a server with OpenAI's interface.
    Openai(Box<OpenAiConfig>),
    /// BLIP-VQA in the program, on the device of the run.
    Blip(BlipJudge),
    /// A scorer, on its own scale.
    Scorer(ScorerSettings),
}

impl Selection {
    /// Whether nothing is set.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a picture can be without fault.
    pub(crate) fn knows_faults(&self) -> bool {
        match self.judge {
            Selector::Oracle => true,
            Selector::Openai(_) | Selector::Blip(_) => !self.questions.is_empty(),
            Selector::Scorer(_) => false,
        }
    }

    /// Who is asked the questions, if the pictures are judged by asking.
    pub(crate) fn asked(&self) -> Option<Judge> {
        match &self.judge {
            Selector::Openai(config) => Some(Judge::Openai(config.clone())),
            Selector::Blip(blip) => Some(Judge::Blip(blip.clone())),
            Selector::Oracle | Selector::Scorer(_) => None,
        }
    }

    /// Checks the settings.
    pub(crate) fn validate(&self) -> Result<(), SelmaError> {
        if let Some(judge) = self.asked() {
            return judge.validate("selection", self.jpeg);
        }
        if !self.questions.is_empty() || self.jpeg.is_some() {
            return Err(SelmaError::Setting {
                field: "selection.questions and selection.jpeg".to_owned(),
                expected: "none, as they are for a server, and questions for BLIP".to_owned(),
                found: "some".to_owned(),
            });
        }
        match &self.judge {
            Selector::Scorer(settings) => settings.kind().map(drop),
            _ => Ok(()),
        }
    }
}
