//! Any vision model that chats, as a judge: [`ChatVqa`].

use std::{
    io::Cursor,
    sync::atomic::{AtomicBool, Ordering},
};

use image::{ImageFormat, RgbImage, codecs::jpeg::JpegEncoder};
use selma_llm::{
    ChatModel, ChatRequest, ChatResponse, Choice, FinishReason, LlmError, Message, Part,
};
use serde_json::json;

use crate::{
    EvalError, Reply, Told, Vqa, YesProbability,
    patience::{Patience, concerns_all},
    texts_of_replies,
};

/// How many of the likeliest tokens are asked for; the most that OpenAI and vLLM give.
const TOP_LOGPROBS: u8 = 20;
/// Most tokens of an answer, as in `GPT4o.vqa` of DSG.
const MAX_TOKENS: u32 = 20;

/// What is said to the model around a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatPrompt {
    /// "Answer only with 'yes' or 'no'. Do not give other outputs or punctuation marks. Question: …", as DSG's program
    /// asks GPT-4o (`GPT4o.vqa` in `dsg/vqa_utils.py` of `j-min/DSG`), the text before the picture.
    YesNo,
    /// 'Does this figure show "…"? Please answer Yes or No.', as `t2v_metrics` asks chat models for VQAScore; what stands in the place of the
    /// question is a prompt.
    Figure,
    /// The question as it is, for those that say themselves how to answer.
    Plain,
}

impl ChatPrompt {
    /// The text for a question.
    pub fn text(self, question: &str) -> String {
        match self {
            Self::YesNo => format!(
                "Answer only with 'yes' or 'no'. Do not give other outputs or punctuation marks. Question: {question}"
            ),
            Self::Figure => {
                format!("Does this figure show \"{question}\"? Please answer Yes or No.")
            }
            Self::Plain => question.to_owned(),
        }
    }
}

/// How pictures are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PictureFormat {
    /// As PNG: every pixel as it is.
    #[default]
    Png,
    /// As JPEG of this quality, 1 to 100, without subsampling: a few times fewer bytes for photos.
    Jpeg(u8),
}

impl PictureFormat {
    /// A picture as part of a message.
    fn encode(self, image: &RgbImage) -> image::ImageResult<Part> {
        let mut data = Cursor::new(Vec::new());
        let media_type = match self {
            Self::Png => {
                image.write_to(&mut data, ImageFormat::Png)?;
                "image/png"
            }
            Self::Jpeg(quality) => {
                JpegEncoder::new_with_quality(&mut data, quality).encode_image(image)?;
                "image/jpeg"
            }
        };
        Ok(Part::Image {
            media_type: media_type.to_owned(),
            data: data.into_inner(),
        })
    }
}

/// A [`Vqa`] that is a [`ChatModel`] with eyes, for example an [`OpenAiClient`](selma_llm::OpenAiClient).
///
/// One request a question, with the picture as a data URI, at temperature 0 and of at most 20 tokens. Yes/no questions
/// also ask for log probabilities, of which [`YesProbability`] is made; from a server that refuses them they are not asked for again.
/// [`Vqa::jobs`] is the model's [`in_flight`](ChatModel::in_flight).
///
/// A question whose request fails, or whose answer is empty, is unanswered, and its [`Reply`] says why. What concerns
/// all questions (a refused key, an unknown model, a used-up budget) ends the asking, and so do ten failures in a row.
#[derive(Debug)]
pub struct ChatVqa<M> {
    model: M,
    prompt: ChatPrompt,
    format: PictureFormat,
    /// Whether the server gives log probabilities, as far as is known.
    logprobs: AtomicBool,
    patience: Patience,
}

impl<M: ChatModel> ChatVqa<M> {
    /// A judge that is asked in this way and gets pictures as PNG.
    pub fn new(model: M, prompt: ChatPrompt) -> Self {
        Self {
            model,
            prompt,
            format: PictureFormat::default(),
            logprobs: AtomicBool::new(prompt != ChatPrompt::Plain),
            patience: Patience::default(),
        }
    }

