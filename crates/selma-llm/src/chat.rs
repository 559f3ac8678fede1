//! What is asked of a language model and what comes back: [`ChatRequest`] and [`ChatResponse`].
//!
//! The types follow the OpenAI chat completions API in names and meaning, without its wire format: the wire lives in
//! [`OpenAiClient`](crate::OpenAiClient), so that a model in the same process needs no HTTP vocabulary.

use serde::{Deserialize, Serialize};

use crate::{JsonSchema, TokenLogprob};

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

/// What is asked of a [`ChatModel`](crate::ChatModel): the conversation and the sampling settings.
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
    // What follows is left out of the JSON where it is not used, so that the hashes in old journals still hold.
    /// The form that the answer shall have as JSON. Servers promise more than they keep: see
    /// [`complete_json`](crate::complete_json), which checks it. Default: none, the answer is free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json_schema: Option<JsonSchema>,
    /// How many of the likeliest tokens are wanted for each token of the answer, with their log probabilities (servers
    /// allow 5 to 20). 0 asks for those of the answer's tokens alone. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<u8>,
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
            json_schema: None,
            top_logprobs: None,
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

    /// Asks for JSON of this form; see [`JsonSchema`] for what a schema may say.
    #[must_use]
    pub fn with_json_schema(
        mut self,
        name: impl Into<String>,
        schema: impl Into<serde_json::Value>,
    ) -> Self {
        self.json_schema = Some(JsonSchema::new(name, schema));
        self
    }

    /// Asks for the log probabilities of the answer's tokens and of the `top` likeliest tokens in their places.
    #[must_use]
    pub fn with_logprobs(mut self, top: u8) -> Self {
        self.top_logprobs = Some(top);
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Which of the `n` answers this is.
    pub index: usize,
    /// The answer.
    pub text: String,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The answer's tokens with their log probabilities, if they were asked for and the model gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<TokenLogprob>>,
}

impl Choice {
    /// A choice without log probabilities.
    pub fn new(index: usize, text: impl Into<String>, finish_reason: FinishReason) -> Self {
        Self {
            index,
            text: text.into(),
            finish_reason,
            logprobs: None,
        }
    }
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

/// What a [`ChatModel`](crate::ChatModel) answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
            choices: vec![Choice::new(0, text, FinishReason::Stop)],
            usage: None,
        }
    }

    /// The text of the first choice, if there is one.
    pub fn text(&self) -> Option<&str> {
        self.choices.first().map(|choice| choice.text.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
        assert!(json.ends_with("\"n\":1}"), "{json}");
        assert_eq!(serde_json::from_str::<ChatRequest>(&json).unwrap(), request);
        let request = request
            .with_logprobs(5)
            .with_json_schema("answer", json!({"type": "object"}));
        let json = serde_json::to_string(&request).unwrap();
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
}
