//! Being strict about what cannot be used, or leaving it out and saying so.

use crate::DatasetError;

/// Either refuses the first entry that cannot be used, or collects what is wrong with those that are left out.
#[derive(Debug)]
pub(crate) struct Skips {
    skip: bool,
    skipped: Vec<DatasetError>,
}

impl Skips {
    pub(crate) fn new(skip: bool) -> Self {
        Self {
            skip,
            skipped: Vec::new(),
        }
    }

    /// Passes an entry on. One that cannot be used is an error, or left out.
    pub(crate) fn take<T>(
        &mut self,
        entry: Result<T, DatasetError>,
    ) -> Result<Option<T>, DatasetError> {
        match entry {
            Ok(entry) => Ok(Some(entry)),
            Err(error) if self.skip => {
                self.skipped.push(error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether anything was left out.
    pub(crate) fn has_any(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// What was left out, in the order in which it was found.
    pub(crate) fn into_errors(self) -> Vec<DatasetError> {
        self.skipped
    }
}
