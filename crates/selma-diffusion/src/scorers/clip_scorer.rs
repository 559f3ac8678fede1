//! Scores by CLIP and the models that were made of it.

use burn::tensor::{Device, Int, Tensor, TensorData};
use image::RgbImage;

use super::aesthetic::AestheticHead;
use super::files::StoredClip;
use super::processor::{Framing, ImageProcessor};
use crate::DiffusionError;
use crate::image::read;
use crate::models::ClipModel;
use crate::tokenizer::ClipTokenizer;

/// What is made of the embeddings, which are normalised.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// The cosine times a scale.
    Cosine(f64),
    /// The same, but nothing below zero.
    NotNegative(f64),
    /// Of the picture alone.
    Head(AestheticHead),
}

/// A CLIP and what is made of its embeddings.
#[derive(Debug)]
pub(super) struct ClipScorer {
    model: ClipModel,
    tokenizer: ClipTokenizer,
    processor: ImageProcessor,
    rule: Rule,
    device: Device,
}

impl ClipScorer {
    /// Loads the weights.
    pub(super) fn new(
        stored: &StoredClip,
        rule: Rule,
        framing: Framing,
        device: &Device,
    ) -> Result<Self, DiffusionError> {
        let vision = &stored.config.vision_config;
        Ok(Self {
            tokenizer: stored.tokenizer()?,
            model: stored.model(device)?,
            processor: ImageProcessor {
                size: u32::try_from(vision.image_size).unwrap_or(u32::MAX),
                framing,
            },
            rule,
            device: device.clone(),
        })
    }

    /// The scores of pictures and their texts, which are computed together. A text that stands several times is embedded once.
    pub(super) fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, DiffusionError> {
        let images: Vec<&RgbImage> = pictures.iter().map(|(image, _)| *image).collect();
        let images = self.embed_images(&images)?;
        let scale = match &self.rule {
            Rule::Head(head) => {
                return Ok(images.iter().map(|image| head.score(image)).collect());
            }
            Rule::Cosine(scale) | Rule::NotNegative(scale) => *scale,
        };
        let mut texts: Vec<&str> = pictures.iter().map(|(_, text)| *text).collect();
        texts.sort_unstable();
        texts.dedup();
        let embedded = self.embed_texts(&texts)?;
        let score = |(image, (_, text)): (&Vec<f64>, &(&RgbImage, &str))| {
            let place = texts.binary_search(text).ok()?;
            let products = image.iter().zip(embedded.get(place)?).map(|(a, b)| a * b);
            let score = scale * products.sum::<f64>();
            Some(match self.rule {
                Rule::NotNegative(_) => score.max(0.0),
                _ => score,
            })
        };
        // Each text was put among those that were embedded.
        Ok(images.iter().zip(pictures).filter_map(score).collect())
    }

    /// Embeds pictures: vectors of length 1, one a picture.
    pub(super) fn embed_images(
        &self,
        images: &[&RgbImage],
    ) -> Result<Vec<Vec<f64>>, DiffusionError> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let pixels = self.processor.prepare(images, &self.device);
        normalised(self.model.embed_images(pixels))
    }

    /// Embeds texts: vectors of length 1, one a text. What is too long is cut off; see [`dropped_tokens`](Self::dropped_tokens).
    pub(super) fn embed_texts(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, DiffusionError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for text in texts {
            ids.extend(self.tokenizer.encode(text)?.ids);
        }
        let shape = [texts.len(), self.tokenizer.max_length()];
        let ids = ids.iter().map(|&id| id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &self.device);
        normalised(self.model.embed_texts(ids))
    }

    /// How many tokens at the end of a text are not read, because it is too long; none where texts do not count.
    pub(super) fn dropped_tokens(&self, text: &str) -> Result<usize, DiffusionError> {
        match self.rule {
            Rule::Head(_) => Ok(0),
            _ => Ok(self.tokenizer.encode(text)?.dropped),
        }
    }
}

/// The rows of a matrix, each divided by its length.
pub(crate) fn normalised(rows: Tensor<2>) -> Result<Vec<Vec<f64>>, DiffusionError> {
    let [_, width] = rows.dims();
    let values = read(rows)?;
    let rows = values.chunks(width.max(1)).map(|row| {
        let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| value / length).collect()
    });
    Ok(rows.collect())
}
