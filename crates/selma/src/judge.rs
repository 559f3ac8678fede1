//! Who answers questions about pictures in a run.

use std::path::PathBuf;

use selma_eval::dsg::{AnswerMatch, Quirks};
use selma_eval::{ChatPrompt, ChatVqa, PictureFormat, Vqa};
use selma_llm::{OpenAiClient, OpenAiConfig};
use selma_mini::OracleVqa;
use serde::{Deserialize, Serialize};

use crate::SelmaError;

/// Who answers questions about pictures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judge {
    /// The oracle of the miniature, which sees its shapes (64x64 pixels) and nothing else.
    #[default]
    Oracle,
    /// A vision model on a server with OpenAI's interface.
    Openai(Box<OpenAiConfig>),
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
            if self.is_oracle() {
                let expected = "none, as the oracle is sent no pictures";
                return Err(wrong("jpeg", expected, quality.to_string()));
            }
            if !(1..=100).contains(&quality) {
                return Err(wrong("jpeg", "1 to 100", quality.to_string()));
            }
        }
        match self {
            Self::Oracle => Ok(()),
            Self::Openai(config) => config.validate().map_err(|error| {
                let expected = "a server that can be asked";
                wrong("judge.openai", expected, error.to_string())
            }),
        }
    }

    /// The judge, asked in this way if it chats.
    pub(crate) fn vqa(
        &self,
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
        })
    }

    /// Which of its answers mean "yes".
    pub(crate) fn answer_match(&self) -> AnswerMatch {
        match self {
            Self::Oracle => AnswerMatch::Exact,
            Self::Openai(_) => AnswerMatch::Chat,
        }
    }
}
