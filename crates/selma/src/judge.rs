//! Who answers questions about pictures in a run.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use selma_diffusion::vqa::BlipVqa;
use selma_eval::dsg::{AnswerMatch, Quirks};
use selma_eval::{ChatPrompt, ChatVqa, PictureFormat, Vqa};
use selma_llm::{OpenAiClient, OpenAiConfig};
use selma_mini::OracleVqa;
use serde::{Deserialize, Serialize};

use crate::{NamedVqa, Run, SelmaError};

/// Who answers questions about pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The oracle of the miniature, which sees its shapes (64x64 pixels) and nothing else.
    #[default]
    Oracle,
    /// A vision model on a server with OpenAI's interface.
    Openai(Box<OpenAiConfig>),
    /// BLIP-VQA in the program, on the device of the run.
    Blip(BlipJudge),
}

/// A BLIP on the disk, and how it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlipJudge {
    /// Its folder, in the layout of transformers, such as that of `Salesforce/blip-vqa-base`.
    pub weights: PathBuf,
    /// Beginnings of an answer that it follows at once; 1 takes the likeliest token every time.
    #[serde(default = "greedy")]
    pub beams: NonZeroUsize,
}

fn greedy() -> NonZeroUsize {
    NonZeroUsize::MIN
}

impl BlipJudge {
    /// Its hash, which has to be that of the BLIP that the run has asked before in this section.
    fn unchanged(&self, run: &Run, section: &str) -> Result<String, SelmaError> {
        let sha256 = BlipVqa::sha256(&self.weights)?;
        run.unchanged(&format!("{section}.judge"), &sha256)?;
        Ok(sha256)
    }
}

/// A file of questions with their prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuestionFile {
    /// The file, with the columns of DSG's annotations.
    pub csv: PathBuf,
    /// What is done with malformed dependencies, which DSG-1k has.
    #[serde(default)]
    pub quirks: Quirks,
}

impl Judge {
    /// Whether it is the one of the miniature.
    pub(crate) fn is_oracle(&self) -> bool {
        *self == Self::Oracle
    }

    /// Checks the settings of the judge of a section.
    pub(crate) fn validate(&self, section: &str, jpeg: Option<u8>) -> Result<(), SelmaError> {
        let wrong = |field: &str, expected: &str, found: String| SelmaError::Setting {
            field: format!("{section}.{field}"),
            expected: expected.to_owned(),
            found,
        };
        if let Some(quality) = jpeg {
            let unsent = match self {
                Self::Oracle => Some("none, as the oracle is sent no pictures"),
                Self::Blip(_) => Some("none, as BLIP is sent no pictures"),
                Self::Openai(_) => None,
            };
            if let Some(expected) = unsent {
                return Err(wrong("jpeg", expected, quality.to_string()));
            }
            if !(1..=100).contains(&quality) {
                return Err(wrong("jpeg", "1 to 100", quality.to_string()));
            }
        }
        match self {
            Self::Oracle | Self::Blip(_) => Ok(()),
            Self::Openai(config) => config.validate().map_err(|error| {
                let expected = "a server that can be asked";
                wrong("judge.openai", expected, error.to_string())
            }),
        }
    }

    /// Sees that the judge of a section can be asked, before any work is done. A BLIP has to be the one that the run has asked before.
    pub(crate) fn check(
        &self,
        run: &Run,
        section: &str,
        jpeg: Option<u8>,
    ) -> Result<(), SelmaError> {
        match self {
            Self::Blip(blip) => blip.unchanged(run, section).map(drop),
            _ => self.vqa(run, section, ChatPrompt::YesNo, jpeg).map(drop),
        }
    }

    /// The judge of a section, asked in this way if it chats. It is checked as by [`check`](Self::check).
    pub(crate) fn vqa(
        &self,
        run: &Run,
        section: &str,
        prompt: ChatPrompt,
        jpeg: Option<u8>,
    ) -> Result<Box<dyn Vqa>, SelmaError> {
        Ok(match self {
            Self::Oracle => Box::new(OracleVqa),
            Self::Openai(config) => {
                let client = OpenAiClient::new((**config).clone())?;
                let format = jpeg.map_or(PictureFormat::Png, PictureFormat::Jpeg);
                Box::new(ChatVqa::new(client, prompt).with_format(format)?)
            }
            Self::Blip(blip) => {
                let sha256 = blip.unchanged(run, section)?;
                let model = BlipVqa::load(&blip.weights, &run.device)?;
                Box::new(NamedVqa::with_hash(model, &sha256, blip.beams, prompt)?)
            }
        })
    }

    /// Which of its answers mean "yes".
    pub(crate) fn answer_match(&self) -> AnswerMatch {
        match self {
            Self::Oracle | Self::Blip(_) => AnswerMatch::Exact,
            Self::Openai(_) => AnswerMatch::Chat,
        }
    }
}
