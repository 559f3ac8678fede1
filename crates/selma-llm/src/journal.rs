//! The journal of raw answers: [`Journal`].

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{ChatModel, ChatRequest, ChatResponse, LlmError};

/// SHA-256 of a request's content, of the model's name and of the request's number in its run, in lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestHash(String);

impl RequestHash {
    /// The hash of the `index`-th request of a run to the model of this name.
    ///
    /// # Errors
    /// [`LlmError::Config`] if the request has no JSON form, i.e. a temperature or `top_p` that is no number.
    pub fn new(model: &str, index: u64, request: &ChatRequest) -> Result<Self, LlmError> {
        /// The version changes when requests of old and new code must not be taken for one another.
        #[derive(Serialize)]
        struct Content<'a> {
            version: u32,
            model: &'a str,
            index: u64,
            request: &'a ChatRequest,
        }
        if !request.temperature.is_finite() || !request.top_p.is_finite() {
            return Err(LlmError::Config {
                field: "temperature",
                reason: "and `top_p` must be finite".to_owned(),
            });
        }
        let content = Content {
            version: 1,
            model,
            index,
            request,
        };
        let bytes = serde_json::to_vec(&content).map_err(|source| LlmError::Model {
            model: model.to_owned(),
            source: source.into(),
        })?;
        Ok(Self(hex::encode(Sha256::digest(bytes))))
    }

    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    request: RequestHash,
    response: ChatResponse,
}

/// An append-only JSONL file of raw answers, one line a request: `{"request": hash, "response": {..}}`.
///
/// A sampled answer cannot be had twice, so what a run must repeat comes from here: a request whose hash is in the
/// journal is answered from it and not sent. An answer is on disk (synced) before anyone sees it; failures are not
/// recorded, so they are tried again. A process killed while it appends leaves half a line, which the next `open` removes.
/// One process at a time holds a journal; see [`selma_durable::Journal`].
#[derive(Debug)]
pub struct Journal {
    file: selma_durable::Journal<Entry>,
    answers: HashMap<RequestHash, ChatResponse>,
}

impl Journal {
    /// Opens the journal at `path`, or begins one there. The directory must exist.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if the file cannot be read and written, if another process holds it, or if a whole line is not
    /// an entry: that is no torn write, but damage that only the user can judge.
    pub fn open(path: &Path) -> Result<Self, LlmError> {
        let (file, entries) = selma_durable::Journal::<Entry>::open(path)?;
        let mut answers = HashMap::new();
        for entry in entries {
            answers.entry(entry.request).or_insert(entry.response);
        }
        Ok(Self { file, answers })
    }

    /// Number of answers.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there is no answer yet.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Bytes of a torn last line that `open` removed; 0 if the file was whole.
    pub fn repaired_bytes(&self) -> u64 {
        self.file.repaired_bytes()
    }

    /// The recorded answer to a request.
    pub fn get(&self, request: &RequestHash) -> Option<&ChatResponse> {
        self.answers.get(request)
    }

    /// Records an answer and returns when it is on disk. The first answer to a request stands.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if it cannot be written, e.g. on a full disk; the journal then is as it was before.
    pub fn record(
        &mut self,
        request: &RequestHash,
        response: &ChatResponse,
    ) -> Result<(), LlmError> {
        if self.answers.contains_key(request) {
            return Ok(());
        }
        let entry = Entry {
            request: request.clone(),
            response: response.clone(),
        };
        self.file.append(&entry)?;
        self.answers.insert(entry.request, entry.response);
        Ok(())
    }

