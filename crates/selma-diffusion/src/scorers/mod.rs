//! How well pictures fit their texts, and how well people like them: by models that embed both, CLIP score, PickScore, HPS v2
//! and v2.1 and LAION's aesthetic predictor, and by ImageReward, which looks at the picture while it reads.

mod aesthetic;
mod clip_scorer;
mod files;
mod image_reward;
mod processor;
mod scorer;

pub(crate) use clip_scorer::normalised;
pub use files::StoredClip;
pub(crate) use processor::require_processor;
pub use processor::{Framing, ImageProcessor};
pub use scorer::{PictureScorer, ScorerKind};
