//! Means with intervals, differences between models, and correlations.
//!
//! Questions about one image are not independent: the unit that is resampled is the prompt, with all its values.

mod bca;
mod bootstrap;
mod bradley_terry;
mod correlation;
pub(crate) mod draw;
mod holm;
mod kendall;
mod krippendorff;
mod mcnemar;
pub(crate) mod permutation;
mod spearman;

pub(crate) use krippendorff::Coincidences;
pub use bootstrap::{
    Bootstrap, Cluster, Estimate, Interval, IntervalMethod, Paired, percentile,
};
pub use bradley_terry::bradley_terry;
pub use correlation::Correlation;
pub use holm::holm;
pub use kendall::kendall;
pub use krippendorff::krippendorff;
pub use mcnemar::McNemar;
pub use spearman::spearman;
