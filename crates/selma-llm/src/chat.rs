//! What is asked of a language model and what comes back: [`ChatRequest`], [`ChatResponse`] and the [`ChatModel`] trait.
//!
//! The types follow the OpenAI chat completions API in names and meaning, without its wire format: the wire lives in
//! [`OpenAiClient`](crate::OpenAiClient), so that a model in the same process needs no HTTP vocabulary.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::LlmError;

/// Who speaks in a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Standing instructions to the model.
    System,
    /// The one who asks.
    User,
    /// The model's own earlier answer.
    Assistant,
}

/// One piece of a [`Message`]: text or an encoded image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text(String),
    /// An encoded image, for models that see.
    Image {
        /// IANA media type of `data`, e.g. `image/png`.
        media_type: String,
        /// The bytes of the image file (in JSON: base64, standard alphabet with padding).
        #[serde(with = "crate::base64_bytes")]
        data: Vec<u8>,
    },
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said, in order.
    pub content: Vec<Part>,
}

impl Message {
    /// A message of the user with one text part.
    pub fn user(text: impl Into<String>) -> Self {
        Self::text_of(Role::User, text)
    }

    /// A system message with one text part.
    pub fn system(text: impl Into<String>) -> Self {
        Self::text_of(Role::System, text)
    }

    /// An earlier answer of the model with one text part.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::text_of(Role::Assistant, text)
    }

    fn text_of(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: vec![Part::Text(text.into())],
        }
    }

    /// The same message with one more part at its end.
    #[must_use]
    pub fn with_part(mut self, part: Part) -> Self {
        self.content.push(part);
        self
    }

    /// All text parts joined by a newline; images are left out.
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self
            .content
            .iter()
            .filter_map(|part| match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Image { .. } => None,
            })
            .collect();
        texts.join("\n")
    }

    /// Whether any part is an image.
    pub fn has_image(&self) -> bool {
        self.content
            .iter()
            .any(|part| matches!(part, Part::Image { .. }))
    }
}

/// What is asked of a [`ChatModel`]: the conversation and the sampling settings.
///
/// Build one with [`ChatRequest::new`] and the `with_*` methods.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ChatRequest {
    /// The conversation so far; the model answers after its last message.
    pub messages: Vec<Message>,
    /// Sampling temperature, 0 for greedy decoding. Default 1.0.
    pub temperature: f64,
    /// Nucleus sampling mass in (0, 1]. Default 1.0.
    pub top_p: f64,
    /// Most tokens a choice may have. Default 1024.
    pub max_tokens: u32,
    /// Seed of the sampling. Servers honour it at best roughly; what must be repeatable goes through a
    /// [`Journal`](crate::Journal). A model in the same process is expected to be a function of the request alone.
    pub seed: Option<u64>,
    /// Texts at which the answer ends.
    pub stop: Vec<String>,
    /// How many independent answers are wanted. Default 1.
    pub n: u32,
}

impl ChatRequest {
    /// A request with the API's default settings.
    pub fn new(messages: Vec<Message>) -> Self {
        Self {
            messages,
            temperature: 1.0,
            top_p: 1.0,
            max_tokens: 1024,
            seed: None,
            stop: Vec::new(),
            n: 1,
        }
    }

    /// Sets the sampling temperature.
    #[must_use]
    pub fn with_temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Sets the nucleus sampling mass.
    #[must_use]
    pub fn with_top_p(mut self, top_p: f64) -> Self {
        self.top_p = top_p;
        self
    }

    /// Sets the most tokens a choice may have.
    #[must_use]
    pub fn with_max_tokens(mut self, max_tokens: u32) -> Self {
        self.max_tokens = max_tokens;
        self
    }

    /// Sets the seed of the sampling.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the texts at which the answer ends.
    #[must_use]
    pub fn with_stop(mut self, stop: Vec<String>) -> Self {
        self.stop = stop;
        self
    }

    /// Sets how many independent answers are wanted.
    #[must_use]
    pub fn with_n(mut self, n: u32) -> Self {
        self.n = n;
        self
    }

    /// The text of the whole conversation, messages separated by a blank line; images are left out.
    pub fn text(&self) -> String {
        let texts: Vec<String> = self.messages.iter().map(Message::text).collect();
        texts.join("\n\n")
    }
}

/// Why a choice ended. Servers say many things here, even nothing: what is not known is kept as it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum FinishReason {
    /// A natural end or a stop text.
    Stop,
    /// The token limit: the last line may be cut.
    Length,
    /// The server's content filter.
    ContentFilter,
    /// Anything else, as the server wrote it (empty when it wrote nothing).
    Other(String),
}

impl From<String> for FinishReason {
    fn from(reason: String) -> Self {
        match reason.as_str() {
            "stop" => Self::Stop,
            "length" => Self::Length,
            "content_filter" => Self::ContentFilter,
            _ => Self::Other(reason),
        }
    }
}

