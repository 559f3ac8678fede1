//! A model that is asked the same thing once: [`Recorded`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::{ChatModel, ChatRequest, ChatResponse, Journal, LlmError, Price};

/// A [`ChatModel`] that answers from a journal what is there, and records there what it has to ask.
///
/// For code that takes a model and no journal, and may ask from several threads: the journal is held only to look and to
/// record. All requests are number 0 of the run, so equal requests get the same answer: meant for temperature 0.
#[derive(Debug)]
pub struct Recorded<M> {
    model: M,
    journal: Mutex<Journal>,
}

impl<M: ChatModel> Recorded<M> {
    /// Asks `model` for what is not in `journal`.
    pub fn new(model: M, journal: Journal) -> Self {
        Self {
            model,
            journal: Mutex::new(journal),
        }
    }

    /// Number of requests with an answer in the journal.
    pub fn recorded(&self) -> usize {
        self.journal().len()
    }

    /// An answer is entered when it is on the disk, so a panic elsewhere spoils nothing.
    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: ChatModel> ChatModel for Recorded<M> {
    fn name(&self) -> &str {
        self.model.name()
    }

    /// # Errors
    /// Those of the model and of [`Journal::complete`].
    fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
        let (hash, response) = self.journal().look_up(&self.model, 0, request)?;
        if let Some(response) = response {
            return Ok(response);
        }
        let answer = self.model.ask(&[request])?;
        let responses = self.journal().record(&[hash], &answer)?;
        let found = responses.len();
        let response = responses.into_iter().next();
        response.ok_or(LlmError::Count { expected: 1, found })
    }

    fn in_flight(&self) -> usize {
        self.model.in_flight()
    }

    fn settings(&self) -> Option<&Value> {
        self.model.settings()
    }

    fn price(&self) -> Option<Price> {
        self.model.price()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::testing::{Scripted, ask};

    #[test]
    fn the_same_is_asked_once_also_in_a_later_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let model = Scripted::shouting();
        let recorded = Recorded::new(&model, Journal::open(&path).unwrap());
        thread::scope(|scope| {
            for text in ["a", "b", "c"] {
                let recorded = &recorded;
                scope.spawn(move || {
                    let response = recorded.complete(&ask(text)).unwrap();
                    assert_eq!(response.text(), Some(text.to_uppercase().as_str()));
                });
            }
        });
        assert_eq!(recorded.complete(&ask("b")).unwrap().text(), Some("B"));
        assert_eq!((recorded.recorded(), model.asked().len()), (3, 3));
        drop(recorded);
        let recorded = Recorded::new(&model, Journal::open(&path).unwrap());
        assert_eq!(recorded.complete(&ask("c")).unwrap().text(), Some("C"));
        assert_eq!((recorded.name(), model.asked().len()), ("upper", 3));
    }
}
