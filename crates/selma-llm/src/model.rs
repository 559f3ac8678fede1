//! Anything that answers requests: the [`ChatModel`] trait.

use std::sync::Arc;

use serde_json::Value;

use crate::{Answer, ChatRequest, ChatResponse, LlmError, Price};

/// A language model that answers a conversation; it may also see images.
///
/// Implemented by [`OpenAiClient`](crate::OpenAiClient) for servers; implement it for anything that answers text. Only
/// [`name`](Self::name) and [`complete`](Self::complete) must be written. Calls block; [`AskAll`](crate::AskAll) makes
/// several at once, hence `Send + Sync`.
pub trait ChatModel: Send + Sync {
    /// The model's name, as written into journals and reports.
    fn name(&self) -> &str;

    /// Answers `request`.
    ///
    /// # Errors
    /// Whatever keeps the model from answering; a request it cannot serve is [`LlmError::Unsupported`].
    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError>;

    /// How many of `requests`, from the first, [`ask`](Self::ask) takes together. At least 1, which is the default.
    fn batch_len(&self, requests: &[&ChatRequest]) -> usize {
        let _ = requests;
        1
    }

    /// Answers `requests`, no more than [`batch_len`](Self::batch_len) says, and leaves the answer unread, as journals
    /// keep it. By default one after the other through [`complete`](Self::complete).
    ///
    /// # Errors
    /// Those of [`complete`](Self::complete).
    fn ask(&self, requests: &[&ChatRequest]) -> Result<Answer, LlmError> {
        let responses = requests.iter().map(|request| self.complete(request));
        Ok(Answer::Read(responses.collect::<Result<_, _>>()?))
    }

    /// How many requests [`AskAll`](crate::AskAll) makes at once. Default 1: a model in the same process has its own threads.
    fn in_flight(&self) -> usize {
        1
    }

    /// What the answer depends on besides the name and the request, to tell requests apart in a journal. Default: nothing.
    fn settings(&self) -> Option<&Value> {
        None
    }

    /// What tokens cost, if that is known. Default: it is not.
    fn price(&self) -> Option<Price> {
        None
    }
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

            fn batch_len(&self, requests: &[&ChatRequest]) -> usize {
                (**self).batch_len(requests)
            }

            fn ask(&self, requests: &[&ChatRequest]) -> Result<Answer, LlmError> {
                (**self).ask(requests)
            }

            fn in_flight(&self) -> usize {
                (**self).in_flight()
            }

            fn settings(&self) -> Option<&Value> {
                (**self).settings()
            }

            fn price(&self) -> Option<Price> {
                (**self).price()
            }
        }
    )*};
}

delegate!(&M, Box<M>, Arc<M>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Message;

    #[test]
    fn pointers_to_a_model_are_models() {
        struct Echo(Value);
        impl ChatModel for Echo {
            fn name(&self) -> &str {
                "echo"
            }
            fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
                Ok(ChatResponse::single("echo", request.text()))
            }
            fn batch_len(&self, requests: &[&ChatRequest]) -> usize {
                requests.len()
            }
            fn in_flight(&self) -> usize {
                7
            }
            fn settings(&self) -> Option<&Value> {
                Some(&self.0)
            }
            fn price(&self) -> Option<Price> {
                Some(Price::default())
            }
        }
        fn check(model: impl ChatModel) {
            let (a, b) = (Message::user("a"), Message::user("b"));
            let requests = [ChatRequest::new(vec![a]), ChatRequest::new(vec![b])];
            assert_eq!(model.complete(&requests[0]).unwrap().text(), Some("a"));
            let both: Vec<&ChatRequest> = requests.iter().collect();
            assert_eq!(model.batch_len(&both), 2);
            let responses = model.ask(&both).unwrap().read(2).unwrap();
            assert_eq!(responses[1].text(), Some("b"));
            assert_eq!((model.name(), model.in_flight()), ("echo", 7));
            assert_eq!(model.settings(), Some(&Value::Bool(true)));
            assert!(model.price().is_some());
        }
        let boxed: Box<dyn ChatModel> = Box::new(Echo(Value::Bool(true)));
        check(&boxed);
        check(Arc::new(boxed));
    }
}