impl From<FinishReason> for String {
    fn from(reason: FinishReason) -> Self {
        match reason {
            FinishReason::Stop => "stop".to_owned(),
            FinishReason::Length => "length".to_owned(),
            FinishReason::ContentFilter => "content_filter".to_owned(),
            FinishReason::Other(other) => other,
        }
    }
}

/// One answer of the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Which of the `n` answers this is.
    pub index: usize,
    /// The answer.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// Tokens a request used, as the server counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the request.
    pub prompt_tokens: u64,
    /// Tokens of all choices together.
    pub completion_tokens: u64,
}

impl Usage {
    /// Tokens of request and choices together.
    pub fn total_tokens(&self) -> u64 {
        self.prompt_tokens.saturating_add(self.completion_tokens)
    }
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens = self.prompt_tokens.saturating_add(other.prompt_tokens);
        self.completion_tokens = self
            .completion_tokens
            .saturating_add(other.completion_tokens);
    }
}

/// What a [`ChatModel`] answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The model that answered, as it names itself.
    pub model: String,
    /// The answers, sorted by [`Choice::index`].
    pub choices: Vec<Choice>,
    /// Tokens used, where the model counts them.
    pub usage: Option<Usage>,
}

impl ChatResponse {
    /// A response with one choice that ended naturally and no token count: what a model in the same process gives.
    pub fn single(model: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            choices: vec![Choice {
                index: 0,
                text: text.into(),
                finish_reason: FinishReason::Stop,
            }],
            usage: None,
        }
    }

    /// The text of the first choice, if there is one.
    pub fn text(&self) -> Option<&str> {
        self.choices.first().map(|choice| choice.text.as_str())
    }
}

/// A language model that answers a conversation; it may also see images.
///
/// Implemented by [`OpenAiClient`](crate::OpenAiClient) for servers; implement it for anything that answers text.
/// Calls block; a caller that wants several at once uses threads, hence `Send + Sync`.
pub trait ChatModel: Send + Sync {
    /// The model's name, as written into journals and reports.
    fn name(&self) -> &str;

    /// Answers `request`.
    ///
    /// # Errors
    /// Whatever keeps the model from answering; a request it cannot serve is [`LlmError::Unsupported`].
    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError>;
}

macro_rules! delegate {
    ($($pointer:ty),*) => {$(
        impl<M: ChatModel + ?Sized> ChatModel for $pointer {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
                (**self).complete(request)
            }
        }
    )*};
}

delegate!(&M, Box<M>, Arc<M>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_survive_json() {
        let image = Part::Image {
            media_type: "image/png".to_owned(),
            data: vec![0, 255, 7],
        };
        let request = ChatRequest::new(vec![
            Message::system("be brief"),
            Message::user("what is this?").with_part(image),
        ])
        .with_seed(u64::MAX)
        .with_stop(vec!["\n".to_owned()]);
        let json = serde_json::to_string(&request).unwrap();
        assert!(json.contains("\"data\":\"AP8H\""), "{json}");
        assert_eq!(serde_json::from_str::<ChatRequest>(&json).unwrap(), request);

        let mut response = ChatResponse::single("m", "hello");
        response.choices[0].finish_reason = FinishReason::Other("eos_token".to_owned());
        let json = serde_json::to_string(&response).unwrap();
        assert!(json.contains("\"finish_reason\":\"eos_token\""), "{json}");
        assert_eq!(
            serde_json::from_str::<ChatResponse>(&json).unwrap(),
            response
        );
    }

    #[test]
    fn image_data_must_be_base64() {
        let json = r#"{"image":{"media_type":"image/png","data":"not base64!"}}"#;
        assert!(serde_json::from_str::<Part>(json).is_err());
    }

    #[test]
    fn text_leaves_images_out() {
        let message = Message::user("a")
            .with_part(Part::Image {
                media_type: "image/png".to_owned(),
                data: vec![1],
            })
            .with_part(Part::Text("b".to_owned()));
        assert_eq!(message.text(), "a\nb");
        assert!(message.has_image());
        assert!(!Message::user("a").has_image());
    }

    #[test]
    fn pointers_to_a_model_are_models() {
        struct Echo;
        impl ChatModel for Echo {
            fn name(&self) -> &str {
                "echo"
            }
            fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
                Ok(ChatResponse::single("echo", request.text()))
            }
        }
        fn ask(model: impl ChatModel) -> String {
            let request = ChatRequest::new(vec![Message::user("hi")]);
            model.complete(&request).unwrap().text().unwrap().to_owned()
        }
        let boxed: Box<dyn ChatModel> = Box::new(Echo);
        assert_eq!(ask(&boxed), "hi");
        assert_eq!(ask(Arc::new(Echo)), "hi");
    }
}
