//! Pictures of datasets, encoded for a training.

use image::RgbImage;
use selma_dataset::{Pair, Pictures};
use selma_diffusion::StableDiffusion;
use selma_train::{PairSet, TrainingSet};

use crate::{RunEvent, RunObserver, SelmaError};

/// Encodes the pictures of all datasets with their captions, those that `keep` says yes to, as often as their datasets repeat them. They are read one by one, so that they need not fit in
/// memory; only what the UNet sees of them is kept.
///
/// `task` is what the observer is told that the work is for.
///
/// # Errors
///
/// If a picture cannot be read, no picture is kept, or the pictures differ in size; the errors of `keep`; [`SelmaError::Cancelled`] if the observer stops.
pub fn encode_datasets(
    pipeline: &StableDiffusion,
    datasets: &[&dyn Pictures],
    keep: &dyn Fn(&RgbImage, &str) -> Result<bool, SelmaError>,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<TrainingSet, SelmaError> {
    let shown = |data: &&dyn Pictures| -> usize {
        let repeats = (0..data.len()).map(|index| data.repeats(index));
        repeats.sum()
    };
    let total = datasets.iter().map(shown).sum();
    let pictures = datasets.iter().flat_map(|data| {
        let numbers = 0..data.len();
        numbers.flat_map(move |index| std::iter::repeat_n((*data, index), data.repeats(index)))
    });
    let mut read = |done, data: &dyn Pictures, index| {
        tell(observer, task, done, total, "pictures")?;
        let image = data.image(index)?;
        let text = data.text(index).unwrap_or_default();
        Ok(keep(&image, text)?.then(|| (image, text.to_owned())))
    };
    let samples = pictures
        .zip(1..)
        .filter_map(|((data, index), done)| read(done, data, index).transpose());
    TrainingSet::encode(pipeline, samples)
}

/// Encodes pairs of a dataset's pictures.
///
/// # Errors
///
/// As [`encode_datasets`].
pub fn encode_pairs(
    pipeline: &StableDiffusion,
    pictures: &dyn Pictures,
    pairs: &[Pair],
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<PairSet, SelmaError> {
    let samples = pairs.iter().zip(1..).map(|(pair, done)| {
        tell(observer, task, done, pairs.len(), "pairs")?;
        let text = pictures.text(pair.chosen).unwrap_or_default();
        let (chosen, rejected) = (pictures.image(pair.chosen)?, pictures.image(pair.rejected)?);
        Ok((chosen, rejected, text.to_owned()))
    });
    PairSet::encode(pipeline, samples)
}

fn tell(
    observer: &mut RunObserver<'_>,
    task: &str,
    done: usize,
    total: usize,
    unit: &'static str,
) -> Result<(), SelmaError> {
    let event = RunEvent::Progress {
        task,
        done,
        total,
        unit,
        note: None,
    };
    match observer(event).is_break() {
        true => Err(SelmaError::Cancelled),
        false => Ok(()),
    }
}
