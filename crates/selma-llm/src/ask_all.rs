//! Many requests, several at a time: [`AskAll`].

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::{Answer, ChatModel, ChatRequest, ChatResponse, Journal, LlmError, RequestHash};

/// How far [`AskAll`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskAllProgress {
    /// Requests answered so far.
    pub answered: usize,
    /// Those of them that the journal answered.
    pub replayed: usize,
    /// All requests.
    pub total: usize,
}

/// Called after every answer; `Break` ends the run with [`LlmError::Stopped`].
pub type AskAllObserver<'a> = dyn FnMut(AskAllProgress) -> ControlFlow<()> + 'a;

/// Asks a model many things, as many at once as it likes ([`ChatModel::in_flight`]), and those together that it takes
/// together ([`ChatModel::batch_len`]).
///
/// With a journal, what is in it is not asked again, and every answer is recorded when it arrives, in whatever order. The
/// first failure lets what is on its way arrive and be recorded, and ends the run; so does an observer that breaks. A
/// further run with the same journal asks only for the rest.
pub struct AskAll<'a> {
    model: &'a dyn ChatModel,
    journal: Option<(&'a mut Journal, u64)>,
    in_flight: usize,
}

impl fmt::Debug for AskAll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AskAll")
            .field("model", &self.model.name())
            .field("journal", &self.journal)
            .field("in_flight", &self.in_flight)
            .finish()
    }
}

/// A request that the journal does not answer.
struct Open<'a> {
    position: usize,
    request: &'a ChatRequest,
    hash: Option<RequestHash>,
}

impl<'a> AskAll<'a> {
    /// Asks `model`, without a journal.
    pub fn new(model: &'a dyn ChatModel) -> Self {
        Self {
            model,
            journal: None,
            in_flight: model.in_flight(),
        }
    }

    /// Answers from a journal and records in it. The requests are numbers `first`, `first + 1`, ... of the run.
    #[must_use]
    pub fn with_journal(mut self, journal: &'a mut Journal, first: u64) -> Self {
        self.journal = Some((journal, first));
        self
    }

    /// Makes this many requests at once instead of as many as the model likes; 0 counts as 1.
    #[must_use]
    pub fn with_in_flight(mut self, in_flight: usize) -> Self {
        self.in_flight = in_flight;
        self
    }

    /// The responses, in the order of the requests.
    ///
    /// # Errors
    /// The first failure of the model or of the journal, and [`LlmError::Stopped`] if the observer breaks.
    pub fn run(
        self,
        requests: &[ChatRequest],
        observer: &mut AskAllObserver<'_>,
    ) -> Result<Vec<ChatResponse>, LlmError> {
        let responses = self.run_marked(requests, observer)?;
        Ok(responses
            .into_iter()
            .map(|(response, _)| response)
            .collect())
    }

    /// The same, each response with whether it came from the journal.
    pub(crate) fn run_marked(
        mut self,
        requests: &[ChatRequest],
        observer: &mut AskAllObserver<'_>,
    ) -> Result<Vec<(ChatResponse, bool)>, LlmError> {
        let mut responses: Vec<Option<(ChatResponse, bool)>> = Vec::new();
        let mut open = Vec::new();
        for (position, request) in requests.iter().enumerate() {
            let (hash, response) = match &mut self.journal {
                Some((journal, first)) => {
                    let index = first.saturating_add(position as u64);
                    let (hash, response) = journal.look_up(self.model, index, request)?;
                    (Some(hash), response)
                }
                None => (None, None),
            };
            if response.is_none() {
                open.push(Open {
                    position,
                    request,
                    hash,
                });
            }
            responses.push(response.map(|response| (response, true)));
        }
        let mut progress = AskAllProgress {
            answered: requests.len() - open.len(),
            replayed: requests.len() - open.len(),
            total: requests.len(),
        };
        if progress.answered > 0 {
            go_on(progress, observer)?;
        }
        let batches = batches(self.model, &open);
        let take_in = |batch: &[Open<'_>], answer: &Answer| {
            let read = match &mut self.journal {
                Some((journal, _)) => {
                    let hashes: Vec<RequestHash> =
                        batch.iter().filter_map(|open| open.hash.clone()).collect();
                    journal.record(&hashes, answer)?
                }
                None => answer.read(batch.len())?,
            };
            progress.answered += batch.len();
            for (open, response) in batch.iter().zip(read) {
                if let Some(slot) = responses.get_mut(open.position) {
                    *slot = Some((response, false));
                }
            }
            go_on(progress, observer)
        };
        ask(self.model, self.in_flight, &batches, take_in)?;
        // Every request was in a batch, and every batch is as long as its responses.
        Ok(responses.into_iter().flatten().collect())
    }
}

/// Groups of requests that the model takes together.
fn batches<'o, 'a>(model: &dyn ChatModel, open: &'o [Open<'a>]) -> Vec<&'o [Open<'a>]> {
    let requests: Vec<&ChatRequest> = open.iter().map(|open| open.request).collect();
    let mut batches = Vec::new();
    let (mut rest, mut requests) = (open, requests.as_slice());
    while !rest.is_empty() {
        let len = model.batch_len(requests).clamp(1, rest.len());
        let (batch, others) = rest.split_at(len);
        batches.push(batch);
        rest = others;
        requests = requests.split_at(len).1;
    }
    batches
}

/// Asks for all batches and hands each answer on, in this thread. After the first failure nothing more is asked.
fn ask(
    model: &dyn ChatModel,
    in_flight: usize,
    batches: &[&[Open<'_>]],
    mut take_in: impl FnMut(&[Open<'_>], &Answer) -> Result<(), LlmError>,
) -> Result<(), LlmError> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let work = |sender: mpsc::Sender<_>| {
        while !stop.load(Ordering::Relaxed) {
            let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            let requests: Vec<&ChatRequest> = batch.iter().map(|open| open.request).collect();
            let answer = model.ask(&requests);
            if answer.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            if sender.send((*batch, answer)).is_err() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..in_flight.clamp(1, batches.len().max(1)) {
            let sender = sender.clone();
            scope.spawn(|| work(sender));
        }
        drop(sender);
        let mut result = Ok(());
        for (batch, answer) in receiver {
            let taken = answer.and_then(|answer| take_in(batch, &answer));
            if taken.is_err() {
                stop.store(true, Ordering::Relaxed);
            }
            // What arrives after a failure is recorded all the same; the first failure is told.
            result = result.and(taken);
        }
        result
    })
}

fn go_on(progress: AskAllProgress, observer: &mut AskAllObserver<'_>) -> Result<(), LlmError> {
    match observer(progress) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(LlmError::Stopped {
            answered: progress.answered,
            total: progress.total,
        }),
    }
}

#[cfg(test)]
mod tests;
