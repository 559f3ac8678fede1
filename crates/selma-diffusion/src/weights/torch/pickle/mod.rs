//! A machine for the pickles that PyTorch writes (protocols 2 to 5), which builds data and calls nothing.

mod call;
mod machine;
mod reader;
mod value;

use std::path::Path;

pub(super) use machine::unpickle;
pub(super) use value::{Objects, Storage, Tensor, Value};

use crate::weights::WeightsError;

/// What stopped the machine.
#[derive(Debug)]
pub(super) enum PickleError {
    /// The pickle cannot be understood.
    Broken {
        offset: usize,
        expected: &'static str,
        found: String,
    },
    /// The pickle names a function that does harm when it is called.
    Unsafe { name: String },
}

impl PickleError {
    pub(super) fn in_file(self, path: &Path) -> WeightsError {
        let path = path.to_owned();
        match self {
            Self::Broken {
                offset,
                expected,
                found,
            } => WeightsError::Pickle {
                path,
                offset,
                expected,
                found,
            },
            Self::Unsafe { name } => WeightsError::Unsafe { path, name },
        }
    }
}
