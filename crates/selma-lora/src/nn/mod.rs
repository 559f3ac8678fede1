//! LoRA layers on burn: a frozen base plus any number of named, weighted branches.
//!
//! Training, inference with several adapters and a router over experts are the same layer: a branch adds
//! `weight * scale * B(A(x))` to the output of the base (LoRA, arXiv 2106.09685, equation 3). Removing a branch leaves
//! no residue, because the base weights are never touched: where branches are fused into them, they are kept.

mod attach;
mod branch;
mod calibrator;
mod contraction;
mod conv2d;
mod dense;
mod fuse;
mod layers;
mod linear;
mod mixture;

pub use attach::{Attachable, attach, attach_file, detach, extract, set_weight};
pub use branch::LoraBranch;
pub use calibrator::{Calibrator, InputObserver};
pub use conv2d::{LoraConv2d, LoraConv2dConfig};
pub use dense::DenseUpdate;
pub use fuse::{Unfused, fuse, unfuse};
pub use layers::{LoraLayerMut, LoraLayers};
pub use linear::{LoraLinear, LoraLinearConfig};
pub use mixture::{LoraMixture, extract_mixture};
