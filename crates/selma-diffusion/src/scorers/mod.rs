//! How well pictures fit their texts, and how well people like them, by models that embed both: CLIP score, PickScore, HPS v2
//! and v2.1, and LAION's aesthetic predictor.
//!
//! ```no_run
//! use std::path::Path;
//!
//! use selma_diffusion::scorers::{PictureScorer, ScorerKind};
//! use selma_diffusion::{device, image};
//!
//! # fn main() -> Result<(), selma_diffusion::DiffusionError> {
//! let weights = Path::new("PickScore_v1");
//! let scorer = PictureScorer::load(ScorerKind::PickScore, weights, &device("flex")?)?;
//! let (left, right) = (image::open("left.png")?, image::open("right.png")?);
//! let text = "a red circle left of a blue square";
//! let scores = scorer.score(&[(&left, text), (&right, text)])?;
//! println!("the left one is preferred: {}", scores[0] > scores[1]);
//! # Ok(())
//! # }
//! ```

mod aesthetic;
mod files;
mod processor;
mod scorer;

pub use files::StoredClip;
pub use processor::{Framing, ImageProcessor};
pub use scorer::{PictureScorer, ScorerKind};
