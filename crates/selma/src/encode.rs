//! Pictures of datasets, encoded for a training.

use image::RgbImage;
use selma_dataset::Dataset;
use selma_diffusion::StableDiffusion;
use selma_train::TrainingSet;

use crate::{RunEvent, RunObserver, SelmaError};

/// Encodes the pictures of all datasets with their captions, those that `keep` says yes to. They are read one by one, so that they need not fit in
/// memory; only what the UNet sees of them is kept.
///
/// `task` is what the observer is told that the work is for.
///
/// # Errors
///
/// If a picture cannot be read, no picture is kept, or the pictures differ in size; the errors of `keep`; [`SelmaError::Cancelled`] if the observer stops.
pub fn encode_datasets(
    pipeline: &StableDiffusion,
    datasets: &[Dataset],
    keep: &dyn Fn(&RgbImage, &str) -> Result<bool, SelmaError>,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<TrainingSet, SelmaError> {
    let total = datasets.iter().map(Dataset::len).sum();
    let pictures = datasets.iter().flat_map(|data| {
        let samples = data.iter().enumerate();
        samples.map(move |(index, sample)| (data, index, sample))
    });
    let mut read = |done, data: &Dataset, index, text: &str| {
        let event = RunEvent::Progress {
            task,
            done,
            total,
            unit: "pictures",
            note: None,
        };
        if observer(event).is_break() {
            return Err(SelmaError::Cancelled);
        }
        let image = data.image(index)?;
        Ok(keep(&image, text)?.then(|| (image, text.to_owned())))
    };
    let samples = pictures
        .zip(1..)
        .filter_map(|((data, index, sample), done)| {
            read(done, data, index, &sample.text).transpose()
        });
    TrainingSet::encode(pipeline, samples)
}
