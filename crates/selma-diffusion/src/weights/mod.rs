//! Weights between files and modules: a checkpoint key is a field path.

mod load;
mod save;
mod source;

pub(crate) use load::FieldPath;
pub use load::load;
pub use save::save;
pub use source::{Dtype, Weights};
