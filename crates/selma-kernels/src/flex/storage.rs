//! Access to the storage of the CPU backend.

use burn::backend::{Flex, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, TensorData};

/// A tensor of the CPU backend.
pub(crate) type Storage = FloatTensor<Flex>;

/// `x` with its numbers in order and nothing else in its buffer; copies only if they are not so already. A sole owner
/// stays one.
#[allow(
    clippy::needless_pass_by_value,
    reason = "a borrowed tensor would be a second owner of the result's storage"
)]
pub(crate) fn contiguous(x: Storage) -> Storage {
    x.to_contiguous()
}

/// A tensor of the shape of `like` that takes over `values`.
pub(crate) fn tensor(values: Vec<f32>, like: &Storage) -> Storage {
    shaped(values, like.shape())
}

/// A tensor of `shape` that takes over `values`.
pub(crate) fn shaped(values: Vec<f32>, shape: impl Into<Shape>) -> Storage {
    Storage::from_data(TensorData::new(values, shape.into()))
}
