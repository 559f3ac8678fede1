//! A part of a dataset.

use std::collections::HashSet;
use std::path::Path;

use crate::source::name_of;
use crate::{DatasetError, Pictures};

/// Some pictures of a dataset, such as those that [`select`](crate::select()) keeps, in an order of their own.
#[derive(Debug)]
pub struct Subset {
    pictures: Box<dyn Pictures>,
    numbers: Vec<usize>,
}

impl Subset {
    /// The pictures with these numbers.
    ///
    /// # Errors
    /// [`DatasetError::Index`] if there is none of a number, [`DatasetError::Setting`] if a number is there twice.
    pub fn new(pictures: Box<dyn Pictures>, numbers: Vec<usize>) -> Result<Self, DatasetError> {
        let mut seen = HashSet::new();
        for &number in &numbers {
            name_of(&*pictures, number)?;
            if !seen.insert(number) {
                return Err(DatasetError::Setting {
                    field: "numbers".to_owned(),
                    expected: "each picture once".to_owned(),
                    found: format!("{number} twice"),
                });
            }
        }
        Ok(Self { pictures, numbers })
    }

    fn number(&self, index: usize) -> Option<usize> {
        self.numbers.get(index).copied()
    }
}

impl Pictures for Subset {
    fn root(&self) -> &Path {
        self.pictures.root()
    }

    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn name(&self, index: usize) -> Option<&str> {
        self.pictures.name(self.number(index)?)
    }

    fn text(&self, index: usize) -> Option<&str> {
        self.pictures.text(self.number(index)?)
    }

    fn repeats(&self, index: usize) -> usize {
        self.number(index)
            .map_or(1, |number| self.pictures.repeats(number))
    }

    fn image_sha256(&self, index: usize) -> Option<&str> {
        self.pictures.image_sha256(self.number(index)?)
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError> {
        let number = self.number(index).ok_or_else(|| DatasetError::Index {
            path: self.root().into(),
            index,
            len: self.len(),
        })?;
        self.pictures.bytes(number)
    }
}
