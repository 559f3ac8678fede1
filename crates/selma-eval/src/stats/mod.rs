//! Means with intervals, differences between models, and correlations.
//!
//! Questions about one image are not independent: the unit that is resampled is the prompt, with all its values.

mod bca;
mod bootstrap;
mod bradley_terry;
mod cluster;
mod correlation;
pub(crate) mod draw;
mod holm;
mod kendall;
mod krippendorff;
mod mcnemar;
pub(crate) mod permutation;
mod quantile;
mod spearman;

pub use bootstrap::{Bootstrap, Interval, IntervalMethod};
pub use bradley_terry::bradley_terry;
pub use cluster::{Cluster, Estimate, Paired};
pub use correlation::Correlation;
pub use holm::holm;
pub use kendall::kendall;
pub(crate) use krippendorff::Coincidences;
pub use krippendorff::krippendorff;
pub use mcnemar::McNemar;
pub use quantile::percentile;
pub use spearman::spearman;