    /// Sends pictures in another format.
    ///
    /// # Errors
    /// [`EvalError::Setting`] for a quality that JPEG does not have.
    pub fn with_format(mut self, format: PictureFormat) -> Result<Self, EvalError> {
        if let PictureFormat::Jpeg(quality) = format
            && !(1..=100).contains(&quality)
        {
            return Err(EvalError::Setting {
                name: "JPEG quality",
                expected: "1 to 100",
                found: quality.to_string(),
            });
        }
        self.format = format;
        Ok(self)
    }

    /// The model.
    pub fn model(&self) -> &M {
        &self.model
    }

    fn ask(&self, picture: &Part, question: &str) -> Result<ChatResponse, LlmError> {
        let message = Message::user(self.prompt.text(question)).with_part(picture.clone());
        let request = ChatRequest::new(vec![message])
            .with_temperature(0.0)
            .with_max_tokens(MAX_TOKENS);
        if !self.logprobs.load(Ordering::Relaxed) {
            return self.model.complete(&request);
        }
        let asked = self
            .model
            .complete(&request.clone().with_logprobs(TOP_LOGPROBS));
        let refused = matches!(
            asked,
            Err(LlmError::Status {
                status: 400 | 422 | 501,
                ..
            })
        );
        if !refused {
            return asked;
        }
        // What is refused may be the log probabilities, or the picture.
        let plain = self.model.complete(&request)?;
        self.logprobs.store(false, Ordering::Relaxed);
        Ok(plain)
    }

    fn reply(&self, picture: &Part, question: &str) -> Result<Reply, EvalError> {
        let failure = match self.ask(picture, question) {
            Ok(response) => match response.choices.first() {
                Some(choice) if !choice.text.trim().is_empty() => {
                    self.patience.answered();
                    return Ok(Reply {
                        text: choice.text.clone(),
                        yes: yes(choice).filter(|_| self.prompt != ChatPrompt::Plain),
                        failure: None,
                    });
                }
                choice => empty(choice),
            },
            Err(error) if concerns_all(&error) => return Err(self.failed(error.to_string())),
            Err(error) => error.to_string(),
        };
        let failure = self.patience.failed(failure);
        let failure = failure.map_err(|message| self.failed(message))?;
        Ok(Reply {
            failure: Some(failure),
            ..Reply::default()
        })
    }

    fn failed(&self, message: String) -> EvalError {
        EvalError::Vqa {
            model: self.model.name().to_owned(),
            message,
        }
    }
}

impl<M: ChatModel> Vqa for ChatVqa<M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        texts_of_replies(self, image, questions)
    }

    fn replies(
        &self,
        image: &RgbImage,
        questions: &[&str],
        told: &mut Told<'_>,
    ) -> Result<(), EvalError> {
        let picture = self.format.encode(image);
        let picture = picture.map_err(|error| self.failed(error.to_string()))?;
        for question in questions {
            told(self.reply(&picture, question)?)?;
        }
        Ok(())
    }

    fn settings(&self) -> String {
        let (prompt, format) = (self.prompt.text(""), self.format);
        let model = self.model.settings();
        json!({"prompt": prompt, "picture": format!("{format:?}"), "max_tokens": MAX_TOKENS, "model": model})
            .to_string()
    }

    fn jobs(&self) -> usize {
        self.model.in_flight()
    }
}

/// Of both words together, how likely the answer was to begin with "yes".
fn yes(choice: &Choice) -> Option<YesProbability> {
    let probability = |word| Some(choice.probability_of(word)?.probability);
    let (yes, no) = (probability("yes")?, probability("no")?);
    let coverage = yes + no;
    (coverage > 0.0).then(|| YesProbability {
        probability: yes / coverage,
        coverage: coverage.min(1.0),
    })
}

/// Why there are no words.
fn empty(choice: Option<&Choice>) -> String {
    match choice.map(|choice| &choice.finish_reason) {
        Some(FinishReason::Length) => format!(
            "the answer is empty: its {MAX_TOKENS} tokens were used up before the first word, as by models that think"
        ),
        Some(FinishReason::ContentFilter) => {
            "the answer is empty: the server's content filter kept it".to_owned()
        }
        _ => "the answer is empty".to_owned(),
    }
}
