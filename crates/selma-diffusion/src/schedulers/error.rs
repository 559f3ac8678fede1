//! What can be wrong with a scheduler's configuration or with how it is called.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a scheduler cannot be built or cannot make the step it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SchedulerError {
    /// The configuration file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration file is not JSON, or a field has a type or a name that is not known.
    #[error("{} is not a scheduler configuration", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        source: serde_json::Error,
    },
    /// No scheduler has this name or this `_class_name`.
    #[error("unknown scheduler {name:?}; expected one of {expected}")]
    UnknownKind {
        /// The name given.
        name: String,
        /// The names there are.
        expected: String,
    },
    /// A configuration's own scheduler is not implemented. Another can be built from it.
    #[error(
        "{scheduler} is not implemented; another scheduler can be asked for (--scheduler NAME): {others}"
    )]
    NotImplemented {
        /// What `_class_name` says, and the field that makes it another algorithm, if one does.
        scheduler: String,
        /// The names there are.
        others: String,
    },
    /// What is wrong with a configuration stands in this file.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: Box<SchedulerError>,
    },
    /// No configuration has a field of this name.
    #[error("unknown scheduler field {field:?}; expected one of {expected}")]
    UnknownField {
        /// The name given.
        field: String,
        /// The names there are.
        expected: String,
    },
    /// A field cannot have a value of this type or name.
    #[error("scheduler field {field} cannot be {found}")]
    FieldValue {
        /// Name in `scheduler_config.json`.
        field: &'static str,
        /// The value given, as JSON.
        found: String,
        /// What it may be.
        source: serde_json::Error,
    },
    /// A field is out of its range.
    #[error("scheduler field {field} is {found}; expected {expected}")]
    InvalidField {
        /// Name in `scheduler_config.json`.
        field: &'static str,
        /// The value given.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A value that diffusers knows and this scheduler does not implement.
    #[error("{scheduler} does not support {field} = {found}")]
    Unsupported {
        /// The scheduler's short name.
        scheduler: &'static str,
        /// Name in `scheduler_config.json`.
        field: &'static str,
        /// The value given.
        found: String,
    },
    /// The number of inference steps cannot be spread over the training timesteps.
    #[error("{found} inference steps; expected {min} to {max}")]
    Steps {
        /// The number asked for.
        found: usize,
        /// The smallest that works.
        min: usize,
        /// The largest that works.
        max: usize,
    },
    /// A timestep lies outside the table, for example because `steps_offset` is too large for the number of steps.
    #[error("timestep {timestep} is outside the table of {len} training timesteps")]
    Timestep {
        /// The timestep.
        timestep: i64,
        /// The length of the table.
        len: usize,
    },
    /// There is no step with this index.
    #[error("step {index} does not exist; the run has {len} steps")]
    StepIndex {
        /// The index given.
        index: usize,
        /// The number of steps.
        len: usize,
    },
    /// Steps must follow each other, because multistep methods remember the ones before.
    #[error("step {found} follows step {previous}; steps must be made in order")]
    StepOrder {
        /// The step made before.
        previous: usize,
        /// The step asked for.
        found: usize,
    },
    /// Slices that belong together have different lengths.
    #[error("{what} has {found} values; expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// The length it should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
}

impl SchedulerError {
    /// Says in which file the configuration stands, where that is to blame.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Self::NotImplemented { .. } | Self::InvalidField { .. } | Self::Unsupported { .. } => {
                Self::InFile {
                    path: path.to_owned(),
                    error: Box::new(self),
                }
            }
            other => other,
        }
    }
}

/// Fails if a field is set to something else than the one value that is implemented.
pub(super) fn only<T: Copy + PartialEq + fmt::Display>(
    scheduler: &'static str,
    fields: &[(&'static str, Option<T>, T)],
) -> Result<(), SchedulerError> {
    for &(field, set, implemented) in fields {
        if let Some(found) = set
            && found != implemented
        {
            return Err(SchedulerError::Unsupported {
                scheduler,
                field,
                found: found.to_string(),
            });
        }
    }
    Ok(())
}

/// Fails unless a slice of `found` values goes with one of `expected` values.
pub(super) fn same_length(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), SchedulerError> {
    if expected == found {
        Ok(())
    } else {
        Err(SchedulerError::Length {
            what,
            expected,
            found,
        })
    }
}
