//! The scorers of selma-diffusion, as selma-eval asks for one.

use image::RgbImage;
use selma_diffusion::scorers::PictureScorer;
use selma_eval::{EvalError, Scorer};

/// A [`PictureScorer`] by the name that stands beside its scores.
#[derive(Debug)]
pub struct NamedScorer {
    /// The name.
    pub name: String,
    /// The model.
    pub scorer: PictureScorer,
}

impl Scorer for NamedScorer {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, EvalError> {
        let scores = self.scorer.score(pictures);
        scores.map_err(|source| EvalError::Scorer {
            scorer: self.name.clone(),
            source: Box::new(source),
        })
    }
}
