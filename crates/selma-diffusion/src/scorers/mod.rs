//! How well pictures fit their texts, and how well people like them, by models that embed both: CLIP score, PickScore, HPS v2
//! and v2.1, and LAION's aesthetic predictor.

mod aesthetic;
mod files;
mod processor;
mod scorer;

pub use files::StoredClip;
pub use processor::{Framing, ImageProcessor};
pub use scorer::{PictureScorer, ScorerKind};
