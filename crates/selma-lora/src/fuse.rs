//! Adapters into the weights of a checkpoint on disk.
//!
//! Every weight that an adapter has an update for becomes `W + sum_i w_i dW_i`, formed in `f64` and rounded to the
//! number type of the file. Everything else is copied bit for bit. Files are read and written from start to end, so
//! that no more than a few rows of one tensor are in memory beside the adapters, whatever the size of the checkpoint.
//!
//! [`fuse_folder`] takes a folder in the layout of diffusers. [`fuse_file`] takes any safetensors file, and a function
//! that says which modules a tensor holds: for files in the original layout of Stable Diffusion it comes from
//! `selma_diffusion`.
//!
//! ```
//! use selma_lora::{Adapter, Weighted, fuse::{fuse_file, module_of}, init};
//! # use std::collections::HashMap;
//! # use safetensors::{Dtype, serialize, tensor::TensorView};
//! # let folder = tempfile::tempdir()?;
//! # let (unet, fused) = (folder.path().join("unet.safetensors"), folder.path().join("fused.safetensors"));
//! # let view = TensorView::new(Dtype::F32, vec![8, 4, 1, 1], &[0; 128])?;
//! # std::fs::write(&unet, serialize(HashMap::from([("conv_in.weight", view)]), None)?)?;
//!
//! let path = "unet.conv_in";
//! let mut module = init::gaussian(path, &[8, 4, 1, 1], 2, 2.0, 0)?;
//! module.b.fill(0.5);
//! let adapter = Adapter::new([(path.to_owned(), module)]);
//! let inputs = [Weighted { adapter: &adapter, weight: 0.8 }];
//! let report = fuse_file(&unet, &fused, |tensor| module_of("unet", tensor), &inputs)?;
//! assert_eq!(report.modules, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod checked;
mod folder;
mod source;
mod update;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Serialize;

pub use folder::fuse_folder;

use crate::{LoraError, Weighted, merge::MergeInput};
use checked::Checked;
use source::Source;

/// A module in a tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The module's path with its component, `unet.conv_in`.
    pub module: String,
    /// Which part of the tensor is its weight.
    pub part: Part,
}

/// The part of a tensor that is the weight of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These indices of the first dimension, as in the inputs of an attention that are stored below each other.
    Rows(Range<usize>),
    /// All of a matrix whose transpose is the weight.
    Transposed,
}

/// What was fused into what.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FuseReport {
    /// The adapters, in order.
    pub inputs: Vec<MergeInput>,
    /// Modules that any of them has.
    pub modules: usize,
    /// Those of them whose updates are all zero, so that they stay as they were.
    pub zero: Vec<String>,
    /// The files that were changed.
    pub files: Vec<FusedFile>,
    /// Files of a folder that hold the weights of before in a form that cannot be fused, and are therefore not in the new
    /// one.
    pub left_out: Vec<PathBuf>,
}

/// A file that was changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FusedFile {
    /// The file that was read.
    pub path: PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// How many of its tensors were changed.
    pub tensors: usize,
}

/// Adds adapters to the weights in a safetensors file.
///
/// `places` says which modules a tensor holds, by the tensor's name. The file is written through a temporary one, so that
/// `to` is never half-written; it may be `from`. Its metadata is that of `from` with the entry `selma_fuse`: the SHA-256
/// of `from`, and SHA-256 and weight of every adapter.
///
/// # Errors
/// [`LoraError::NoAdapters`], [`LoraError::BadWeight`]; around the adapter, if it has a file, [`LoraError::NotStrict`] and [`LoraError::NothingMatched`] when an
/// adapter has modules that the file lacks or that have another shape there; [`LoraError::Io`], [`LoraError::Durable`];
/// around the file ([`LoraError::InFile`]): [`LoraError::NotSafetensors`], [`LoraError::TensorDtype`] for a weight that is
/// neither `F32`, `F16` nor `BF16`, [`LoraError::Overflow`] for a sum that does not fit its number type,
/// [`LoraError::Duplicate`] for a module with two places. `to` is then as it was.
pub fn fuse_file<P: IntoIterator<Item = Place>>(
    from: &Path,
    to: &Path,
    places: impl Fn(&str) -> P,
    inputs: &[Weighted<'_>],
) -> Result<FuseReport, LoraError> {
    let source = Source::open(from, places)?;
    let checked = Checked::new(inputs, [&source])?;
    let file = checked.write(source, to)?;
    Ok(checked.report(vec![file], Vec::new()))
}

/// The module whose weight a tensor of diffusers' `component` (`unet`, `text_encoder`, `text_encoder_2`) is, by the tensor's name; `None` for biases and the
/// like. Files of text encoders have their names with or without the level `text_model`; modules have it.
#[must_use]
pub fn module_of(component: &str, tensor: &str) -> Option<Place> {
    let path = tensor.strip_suffix(".weight")?;
    let level = if component.starts_with("text_encoder") && path.starts_with("encoder.") {
        "text_model."
    } else {
        ""
    };
    Some(Place {
        module: format!("{component}.{level}{path}"),
        part: Part::Whole,
    })
}

impl Part {
    /// The shape of the weight in a tensor of the shape `whole`; `None` if there is no such part.
    fn shape(&self, whole: &[usize]) -> Option<Vec<usize>> {
        match (self, whole) {
            (Self::Whole, _) => Some(whole.to_vec()),
            (Self::Rows(rows), [count, rest @ ..]) => {
                let fits = rows.start <= rows.end && rows.end <= *count;
                fits.then(|| [&[rows.len()], rest].concat())
            }
            (Self::Transposed, &[rows, columns]) => Some(vec![columns, rows]),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
