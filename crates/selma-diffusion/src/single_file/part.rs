//! The tensors of one network among those of a whole file.

use super::error::SingleFileError;
use crate::weights::Weights;

/// The tensors whose names begin with a prefix.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) weights: &'a Weights,
    pub(super) prefix: &'a str,
}

impl Part<'_> {
    pub(super) fn shape(&self, key: &str) -> Option<&[usize]> {
        self.weights.shape(&format!("{}{key}", self.prefix))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.shape(key).is_some()
    }

    /// Whether there is any tensor below a name.
    pub(super) fn has_below(&self, name: &str) -> bool {
        let below = format!("{}{name}.", self.prefix);
        self.weights.names().any(|name| name.starts_with(&below))
    }

    /// The size of one dimension of a tensor that must be there.
    pub(super) fn size(&self, key: &str, dimension: usize) -> Result<usize, SingleFileError> {
        let shape = self.shape(key);
        match shape.and_then(|shape| shape.get(dimension)) {
            Some(&size) => Ok(size),
            None => Err(self.wrong(key, "a tensor with more dimensions")),
        }
    }

    pub(super) fn wrong(&self, key: &str, expected: &'static str) -> SingleFileError {
        SingleFileError::Shape {
            path: self.weights.path().to_owned(),
            key: format!("{}{key}", self.prefix),
            expected,
            found: match self.shape(key) {
                Some(shape) => format!("{shape:?}"),
                None => "no tensor of that name".to_owned(),
            },
        }
    }

    /// How many of `name(0)`, `name(1)`, .. are there before one is not.
    pub(super) fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&index| self.has(&name(index))).count()
    }
}
