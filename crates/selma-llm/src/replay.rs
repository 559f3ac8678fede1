//! A model that only repeats what it once said: [`Replay`].

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::{ChatModel, ChatRequest, ChatResponse, Journal, LlmError, Price, RequestHash};

/// A [`ChatModel`] that answers from a journal and asks nobody. The journal is only read.
///
/// For code that takes a model and no journal. Where a journal is taken, [`Journal::replay`] does the same.
#[derive(Debug)]
pub struct Replay {
    journal: Journal,
    name: String,
    settings: Option<Value>,
    price: Option<Price>,
    next: AtomicU64,
}

impl Replay {
    /// Answers in the place of `model`, which is not asked; an [`OpenAiClient`](crate::OpenAiClient) made without a key will
    /// do. The first call is taken for the run's request number 0, the next for number 1, and so on.
    ///
    /// # Errors
    /// Those of [`Journal::replay`].
    pub fn open(path: &Path, model: &dyn ChatModel) -> Result<Self, LlmError> {
        Ok(Self {
            journal: Journal::replay(path)?,
            name: model.name().to_owned(),
            settings: model.settings().cloned(),
            price: model.price(),
            next: AtomicU64::new(0),
        })
    }
}

impl ChatModel for Replay {
    fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// [`LlmError::NotRecorded`] if the journal has no answer to this request at this place of the run.
    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let hash = RequestHash::new(self, index, request)?;
        match self.journal.get(&hash) {
            Some(response) => Ok(response.clone()),
            None => Err(self.journal.not_recorded(self, index, request, hash)),
        }
    }

    fn settings(&self) -> Option<&Value> {
        self.settings.as_ref()
    }

    fn price(&self) -> Option<Price> {
        self.price
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Scripted, ask};

    #[test]
    fn what_was_said_is_said_again_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let model = Scripted::shouting();
        let mut journal = Journal::open(&path).unwrap();
        for (index, text) in (0..).zip(["a", "b"]) {
            journal.complete(&model, index, &ask(text)).unwrap();
        }
        // It is read while another process may still write it.
        let replay = Replay::open(&path, &model).unwrap();
        assert_eq!(replay.name(), "upper");
        assert_eq!(replay.complete(&ask("a")).unwrap().text(), Some("A"));
        assert_eq!(replay.complete(&ask("b")).unwrap().text(), Some("B"));
        let error = replay.complete(&ask("c")).unwrap_err().to_string();
        let start = format!(
            "{} has no answer of model 'upper' to request 2 (",
            path.display()
        );
        assert!(error.starts_with(&start), "{error}");
        assert!(error.ends_with("\"c\""), "{error}");
        assert_eq!(model.asked().len(), 2);
    }
}
