//! What an error is about, added where that is known.

use std::{io, path::Path};

use super::LoraError;

impl LoraError {
    /// A file that cannot be read, for its [`Io`](Self::Io).
    pub(crate) fn unreadable(path: &Path) -> impl Fn(io::Error) -> Self + '_ {
        |source| Self::Io {
            action: "read",
            path: path.to_path_buf(),
            source,
        }
    }

    /// The error with the file that it is about, if it does not name one already.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Io { .. } | Self::Durable(_) => self,
            error => Self::InFile {
                path: path.to_path_buf(),
                error: Box::new(error),
            },
        }
    }

    pub(crate) fn in_module(self, module: &str) -> Self {
        Self::InModule {
            module: module.to_owned(),
            error: Box::new(self),
        }
    }
}