    /// Answers the `index`-th request of a run: from the journal if it is there, else by `model`, recorded before it is
    /// returned. The flag says whether it came from the journal.
    ///
    /// # Errors
    /// Those of the model, of [`RequestHash::new`] and of [`Journal::record`].
    pub fn complete(
        &mut self,
        model: &dyn ChatModel,
        index: u64,
        request: &ChatRequest,
    ) -> Result<(ChatResponse, bool), LlmError> {
        let hash = RequestHash::new(model.name(), index, request)?;
        if let Some(response) = self.answers.get(&hash) {
            return Ok((response.clone(), true));
        }
        let response = model.complete(request)?;
        self.record(&hash, &response)?;
        Ok((response, false))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::Message;

    /// Answers with the number of the call; fails on request.
    struct Counter(AtomicUsize);

    impl ChatModel for Counter {
        fn name(&self) -> &str {
            "counter"
        }

        fn complete(&self, request: &ChatRequest) -> Result<ChatResponse, LlmError> {
            let call = self.0.fetch_add(1, Ordering::Relaxed);
            if request.text() == "fail" {
                return Err(LlmError::Unsupported {
                    model: "counter".to_owned(),
                    what: "failing".to_owned(),
                });
            }
            Ok(ChatResponse::single("counter", format!("answer {call}\n")))
        }
    }

    fn ask(text: &str) -> ChatRequest {
        ChatRequest::new(vec![Message::user(text)])
    }

    #[test]
    fn answers_are_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let model = Counter(AtomicUsize::new(0));
        let mut journal = Journal::open(&path).unwrap();
        let (first, replayed) = journal.complete(&model, 0, &ask("a")).unwrap();
        assert!(!replayed);
        // The same text as another request of the run is another request.
        let (second, _) = journal.complete(&model, 1, &ask("a")).unwrap();
        assert_ne!(first, second);
        assert!(journal.complete(&model, 2, &ask("fail")).is_err());
        drop(journal);

        let mut journal = Journal::open(&path).unwrap();
        assert_eq!((journal.len(), journal.repaired_bytes()), (2, 0));
        assert_eq!(
            journal.complete(&model, 0, &ask("a")).unwrap(),
            (first, true)
        );
        assert_eq!(
            journal.complete(&model, 1, &ask("a")).unwrap(),
            (second, true)
        );
        assert_eq!(model.0.load(Ordering::Relaxed), 3);
        let (_, replayed) = journal.complete(&model, 0, &ask("b")).unwrap();
        assert!(!replayed);
    }

    #[test]
    fn a_hash_tells_requests_apart_and_stays_the_same() {
        let hash =
            |model, index, request: &ChatRequest| RequestHash::new(model, index, request).unwrap();
        let base = hash("m", 0, &ask("a"));
        for other in [
            hash("n", 0, &ask("a")),
            hash("m", 1, &ask("a")),
            hash("m", 0, &ask("b")),
            hash("m", 0, &ask("a").with_seed(1)),
            hash("m", 0, &ask("a").with_temperature(0.5)),
        ] {
            assert_ne!(base, other);
        }
        // Journals of earlier versions must still be understood; a change here breaks every one of them.
        assert_eq!(
            base.as_str(),
            "fc7ec440f123cc0add571983fa4a8cc1a79c3f358f3570cfc248eb597272c177"
        );
        assert!(RequestHash::new("m", 0, &ask("a").with_top_p(f64::NAN)).is_err());
    }

    #[test]
    fn a_torn_answer_is_dropped_and_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let model = Counter(AtomicUsize::new(0));
        journal.complete(&model, 0, &ask("a")).unwrap();
        journal.complete(&model, 1, &ask("ä")).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for (cut, answers, repaired) in [
            (first + 20, 1, 20),
            // A line that lacks its end only is whole.
            (whole.len() - 1, 2, 0),
        ] {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(
                (journal.len(), journal.repaired_bytes()),
                (answers, repaired)
            );
            let model = Counter(AtomicUsize::new(answers));
            let (_, replayed) = journal.complete(&model, 1, &ask("ä")).unwrap();
            assert_eq!(replayed, answers == 2);
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn the_first_answer_stands() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let hash = RequestHash::new("m", 0, &ask("a")).unwrap();
        let answer = |text: &str| ChatResponse::single("m", text);
        let mut journal = Journal::open(&path).unwrap();
        journal.record(&hash, &answer("first")).unwrap();
        let line = fs::read_to_string(&path).unwrap();
        journal.record(&hash, &answer("second")).unwrap();
        drop(journal);
        assert_eq!(fs::read_to_string(&path).unwrap(), line);
        fs::write(&path, line.clone() + &line.replace("first", "second")).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.get(&hash), Some(&answer("first")));
    }

    #[test]
    fn what_is_no_entry_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let mut journal = Journal::open(&path).unwrap();
        let model = Counter(AtomicUsize::new(0));
        journal.complete(&model, 0, &ask("a")).unwrap();
        drop(journal);
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.replace("\"response\"", "\"answer\"")).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(
            error.contains("journal.jsonl, line 1: unknown field `answer`"),
            "{error}"
        );
    }
}
