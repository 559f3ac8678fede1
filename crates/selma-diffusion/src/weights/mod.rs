//! Weights between files and modules: a checkpoint key is a field path.

mod digest;
mod error;
mod folder;
mod load;
mod mapped;
mod safetensors;
mod save;
mod sharded;
mod source;
mod tensor;
mod torch;

pub(crate) use digest::{sha256_of, sha256_with};
pub use error::WeightsError;
pub(crate) use folder::{WeightFile, files_of, find, require_variant};
pub(crate) use load::FieldPath;
pub use load::{Fit, compare, load};
#[cfg(test)]
pub(crate) use mapped::MappedFile;
pub use save::save;
pub use source::{Dtype, Weights};
pub(crate) use tensor::StoredTensor;
