//! Pictures of datasets, encoded for a training.

use image::RgbImage;
use selma_dataset::{Pair, Pictures};
use selma_diffusion::StableDiffusion;
use selma_train::{EncodeReport, EncodingCache, PairSet, TrainingSet, ValidTrainConfig};

use crate::{RunEvent, RunObserver, SelmaError};

/// Encodes data for trainings.
#[derive(Debug, Clone, Copy)]
pub struct DataEncoder<'a> {
    /// With VAE and text encoders.
    pub pipeline: &'a StableDiffusion,
    /// How pictures are shown, and the weights of datasets.
    pub config: &'a ValidTrainConfig,
    /// Where what was encoded is kept and read from; in memory if there is none.
    pub cache: Option<&'a EncodingCache>,
    /// What the observer is told that the work is for.
    pub task: &'a str,
}

impl DataEncoder<'_> {
    /// Encodes the pictures of all datasets with their captions, those that `keep` says yes to, as often as their datasets repeat them. They are read one by one, so that they need not fit in
    /// memory; only what the UNet sees of them is kept.
    ///
    /// # Errors
    ///
    /// If a picture cannot be read, no picture is kept, or the settings have weights for another number of datasets; the errors of `keep`;
    /// [`SelmaError::Cancelled`] if the observer stops.
    pub fn datasets(
        &self,
        datasets: &[&dyn Pictures],
        keep: &dyn Fn(&RgbImage, &str) -> Result<bool, SelmaError>,
        observer: &mut RunObserver<'_>,
    ) -> Result<TrainingSet, SelmaError> {
        let shown = |data: &&dyn Pictures| -> usize {
            let repeats = (0..data.len()).map(|index| data.repeats(index));
            repeats.sum()
        };
        let total = datasets.iter().map(shown).sum();
        let pictures = datasets.iter().enumerate().flat_map(|(part, data)| {
            let numbers = 0..data.len();
            numbers.flat_map(move |index| {
                std::iter::repeat_n((part, *data, index), data.repeats(index))
            })
        });
        let mut parts = vec![0; datasets.len()];
        let mut read = |done, part: usize, data: &dyn Pictures, index| {
            self.tell(observer, done, total, "pictures")?;
            let image = data.image(index)?;
            let text = data.text(index).unwrap_or_default();
            if !keep(&image, text)? {
                return Ok(None);
            }
            if let Some(count) = parts.get_mut(part) {
                *count += 1;
            }
            Ok(Some((image, text.to_owned())))
        };
        let samples = pictures
            .zip(1..)
            .filter_map(|((part, data, index), done)| read(done, part, data, index).transpose());
        let (pipeline, config) = (self.pipeline, self.config);
        let mut set = TrainingSet::encode::<SelmaError>(pipeline, config, self.cache, samples)?;
        if !config.data_weights.is_empty() {
            set = set.split(&parts, config)?;
        }
        self.tell_report(set.report(), observer)?;
        Ok(set)
    }

    /// Encodes pairs of a dataset's pictures.
    ///
    /// # Errors
    ///
    /// As [`datasets`](Self::datasets).
    pub fn pairs(
        &self,
        pictures: &dyn Pictures,
        pairs: &[Pair],
        observer: &mut RunObserver<'_>,
    ) -> Result<PairSet, SelmaError> {
        let mut read = |pair: &Pair, done| {
            self.tell(observer, done, pairs.len(), "pairs")?;
            let text = pictures.text(pair.chosen).unwrap_or_default();
            let (chosen, rejected) = (pictures.image(pair.chosen)?, pictures.image(pair.rejected)?);
            Ok((chosen, rejected, text.to_owned()))
        };
        let samples = pairs.iter().zip(1..).map(|(pair, done)| read(pair, done));
        let (pipeline, config) = (self.pipeline, self.config);
        let set = PairSet::encode::<SelmaError>(pipeline, config, self.cache, samples)?;
        self.tell_report(set.report(), observer)?;
        Ok(set)
    }

    fn tell(
        &self,
        observer: &mut RunObserver<'_>,
        done: usize,
        total: usize,
        unit: &'static str,
    ) -> Result<(), SelmaError> {
        go_on(observer(RunEvent::Progress {
            task: self.task,
            done,
            total,
            unit,
            note: None,
        }))
    }

    fn tell_report(
        &self,
        report: &EncodeReport,
        observer: &mut RunObserver<'_>,
    ) -> Result<(), SelmaError> {
        for path in &report.damaged {
            go_on(observer(RunEvent::Remade { path }))?;
        }
        if self.cache.is_none() {
            return Ok(());
        }
        go_on(observer(RunEvent::Encoded {
            task: self.task,
            encoded: report.encoded,
            found: report.found,
        }))
    }
}

fn go_on(flow: std::ops::ControlFlow<()>) -> Result<(), SelmaError> {
    match flow.is_break() {
        true => Err(SelmaError::Cancelled),
        false => Ok(()),
    }
}
