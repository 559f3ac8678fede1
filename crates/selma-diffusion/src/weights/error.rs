//! What can be wrong with a weight file.

use std::path::PathBuf;

use thiserror::Error;

/// Why a weight file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WeightsError {
    /// The file is of no format that is read.
    #[error("{} is no weight file: expected safetensors or a PyTorch checkpoint, found {found}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What its first bytes look like.
        found: &'static str,
    },
    /// A folder holds no weights of the kind that was asked for.
    #[error("{} has no weights: expected {expected}, found {found}", folder.display())]
    NoWeights {
        /// The folder.
        folder: PathBuf,
        /// The names that were looked for.
        expected: String,
        /// The weight files that are there.
        found: String,
    },
    /// No component of a pipeline has weights of the variant that was asked for.
    #[error("{}: no component has weights of the variant {variant:?}; there is {found}", folder.display())]
    NoVariant {
        /// The pipeline's folder.
        folder: PathBuf,
        /// As it was asked for.
        variant: String,
        /// The weight files that are there.
        found: String,
    },
    /// The zip archive of a PyTorch checkpoint is damaged.
    #[error("{} is not a complete PyTorch checkpoint: {found}", path.display())]
    Zip {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: &'static str,
    },
    /// The archive of a PyTorch checkpoint is whole, but not what PyTorch writes.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The part.
        what: String,
        /// What would be right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The pickled description of a PyTorch checkpoint cannot be understood.
    #[error("{}: pickle, byte {offset}: expected {expected}, found {found}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// From the start of the pickle.
        offset: usize,
        /// What would be right.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// The file asks Python to run something. Nothing was run.
    #[error("{} would call {name} if Python loaded it; it is not read", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// The function.
        name: String,
    },
    /// Something of a state dictionary is not a tensor that can be read.
    #[error("{}: entry {key:?}: expected a tensor, found {found}", path.display())]
    NotATensor {
        /// The file.
        path: PathBuf,
        /// Its name.
        key: String,
        /// What it is.
        found: String,
    },
    /// An index names a file that is not there.
    #[error("{} names the shard {}, which is missing", index.display(), shard.display())]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The file.
        shard: PathBuf,
    },
    /// Two shards hold a tensor of one name.
    #[error("{}: tensor {key:?} is in both {first} and {second}", index.display())]
    TwoShards {
        /// The index.
        index: PathBuf,
        /// The tensor's name.
        key: String,
        /// The one shard.
        first: String,
        /// The other.
        second: String,
    },
    /// An index and a shard do not agree on which tensors the shard holds.
    #[error("{} and its shard {shard} do not agree: only the {one} has {keys}", index.display())]
    Shard {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: String,
        /// `index` or `shard`.
        one: &'static str,
        /// The first names.
        keys: String,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor {key:?} holds {value} at element {index}", path.display())]
    NonFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        key: String,
        /// The first such element, in the order of the indices.
        index: usize,
        /// Its value.
        value: f32,
    },
}
