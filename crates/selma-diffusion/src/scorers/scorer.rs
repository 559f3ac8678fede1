//! Scores of pictures by CLIP and the models that were made of it.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use image::RgbImage;

use super::aesthetic::AestheticHead;
use super::clip_scorer::{ClipScorer, Rule};
use super::files::{self, StoredClip};
use super::image_reward::{self, ImageReward};
use super::processor::Framing;
use crate::DiffusionError;
use crate::weights::{files_of, sha256_with};

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
    /// ImageReward (arXiv 2304.05977), `ImageReward.pt`: about 0 on average with a standard deviation of about 1 over the pictures it was made on.
    ImageReward,
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
            Self::ImageReward => "imagereward",
        }
    }
}

/// A model that scores pictures.
#[derive(Debug)]
pub struct PictureScorer {
    network: Network,
}

#[derive(Debug)]
enum Network {
    Clip(Box<ClipScorer>),
    ImageReward(Box<ImageReward>),
}

impl PictureScorer {
    /// Loads the weights of a scorer: a folder or a file that [`StoredClip::open`] takes, or `ImageReward.pt` or its folder, in which BERT's
    /// vocabulary has to lie beside it (`vocab.txt` or `tokenizer.json` of `bert-base-uncased`), and `med_config.json` may.
    ///
    /// # Errors
    ///
    /// If files are missing, damaged, or do not fit each other.
    pub fn load(kind: ScorerKind, weights: &Path, device: &Device) -> Result<Self, DiffusionError> {
        let framing = match kind {
            ScorerKind::ImageReward => {
                let network = Network::ImageReward(Box::new(ImageReward::load(weights, device)?));
                return Ok(Self { network });
            }
            ScorerKind::Hps => Framing::Pad,
            ScorerKind::Aesthetic { .. } => Framing::Torchvision,
            _ => Framing::Transformers,
        };
        let stored = StoredClip::open(weights)?;
        let rule = match kind {
            ScorerKind::PickScore => Rule::Cosine(stored.logit_scale()?),
            ScorerKind::Hps => Rule::Cosine(1.0),
            ScorerKind::Aesthetic { head } => {
                Rule::Head(AestheticHead::load(&head, stored.config.projection_dim)?)
            }
            _ => Rule::NotNegative(100.0),
        };
        let network = Network::Clip(Box::new(ClipScorer::new(&stored, rule, framing, device)?));
        Ok(Self { network })
    }

    /// SHA-256 over what [`load`](Self::load) reads: weights, configuration and tokenizer, and the head of the aesthetic predictor. Scores of one
    /// kind are the same as long as it is.
    ///
    /// # Errors
    ///
    /// If there are no weights, or a file cannot be read.
    pub fn sha256(kind: &ScorerKind, weights: &Path) -> Result<String, DiffusionError> {
        let (mut files, folder, names) = match kind {
            ScorerKind::ImageReward => {
                let (folder, file) = image_reward::located(weights);
                (vec![file], folder, image_reward::BESIDE.to_vec())
            }
            _ => {
                let (folder, file) = files::located(weights)?;
                (files_of(&file)?, folder, files::BESIDE.to_vec())
            }
        };
        if let ScorerKind::Aesthetic { head } = kind {
            files.push(head.clone());
        }
        sha256_with(&files, &folder, &names)
    }

    /// The scores of pictures and their texts, which are computed together. A text that stands several times is embedded once.
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized, or the device fails.
    pub fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, DiffusionError> {
        match &self.network {
            Network::Clip(scorer) => scorer.score(pictures),
            Network::ImageReward(scorer) => scorer.score(pictures),
        }
    }

    /// Embeds pictures: vectors of length 1, one a picture.
    ///
    /// # Errors
    ///
    /// If the device fails, or for ImageReward, which embeds no pictures without their texts.
    pub fn embed_images(&self, images: &[&RgbImage]) -> Result<Vec<Vec<f64>>, DiffusionError> {
        self.clip()?.embed_images(images)
    }

    /// Embeds texts: vectors of length 1, one a text. What is too long is cut off; see [`dropped_tokens`](Self::dropped_tokens).
    ///
    /// # Errors
    ///
    /// If a text cannot be tokenized, or the device fails, or for ImageReward.
    pub fn embed_texts(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, DiffusionError> {
        self.clip()?.embed_texts(texts)
    }

    /// How many tokens at the end of a text are not read, because it is too long; none where texts do not count.
    ///
    /// # Errors
    ///
    /// If it cannot be tokenized.
    pub fn dropped_tokens(&self, text: &str) -> Result<usize, DiffusionError> {
        match &self.network {
            Network::Clip(scorer) => scorer.dropped_tokens(text),
            Network::ImageReward(scorer) => scorer.dropped_tokens(text),
        }
    }

    fn clip(&self) -> Result<&ClipScorer, DiffusionError> {
        match &self.network {
            Network::Clip(scorer) => Ok(scorer),
            Network::ImageReward(_) => Err(DiffusionError::Request {
                what: "embeddings",
                expected: "a scorer that is a CLIP".to_owned(),
                found: ScorerKind::ImageReward.name().to_owned(),
            }),
        }
    }
}
