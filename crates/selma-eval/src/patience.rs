//! When to give up on a server.

use std::sync::atomic::{AtomicU32, Ordering};

use selma_llm::LlmError;

/// Failures in a row after which to give up.
const MAX_FAILURES: u32 = 10;

/// Counts requests in a row that got no answer, of all threads together.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    failures: AtomicU32,
}

impl Patience {
    /// There was an answer.
    pub(crate) fn answered(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// There was none, for this reason. It is handed back as long as it is worth to go on, else as an error.
    pub(crate) fn failed(&self, reason: String) -> Result<String, String> {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before < MAX_FAILURES - 1 {
            return Ok(reason);
        }
        // Not the count: several threads may have failed since, and any of them may be the one that is heard.
        Err(format!(
            "{MAX_FAILURES} requests in a row got no answer; the last: {reason}"
        ))
    }
}

/// Whether no other request would fare better.
pub(crate) fn concerns_all(error: &LlmError) -> bool {
    match error {
        LlmError::Transport { .. }
        | LlmError::Answer { .. }
        | LlmError::Count { .. }
        | LlmError::Json { .. }
        | LlmError::Model { .. } => false,
        LlmError::Status { status, .. } => matches!(status, 401..=405),
        _ => true,
    }
}
