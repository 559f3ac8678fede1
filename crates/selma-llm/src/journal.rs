//! The journal of raw answers: [`Journal`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::wire::excerpt;
use crate::{
    Answer, ChatModel, ChatRequest, ChatResponse, Endpoint, LlmError, RawAnswer, RequestHash,
};

/// Version of the lines that hold a server's answer.
const RAW_VERSION: u32 = 2;

/// One answer, to one request or to several that were sent together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Line", into = "Line")]
struct Entry {
    requests: Vec<RequestHash>,
    answer: Answer,
}

/// A line of the file: `{"request", "response"}` from a model in the same process, and from journals before version 2;
/// `{"version": 2, "requests", "url", "endpoint", "model", "body"}` from a server.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestHash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<ChatResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<Vec<RequestHash>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl TryFrom<Line> for Entry {
    type Error = String;

    fn try_from(line: Line) -> Result<Self, String> {
        match line {
            Line {
                version: None,
                request: Some(request),
                response: Some(response),
                requests: None,
                url: None,
                endpoint: None,
                model: None,
                body: None,
            } => Ok(Self {
                requests: vec![request],
                answer: Answer::Read(vec![response]),
            }),
            Line {
                version: Some(RAW_VERSION),
                request: None,
                response: None,
                requests: Some(requests),
                url: Some(url),
                endpoint: Some(endpoint),
                model: Some(model),
                body: Some(body),
            } => Ok(Self {
                requests,
                answer: Answer::Raw(RawAnswer {
                    url,
                    endpoint,
                    model,
                    body,
                }),
            }),
            Line {
                version: Some(version),
                ..
            } if version != RAW_VERSION => Err(format!(
                "version {version} is unknown, expected {RAW_VERSION} or none"
            )),
            Line { version: None, .. } => {
                Err("expected the fields `request` and `response` alone".to_owned())
            }
            _ => Err(
                "expected the fields `version`, `requests`, `url`, `endpoint`, `model` and `body` alone"
                    .to_owned(),
            ),
        }
    }
}

impl From<Entry> for Line {
    fn from(entry: Entry) -> Self {
        match entry.answer {
            Answer::Read(responses) => Self {
                request: entry.requests.into_iter().next(),
                response: responses.into_iter().next(),
                ..Self::default()
            },
            Answer::Raw(raw) => Self {
                version: Some(RAW_VERSION),
                requests: Some(entry.requests),
                url: Some(raw.url),
                endpoint: Some(raw.endpoint),
                model: Some(raw.model),
                body: Some(raw.body),
                ..Self::default()
            },
        }
    }
}

