//! The one error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with files and journals. Each text holds the path and the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DurableError {
    /// A file or folder cannot be created, read, written or removed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, for example `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A record cannot be written as JSON.
    #[error("cannot write a record to {}: {source}", path.display())]
    Serialize {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// A journal is open in another process or in another place of this one.
    #[error("{} is in use by another writer", path.display())]
    Locked {
        /// The journal.
        path: PathBuf,
    },
    /// A line is not JSON, or not JSON of the right form.
    #[error("{}, line {line}: {}", path.display(), reason(error))]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it. Not a source, whose text would give line 1, since each line is parsed by itself.
        error: serde_json::Error,
    },
}

impl DurableError {
    /// Makes [`Io`](Self::Io) of the error of an operation: `fs::read(path).map_err(DurableError::io("read", path))`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.into(),
            source,
        }
    }
}

/// The text of a JSON error without its line.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((reason, _)) => format!("{reason} (column {})", error.column()),
        None => text,
    }
}
