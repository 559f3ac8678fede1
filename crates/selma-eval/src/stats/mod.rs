//! Means with intervals, and differences between models, for values that come in clusters.
//!
//! Questions about one image are not independent: the unit that is resampled is the prompt, with all its values.

mod bootstrap;
mod permutation;

pub use bootstrap::{Bootstrap, Cluster, Estimate, Paired, percentile};
