//! The journal of raw answers: [`Journal`].

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::files::{sync_directory, without_position};
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
        let digest = Sha256::digest(bytes);
        Ok(Self(
            digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        ))
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

#[derive(Serialize)]
struct EntryOut<'a> {
    request: &'a RequestHash,
    response: &'a ChatResponse,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryIn {
    request: RequestHash,
    response: ChatResponse,
}

/// An append-only JSONL file of raw answers, one line a request: `{"request": hash, "response": {..}}`.
///
/// A sampled answer cannot be had twice, so what a run must repeat comes from here: a request whose hash is in the
/// journal is answered from it and not sent. An answer is on disk (synced) before anyone sees it; failures are not
/// recorded, so they are tried again. A process killed while it appends leaves half a line, which the next `open` removes.
/// One process at a time holds a journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of the file that are whole lines; anything behind them is the rest of a failed write.
    len: u64,
    answers: HashMap<RequestHash, ChatResponse>,
    repaired: u64,
}

impl Journal {
    /// Opens the journal at `path`, or begins one there. The directory must exist.
    ///
    /// # Errors
    /// [`LlmError::Io`] if the file cannot be read and written, [`LlmError::JournalInUse`] if another process holds it,
    /// [`LlmError::Line`] if a whole line is not an entry: that is no torn write, but damage that only the user can judge.
    pub fn open(path: &Path) -> Result<Self, LlmError> {
        let failed = || LlmError::io("open journal", path);
        let existed = path.exists();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LlmError::JournalInUse {
                    path: path.to_owned(),
                });
            }
            // Some network file systems know no locks; that shall not keep anyone from working.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed()(error)),
        }
        if !existed {
            sync_directory(path)?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed())?;
        let whole = bytes
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |last| last + 1);
        let (lines, tail) = bytes.split_at_checked(whole).unwrap_or((&bytes, &[]));
        let mut journal = Self {
            path: path.to_owned(),
            file,
            len: whole as u64,
            answers: HashMap::new(),
            repaired: 0,
        };
        let lines = lines.strip_suffix(b"\n").into_iter();
        for (index, line) in lines
            .flat_map(|lines| lines.split(|byte| *byte == b'\n'))
            .enumerate()
        {
            let entry: EntryIn = serde_json::from_slice(line).map_err(|error| LlmError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason: without_position(&error),
            })?;
            journal.remember(entry);
        }
        journal.repair(tail)?;
        Ok(journal)
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
        self.repaired
    }

    /// The recorded answer to a request.
    pub fn get(&self, request: &RequestHash) -> Option<&ChatResponse> {
        self.answers.get(request)
    }

    /// Records an answer and returns when it is on disk. The first answer to a request stands.
    ///
    /// # Errors
    /// [`LlmError::Io`] if it cannot be written, e.g. on a full disk; the journal then is as it was before.
    pub fn record(
        &mut self,
        request: &RequestHash,
        response: &ChatResponse,
    ) -> Result<(), LlmError> {
        if self.answers.contains_key(request) {
            return Ok(());
        }
        let entry = EntryOut { request, response };
        let mut line = serde_json::to_vec(&entry).map_err(|error| LlmError::Io {
            action: "write journal",
            path: self.path.clone(),
            source: error.into(),
        })?;
        line.push(b'\n');
        let written = self.append(&line);
        if written.is_err() {
            // What cannot be cut off now is cut off before the next write or when the journal is opened again.
            let _ = self.file.set_len(self.len);
        }
        written.map_err(LlmError::io("write journal", &self.path))?;
        self.answers.insert(request.clone(), response.clone());
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

    fn remember(&mut self, entry: EntryIn) {
        self.answers.entry(entry.request).or_insert(entry.response);
    }

    /// Deals with bytes behind the last line end: an entry that lacks nothing but the line end is kept.
    fn repair(&mut self, tail: &[u8]) -> Result<(), LlmError> {
        if tail.is_empty() {
            return Ok(());
        }
        let result = if let Ok(entry) = serde_json::from_slice::<EntryIn>(tail) {
            let mut line = tail.to_vec();
            line.push(b'\n');
            self.append(&line).map(|()| Some(entry))
        } else {
            self.repaired = tail.len() as u64;
            self.file
                .set_len(self.len)
                .and_then(|()| self.file.sync_all())
                .map(|()| None)
        };
        if let Some(entry) = result.map_err(LlmError::io("repair journal", &self.path))? {
            self.remember(entry);
        }
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len))?;
        self.file.write_all(line)?;
        self.file.sync_data()?;
        self.len += line.len() as u64;
        Ok(())
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
    fn a_journal_torn_anywhere_loses_only_the_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let model = Counter(AtomicUsize::new(0));
        let mut journal = Journal::open(&path).unwrap();
        journal.complete(&model, 0, &ask("a")).unwrap();
        journal.complete(&model, 1, &ask("ä")).unwrap();
        drop(journal);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        // Every syncing write costs milliseconds: all cuts near the ends of the lines, some in between.
        let near = |cut: usize, end: usize| cut.abs_diff(end) < 3;
        let cuts = (0..whole.len())
            .filter(|cut| cut % 16 == 0 || near(*cut, first) || near(*cut, whole.len()));
        for end in cuts {
            fs::write(&path, &whole[..end]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            // A line that lacks its end only is whole.
            let expected = usize::from(end + 1 >= first) + usize::from(end + 1 >= whole.len());
            assert_eq!(journal.len(), expected, "cut at {end}");
            let model = Counter(AtomicUsize::new(expected));
            journal.complete(&model, 0, &ask("a")).unwrap();
            journal.complete(&model, 1, &ask("ä")).unwrap();
            drop(journal);
            assert_eq!(fs::read(&path).unwrap(), whole, "cut at {end}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let model = Counter(AtomicUsize::new(0));
        let mut journal = Journal::open(&path).unwrap();
        for index in 0..3 {
            journal.complete(&model, index, &ask("a")).unwrap();
        }
        drop(journal);
        let whole = fs::read_to_string(&path).unwrap();
        let damaged = whole.replace("answer 1\\n", "answer 1\n");
        fs::write(&path, &damaged).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("journal.jsonl, line 2: "), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
        fs::write(&path, whole.replace("\"response\"", "\"answer\"")).unwrap();
        let error = Journal::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 1: unknown field `answer`"), "{error}");
    }

    #[test]
    fn one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let journal = Journal::open(&path).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert!(matches!(error, LlmError::JournalInUse { .. }), "{error}");
        drop(journal);
        Journal::open(&path).unwrap();
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("no").join("j.jsonl")] {
            let error = Journal::open(&path).unwrap_err().to_string();
            assert!(error.starts_with("cannot open journal "), "{error}");
        }
    }

    #[test]
    fn a_failed_write_is_an_error_and_can_be_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.jsonl");
        let model = Counter(AtomicUsize::new(0));
        let mut journal = Journal::open(&path).unwrap();
        journal.complete(&model, 0, &ask("a")).unwrap();
        let whole = fs::read(&path).unwrap();
        // A handle that cannot write fails as a full disk does; the torn line stands for what fitted.
        let writable = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        let error = journal.complete(&model, 1, &ask("a")).unwrap_err();
        assert!(error.to_string().starts_with("cannot write journal "));
        assert_eq!(journal.len(), 1);
        fs::write(&path, [whole.as_slice(), b"{\"requ"].concat()).unwrap();
        journal.file = writable;
        journal.complete(&model, 1, &ask("a")).unwrap();
        drop(journal);
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.len(), journal.repaired_bytes()), (2, 0));
    }
}
