//! A language model for tests.

use std::sync::Mutex;

use serde_json::Value;

use crate::{ChatModel, ChatRequest, ChatResponse, LlmError, Message, Usage};

type Reply = dyn Fn(usize, &ChatRequest) -> Result<ChatResponse, LlmError> + Send + Sync;

/// Answers by a function of the call's number, counted from 0, and of the request, and keeps what it was asked.
pub(crate) struct Scripted {
    name: &'static str,
    settings: Option<Value>,
    reply: Box<Reply>,
    asked: Mutex<Vec<ChatRequest>>,
}

impl Scripted {
    pub(crate) fn new(
        name: &'static str,
        reply: impl Fn(usize, &ChatRequest) -> Result<ChatResponse, LlmError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            settings: None,
            reply: Box::new(reply),
            asked: Mutex::default(),
        }
    }

    /// Gives these answers, of 2 and 1 tokens each, one after the other, and then fails.
    pub(crate) fn saying(answers: &[&str]) -> Self {
        let answers: Vec<String> = answers.iter().map(|&answer| answer.to_owned()).collect();
        Self::new("scripted", move |call, _| {
            let answer = answers.get(call).ok_or_else(no_more)?;
            let mut response = ChatResponse::single("scripted", answer);
            response.usage = Some(Usage {
                prompt_tokens: 2,
                completion_tokens: 1,
            });
            Ok(response)
        })
    }

    /// Gives the same response to every request.
    pub(crate) fn repeating(response: ChatResponse) -> Self {
        Self::new("scripted", move |_, _| Ok(response.clone()))
    }

    /// Gives back what it is told, in capitals.
    pub(crate) fn shouting() -> Self {
        Self::new("upper", |_, request| {
            Ok(ChatResponse::single("upper", request.text().to_uppercase()))
        })
    }

    pub(crate) fn with_settings(mut self, settings: Option<Value>) -> Self {
        self.settings = settings;
        self
    }

    /// All requests so far, those that failed included.
    pub(crate) fn asked(&self) -> Vec<ChatRequest> {
        self.asked.lock().unwrap().clone()
    }
}

impl ChatModel for Scripted {
    fn name(&self) -> &str {
        self.name
    }

    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
        let call = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(request.clone());
            asked.len() - 1
        };
        (self.reply)(call, request)
    }

    fn settings(&self) -> Option<&Value> {
        self.settings.as_ref()
    }
}

/// What a model says that has nothing to say.
pub(crate) fn no_more() -> LlmError {
    LlmError::Unsupported {
        model: "scripted".to_owned(),
        what: "any more".to_owned(),
    }
}

/// A request with one message of the user.
pub(crate) fn ask(text: &str) -> ChatRequest {
    ChatRequest::new(vec![Message::user(text)])
}
