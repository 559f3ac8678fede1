//! Scores of pictures by CLIP and the models that were made of it.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use image::RgbImage;

use super::aesthetic::AestheticHead;
use super::files::StoredClip;
use super::processor::{Framing, ImageProcessor};
use crate::DiffusionError;
use crate::image::read;
use crate::models::ClipModel;
use crate::tokenizer::ClipTokenizer;

/// What a score is of, and how pictures are prepared for it. More is better in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScorerKind {
    /// CLIP score (arXiv 2104.08718), as torchmetrics has it: 100 times the cosine of picture and text, or 0 where that is negative.
    /// torchmetrics takes the mean first; here it is so for each picture. The paper's models are ViT-B/32 and ViT-L/14 of OpenAI.
    Clip,
    /// PickScore (arXiv 2305.01569), `yuvalkirstain/PickScore_v1`: the cosine times the model's scale, which is near 100.
    PickScore,
    /// Human preference score v2 and v2.1 (arXiv 2306.09341), `HPS_v2_compressed.pt` and `HPS_v2.1_compressed.pt`, which differ in their
    /// weights alone: the cosine, as `hpsv2.score` gives it; tables often have 100 times that.
    Hps,
    /// LAION's aesthetic predictor on CLIP ViT-L/14 of OpenAI: what people would give the picture out of 10. The text does not count.
    Aesthetic {
        /// The weights on top of CLIP: those of `improved-aesthetic-predictor` without activations, or a single linear map.
        head: PathBuf,
    },
}

impl ScorerKind {
    /// A short name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clip => "clip",
            Self::PickScore => "pickscore",
            Self::Hps => "hps",
            Self::Aesthetic { .. } => "aesthetic",
        }
    }

    fn framing(&self) -> Framing {
        match self {
            Self::Clip | Self::PickScore => Framing::Transformers,
            Self::Hps => Framing::Pad,
            Self::Aesthetic { .. } => Framing::Torchvision,
        }
    }
}

/// What is made of the embeddings, which are normalised.
#[derive(Debug, Clone)]
enum Rule {
    /// The cosine times a scale.
    Cosine(f64),
    /// The same, but nothing below zero.
    NotNegative(f64),
    /// Of the picture alone.
    Head(AestheticHead),
}

/// A model that scores pictures.
#[derive(Debug)]
pub struct PictureScorer {
    model: ClipModel,
    tokenizer: ClipTokenizer,
    processor: ImageProcessor,
    rule: Rule,
    device: Device,
}

impl PictureScorer {
    /// Loads the weights of a scorer: a folder or a file that [`StoredClip::open`] takes.
    ///
    /// # Errors
    ///
    /// If files are missing, damaged, or do not fit each other.
    pub fn load(kind: ScorerKind, weights: &Path, device: &Device) -> Result<Self, DiffusionError> {
        let stored = StoredClip::open(weights)?;
        let vision = &stored.config.vision_config;
        let processor = ImageProcessor {
            size: u32::try_from(vision.image_size).unwrap_or(u32::MAX),
            framing: kind.framing(),
        };
        let rule = match kind {
            ScorerKind::Clip => Rule::NotNegative(100.0),
            ScorerKind::PickScore => Rule::Cosine(stored.logit_scale()?),
            ScorerKind::Hps => Rule::Cosine(1.0),
            ScorerKind::Aesthetic { head } => {
                Rule::Head(AestheticHead::load(&head, stored.config.projection_dim)?)
            }
        };
        Ok(Self {
            tokenizer: stored.tokenizer()?,
            model: stored.model(device)?,
            processor,
            rule,
            device: device.clone(),
        })
    }

    /// The scores of pictures and their texts, which are computed together. A text that stands several times is embedded once.
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized, or the device fails.
    pub fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, DiffusionError> {
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
    ///
    /// # Errors
    ///
    /// If the device fails.
    pub fn embed_images(&self, images: &[&RgbImage]) -> Result<Vec<Vec<f64>>, DiffusionError> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let pixels = self.processor.prepare(images, &self.device);
        normalised(self.model.embed_images(pixels))
    }

    /// Embeds texts: vectors of length 1, one a text. What is too long is cut off; see [`dropped_tokens`](Self::dropped_tokens).
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized, or the device fails.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, DiffusionError> {
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
    ///
    /// # Errors
    ///
    /// If it cannot be tokenized.
    pub fn dropped_tokens(&self, text: &str) -> Result<usize, DiffusionError> {
        match self.rule {
            Rule::Head(_) => Ok(0),
            _ => Ok(self.tokenizer.encode(text)?.dropped),
        }
    }
}

/// The rows of a matrix, each divided by its length.
fn normalised(rows: Tensor<2>) -> Result<Vec<Vec<f64>>, DiffusionError> {
    let [_, width] = rows.dims();
    let values = read(rows)?;
    let rows = values.chunks(width.max(1)).map(|row| {
        let row: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| value / length).collect()
    });
    Ok(rows.collect())
}
