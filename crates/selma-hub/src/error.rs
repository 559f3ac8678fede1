//! The one error type of the crate.

use std::io;
use std::path::{Path, PathBuf};

use selma_durable::DurableError;
use selma_http::SecretInvalid;

/// Why a model cannot be had. No text holds the token, or the signature of an address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A setting cannot be used.
    #[error("setting {field}: {reason}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The token cannot be sent.
    #[error("the token cannot be used: {0}")]
    Token(#[from] SecretInvalid),
    /// A text is not the name of a model.
    #[error(
        "{found:?} is not the id of a model: expected OWNER/NAME, OWNER/NAME@REVISION or OWNER/NAME:FILE"
    )]
    Id {
        /// The text.
        found: String,
    },
    /// Nothing may be downloaded, and the cache does not have it all.
    #[error("{id} is not in the cache {}: {missing} is missing, and nothing is downloaded offline", cache.display())]
    NotCached {
        /// The model.
        id: String,
        /// Folder of the cache.
        cache: PathBuf,
        /// What is not there.
        missing: String,
    },
    /// The model's owner wants to know who uses it.
    #[error("{url} is gated (status {status}): {message}")]
    Gated {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// The token, or its lack, does not let us in. The Hub also says this of models that do not exist.
    #[error("{url} is refused (status {status}): {message}")]
    Denied {
        /// What was asked for.
        url: String,
        /// 401 or 403.
        status: u16,
        /// What the server says.
        message: String,
    },
    /// There is no such model, revision or file.
    #[error("{url} does not exist (status 404): {message}")]
    NotFound {
        /// What was asked for.
        url: String,
        /// What the server says.
        message: String,
    },
    /// The server answers with another status that is no success.
    #[error("{url} answered status {status} after {attempts} attempt(s): {message}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// How often it was asked for.
        attempts: u32,
        /// What the server says.
        message: String,
    },
    /// The server cannot be reached, or the connection broke.
    #[error("cannot get {url}, tried {attempts} time(s)")]
    Transport {
        /// What was asked for.
        url: String,
        /// How often.
        attempts: u32,
        /// The cause.
        source: Box<ureq::Error>,
    },
    /// A redirect leads nowhere that can be followed.
    #[error("{url} leads to {location:?}, {reason}")]
    Redirect {
        /// What was asked for.
        url: String,
        /// Where the server points.
        location: String,
        /// Why that is not followed.
        reason: &'static str,
    },
    /// An answer cannot be understood.
    #[error("cannot understand the answer of {url}: {reason}")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What was downloaded, twice, is not what the server says it is.
    #[error("{url}: expected SHA-256 {expected}, found {found}; the damaged download was removed")]
    Checksum {
        /// The file.
        url: String,
        /// What the server says.
        expected: String,
        /// What came.
        found: String,
    },
    /// More was sent than the server says there is.
    #[error("{url}: expected {expected} bytes, found more")]
    Size {
        /// The file.
        url: String,
        /// What the server says.
        expected: u64,
    },
    /// The repository has no such file.
    #[error(
        "{repository} has no file {file:?}; its weight files are {}",
        list(weights)
    )]
    NoFile {
        /// `OWNER/NAME`.
        repository: String,
        /// What was asked for.
        file: String,
        /// What there is.
        weights: Vec<String>,
    },
    /// The repository is not in diffusers' layout.
    #[error(
        "{repository} has no model_index.json; its weight files are {}, and {repository}:FILE names one",
        list(weights)
    )]
    NotDiffusers {
        /// `OWNER/NAME`.
        repository: String,
        /// Weight files that it has.
        weights: Vec<String>,
    },
    /// A part that `model_index.json` names is not complete.
    #[error("{repository}: {component} has no {expected}; it has {}", list(found))]
    Incomplete {
        /// `OWNER/NAME`.
        repository: String,
        /// The part, such as `unet`.
        component: String,
        /// What is missing.
        expected: String,
        /// What is there.
        found: Vec<String>,
    },
    /// A JSON file of the repository cannot be understood.
    #[error("{} cannot be understood", path.display())]
    Json {
        /// The file in the cache.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The disk is full.
    #[error("no space left for {needed} more bytes of {}", path.display())]
    NoSpace {
        /// The file that does not fit.
        path: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// The cause.
        source: io::Error,
    },
    /// Another process downloads the same file, and the file system does not keep them apart.
    #[error("{} is being written by another process, and this file system gives its lock to both, so that two would write to it", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder of the cache cannot be read or written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The observer asked to stop. What has come is kept.
    #[error("cancelled; the download goes on here the next time")]
    Cancelled,
}

impl HubError {
    /// Whether the server could not be reached, so that an older copy is better than nothing.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Transport { .. })
            || matches!(self, Self::Status { status, .. } if *status >= 500)
    }

    /// Makes [`Durable`](Self::Durable) or [`NoSpace`](Self::NoSpace) of the error of an operation on a file that `needed` more
    /// bytes belong to.
    pub(crate) fn disk(
        action: &'static str,
        path: &Path,
        needed: u64,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace {
                path: path.into(),
                needed,
                source,
            },
            _ => DurableError::io(action, path)(source).into(),
        }
    }
}

/// At most twelve names, so that an error stays readable.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    let more = if names.len() > SHOWN { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let of = |kind: io::ErrorKind| {
            HubError::disk("write", Path::new("a/blob"), 7)(kind.into()).to_string()
        };
        assert_eq!(
            of(io::ErrorKind::StorageFull),
            "no space left for 7 more bytes of a/blob"
        );
        assert!(of(io::ErrorKind::PermissionDenied).starts_with("cannot write a/blob: "));
    }
}
