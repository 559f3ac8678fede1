//! Scores of pictures by a model: CLIP score, PickScore and their like.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use image::RgbImage;
use selma_dataset::{Pictures, Score};

use crate::EvalError;
use crate::stats::{Bootstrap, Cluster, Estimate};

/// A model that says with a number how well a picture fits its text, or how well people like it. More is better.
pub trait Scorer: Send + Sync {
    /// Name of the scorer, which stands beside every score.
    fn name(&self) -> &str;

    /// SHA-256 of what it is made of, in hexadecimal, which stands beside every score, too. Default: none.
    fn sha256(&self) -> Option<&str> {
        None
    }

    /// Scores pictures of texts together: one finite number for each, in their order.
    ///
    /// # Errors
    /// [`EvalError::Scorer`] when the model could not be asked.
    fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, EvalError>;
}

/// Scores the pictures of a dataset for their captions, `batch` of them at a time, in their order. The observer is told how many are done, and
/// stops the work by [`ControlFlow::Break`]. What comes out is what [`selma_dataset::write_scores`] writes.
///
/// # Errors
/// [`EvalError::Dataset`] for a picture that cannot be read or a score that is not finite,
/// [`EvalError::Scorer`] from the model, [`EvalError::ScoreCount`] when it does not give one score per picture,
/// [`EvalError::Cancelled`] when the observer stopped.
pub fn score_pictures(
    pictures: &dyn Pictures,
    scorer: &dyn Scorer,
    batch: NonZeroUsize,
    mut observer: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Vec<Score>, EvalError> {
    let total = pictures.len();
    let mut scores = Vec::with_capacity(total);
    for start in (0..total).step_by(batch.get()) {
        let numbers = start..total.min(start + batch.get());
        let images = numbers.clone().map(|number| pictures.image(number));
        let images: Vec<RgbImage> = images.collect::<Result<_, _>>()?;
        let texts = numbers.clone().map(|number| pictures.text(number));
        let texts = texts.map(Option::unwrap_or_default);
        let together: Vec<(&RgbImage, &str)> = images.iter().zip(texts).collect();
        let given = scorer.score(&together)?;
        if given.len() != together.len() {
            return Err(EvalError::ScoreCount {
                scorer: scorer.name().to_owned(),
                expected: together.len(),
                found: given.len(),
            });
        }
        for (number, score) in numbers.zip(given) {
            scores.push(Score {
                scorer_sha256: scorer.sha256().map(str::to_owned),
                ..Score::new(pictures, number, scorer.name(), score)?
            });
        }
        let done = scores.len();
        if observer(done).is_break() {
            return Err(EvalError::Cancelled { done, total });
        }
    }
    Ok(scores)
}

/// The mean of the scores of a dataset's pictures, in their order, with an interval that takes the prompts as independent: pictures are of one
/// prompt if their captions are equal.
///
/// # Errors
/// Those of [`Bootstrap::estimate`].
pub fn mean_score(
    pictures: &dyn Pictures,
    scores: &[Score],
    bootstrap: &Bootstrap,
) -> Result<Estimate, EvalError> {
    let mut prompts: BTreeMap<Option<&str>, Cluster> = BTreeMap::new();
    for (number, score) in scores.iter().enumerate() {
        let text = pictures.text(number);
        let cluster = prompts
            .entry(text)
            .or_insert(Cluster { sum: 0.0, count: 0 });
        cluster.sum += score.score;
        cluster.count += 1;
    }
    let clusters: Vec<Cluster> = prompts.into_values().collect();
    bootstrap.estimate(&clusters)
}