/// An append-only JSONL file of raw answers, one line an answer.
///
/// A sampled answer cannot be had twice, so what a run must repeat comes from here: a request whose hash is in the
/// journal is answered from it and not sent. A server's answer is on disk (synced) as it came before it is read, so one
/// that cannot be read today may be tomorrow; until then its request is sent again. Failures are not recorded, so they are
/// tried again too. A process killed while it appends leaves half a line, which the next `open` removes. One process at a
/// time holds a journal for writing; see [`selma_durable::Journal`].
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None` for a journal that is replayed.
    file: Option<selma_durable::Journal<Entry>>,
    answers: HashMap<RequestHash, ChatResponse>,
    unreadable: usize,
}

impl Journal {
    /// Opens the journal at `path`, or begins one there. The directory must exist.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if the file cannot be read and written, if another process holds it, or if a whole line is not
    /// an entry: that is no torn write, but damage that only the user can judge.
    pub fn open(path: &Path) -> Result<Self, LlmError> {
        let (file, entries) = selma_durable::Journal::<Entry>::open(path)?;
        Ok(Self::of(path, Some(file), entries))
    }

    /// Reads the journal at `path` to answer from it alone: what is not there is [`LlmError::NotRecorded`], nobody is
    /// asked, and the file may be read-only or in use.
    ///
    /// # Errors
    /// [`LlmError::Durable`] if there is no such file, or a whole line is not an entry.
    pub fn replay(path: &Path) -> Result<Self, LlmError> {
        let entries = selma_durable::Journal::<Entry>::read(path)?;
        Ok(Self::of(path, None, entries))
    }

    fn of(path: &Path, file: Option<selma_durable::Journal<Entry>>, entries: Vec<Entry>) -> Self {
        let mut journal = Self {
            path: path.to_owned(),
            file,
            answers: HashMap::new(),
            unreadable: 0,
        };
        for Entry { requests, answer } in entries {
            match answer.read(requests.len()) {
                Ok(responses) => journal.enter(requests, responses),
                Err(_) => journal.unreadable += 1,
            }
        }
        journal
    }

    /// The first answer to a request stands.
    fn enter(&mut self, requests: Vec<RequestHash>, responses: Vec<ChatResponse>) {
        for (request, response) in requests.into_iter().zip(responses) {
            self.answers.entry(request).or_insert(response);
        }
    }

    /// Number of requests with an answer.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether there is no answer yet.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Number of recorded answers that cannot be read. Their requests are asked again.
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }

    /// Bytes of a torn last line that `open` removed; 0 if the file was whole.
    pub fn repaired_bytes(&self) -> u64 {
        self.file
            .as_ref()
            .map_or(0, selma_durable::Journal::repaired_bytes)
    }

    /// The recorded answer to a request.
    pub fn get(&self, request: &RequestHash) -> Option<&ChatResponse> {
        self.answers.get(request)
    }

    /// Answers the `index`-th request of a run: from the journal if it is there, else by `model`, recorded before it is
    /// read. The flag says whether it came from the journal.
    ///
    /// # Errors
    /// Those of the model and of [`RequestHash::new`]; [`LlmError::Durable`] if the answer cannot be written, e.g. on a
    /// full disk; [`LlmError::NotRecorded`] for a journal that is replayed.
    pub fn complete(
        &mut self,
        model: &dyn ChatModel,
        index: u64,
        request: &ChatRequest,
    ) -> Result<(ChatResponse, bool), LlmError> {
        let (hash, response) = self.look_up(model, index, request)?;
        if let Some(response) = response {
            return Ok((response, true));
        }
        let answer = model.ask(&[request])?;
        let mut responses = self.record(&[hash], &answer)?;
        // `record` has made sure that there is one for each request.
        responses
            .pop()
            .map(|response| (response, false))
            .ok_or(LlmError::Count {
                expected: 1,
                found: 0,
            })
    }

    /// The hash of a request and the answer to it, if it is there. For a journal that is replayed it must be there.
    pub(crate) fn look_up(
        &self,
        model: &dyn ChatModel,
        index: u64,
        request: &ChatRequest,
    ) -> Result<(RequestHash, Option<ChatResponse>), LlmError> {
        let hash = RequestHash::new(model, index, request)?;
        let response = self.answers.get(&hash).cloned();
        if response.is_none() && self.file.is_none() {
            return Err(self.not_recorded(model, index, request, hash));
        }
        Ok((hash, response))
    }

    pub(crate) fn not_recorded(
        &self,
        model: &dyn ChatModel,
        index: u64,
        request: &ChatRequest,
        hash: RequestHash,
    ) -> LlmError {
        LlmError::NotRecorded {
            path: self.path.clone(),
            model: model.name().to_owned(),
            index,
            hash,
            excerpt: excerpt(&request.text()),
        }
    }

    /// Writes an answer as it came, and reads it when it is on disk: one response for each request. Of several answers to
    /// a request the first that can be read stands.
    pub(crate) fn record(
        &mut self,
        requests: &[RequestHash],
        answer: &Answer,
    ) -> Result<Vec<ChatResponse>, LlmError> {
        if let Some(file) = &mut self.file {
            file.append_all(&entries(requests, answer))?;
        }
        match answer.read(requests.len()) {
            Ok(responses) => {
                self.enter(requests.to_vec(), responses.clone());
                Ok(responses)
            }
            Err(error) => {
                self.unreadable += 1;
                Err(error)
            }
        }
    }
}

/// The lines of an answer: one for a server's, which is whole only as a whole, one a response for others.
fn entries(requests: &[RequestHash], answer: &Answer) -> Vec<Entry> {
    match answer {
        Answer::Raw(_) => vec![Entry {
            requests: requests.to_vec(),
            answer: answer.clone(),
        }],
        Answer::Read(responses) => {
            let pairs = requests.iter().zip(responses);
            let entries = pairs.map(|(request, response)| Entry {
                requests: vec![request.clone()],
                answer: Answer::Read(vec![response.clone()]),
            });
            entries.collect()
        }
    }
}

#[cfg(test)]
mod tests;
