//! Encoded pictures and texts, each once, however often it is shown.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Tensor;
use image::RgbImage;
use selma_dataset::Size;
use selma_diffusion::image::to_tensor;
use selma_diffusion::pipeline::TextEmbeddings;
use selma_diffusion::{DiffusionError, StableDiffusion};
use sha2::{Digest, Sha256};

use crate::encoded::{Array, Encoded, Kind};
use crate::encoding_cache::{Found, Key, look, read, write};
use crate::factors::host;
use crate::{EncodingCache, TrainError};

/// Pictures or texts that are encoded together.
pub(crate) const BATCH: usize = 16;

/// What was encoded for a training, of pictures and texts together. What is there several times counts once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodeReport {
    /// How many were encoded.
    pub encoded: usize,
    /// How many were found in the cache.
    pub found: usize,
    /// Files of the cache that were damaged. They were made anew.
    pub damaged: Vec<PathBuf>,
}

/// Where samples take their latents and embeddings from, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encodings {
    cache: Option<EncodingCache>,
    numbers: HashMap<Key, usize>,
    items: Vec<Item>,
    pub(crate) report: EncodeReport,
}

#[derive(Debug, Clone)]
struct Item {
    /// Of the first array.
    shape: Vec<usize>,
    kind: Kind,
    kept: Kept,
}

#[derive(Debug, Clone)]
enum Kept {
    Memory(Arc<Encoded>),
    File(PathBuf),
}

impl Encodings {
    /// In files if there is a cache, else in memory.
    pub(crate) fn new(cache: Option<&EncodingCache>) -> Self {
        Self {
            cache: cache.cloned(),
            ..Self::default()
        }
    }

    /// What has a number, from memory or its file.
    pub(crate) fn get(&self, number: usize) -> Result<Arc<Encoded>, TrainError> {
        let item = self.items.get(number).ok_or(TrainError::NoData)?;
        match &item.kept {
            Kept::Memory(encoded) => Ok(Arc::clone(encoded)),
            Kept::File(path) => read(path, item.kind).map(Arc::new),
        }
    }

    /// `[channels, height, width]` of the latents with a number.
    pub(crate) fn shape(&self, number: usize) -> [usize; 3] {
        let shape = self.items.get(number).map(|item| item.shape.as_slice());
        shape
            .and_then(|shape| shape.try_into().ok())
            .unwrap_or_default()
    }

    /// Encodes pictures, with the SHA-256 of their pixels, that are neither here nor in the cache. Gives the numbers of all.
    pub(crate) fn pictures(
        &mut self,
        pipeline: &StableDiffusion,
        pictures: impl IntoIterator<Item = Result<(RgbImage, [u8; 32]), TrainError>>,
    ) -> Result<Vec<usize>, TrainError> {
        let mut keys = Vec::new();
        let mut missing: Vec<(Key, RgbImage)> = Vec::new();
        for picture in pictures {
            let (picture, pixels) = picture?;
            let key = picture_key(&picture, pixels);
            keys.push(key);
            if missing.iter().any(|(other, _)| *other == key) || self.find(Kind::Picture, key)? {
                continue;
            }
            let alike = |(_, other): &(Key, RgbImage)| Size::of(other) == Size::of(&picture);
            if missing.len() == BATCH || !missing.iter().all(alike) {
                self.encode_pictures(pipeline, &missing)?;
                missing.clear();
            }
            missing.push((key, picture));
        }
        if !missing.is_empty() {
            self.encode_pictures(pipeline, &missing)?;
        }
        self.numbers_of(&keys)
    }

    /// Encodes texts that are neither here nor in the cache. Gives the numbers of all.
    pub(crate) fn texts(
        &mut self,
        pipeline: &StableDiffusion,
        texts: &[&str],
    ) -> Result<Vec<usize>, TrainError> {
        let mut keys = Vec::with_capacity(texts.len());
        let mut missing: Vec<(Key, &str)> = Vec::new();
        for text in texts {
            let key = text_key(pipeline, Some(text))?;
            keys.push(key);
            if !missing.iter().any(|(other, _)| *other == key) && !self.find(Kind::Text, key)? {
                missing.push((key, text));
            }
        }
        if !missing.is_empty() {
            let (keys, texts): (Vec<Key>, Vec<&str>) = missing.into_iter().unzip();
            self.insert_texts(&keys, pipeline.encode_texts(&texts, None)?)?;
        }
        self.numbers_of(&keys)
    }

    /// What stands for no text: the empty one, and zeros in SDXL.
    pub(crate) fn no_text(&mut self, pipeline: &StableDiffusion) -> Result<usize, TrainError> {
        let key = text_key(pipeline, None)?;
        if !self.find(Kind::Text, key)? {
            self.insert_texts(&[key], pipeline.encode_negative_texts(&[None])?)?;
        }
        self.number_of(&key)
    }

    /// Encodes pictures of one size.
    fn encode_pictures(
        &mut self,
        pipeline: &StableDiffusion,
        pictures: &[(Key, RgbImage)],
    ) -> Result<(), TrainError> {
        let factor = pipeline.vae_config.factor() as u32;
        let images = || pictures.iter().map(|(_, picture)| picture);
        for image in images() {
            let (width, height) = image.dimensions();
            if width % factor != 0 || height % factor != 0 {
                return Err(TrainError::Setting {
                    field: "size of the images",
                    expected: format!("multiples of {factor}"),
                    found: format!("{width}x{height}"),
                });
            }
        }
        let moments = pipeline.vae.encode(to_tensor(images(), pipeline.device())?);
        let scale = pipeline.vae_config.scaling_factor;
        let means = rows(moments.mean.mul_scalar(scale))?;
        let deviations = rows(moments.logvar.mul_scalar(0.5).exp().mul_scalar(scale))?;
        for (((key, _), mean), deviation) in pictures.iter().zip(means).zip(deviations) {
            let encoded = Encoded {
                first: mean,
                second: Some(deviation),
            };
            self.insert(Kind::Picture, *key, encoded)?;
        }
        Ok(())
    }

    fn insert_texts(&mut self, keys: &[Key], embeddings: TextEmbeddings) -> Result<(), TrainError> {
        let contexts = rows(embeddings.context)?;
        let pooled = embeddings.pooled.map(rows).transpose()?;
        let mut pooled = pooled.map(Vec::into_iter);
        for (key, context) in keys.iter().zip(contexts) {
            let encoded = Encoded {
                first: context,
                second: pooled.as_mut().and_then(Iterator::next),
            };
            self.insert(Kind::Text, *key, encoded)?;
        }
        Ok(())
    }

    /// Whether something is here, or in the cache, from which it then is here.
    fn find(&mut self, kind: Kind, key: Key) -> Result<bool, TrainError> {
        if self.numbers.contains_key(&key) {
            return Ok(true);
        }
        let Some(cache) = &self.cache else {
            return Ok(false);
        };
        let path = cache.file(kind, &key);
        match look(&path, kind)? {
            Found::Whole(encoded) => {
                self.report.found += 1;
                self.push(kind, key, encoded.first.shape, Kept::File(path));
                Ok(true)
            }
            Found::Damaged => {
                self.report.damaged.push(path);
                Ok(false)
            }
            Found::Nothing => Ok(false),
        }
    }

    /// Keeps what was encoded.
    fn insert(&mut self, kind: Kind, key: Key, encoded: Encoded) -> Result<(), TrainError> {
        self.report.encoded += 1;
        let shape = encoded.first.shape.clone();
        let kept = match &self.cache {
            None => Kept::Memory(Arc::new(encoded)),
            Some(cache) => {
                let path = cache.file(kind, &key);
                write(&path, kind, &encoded)?;
                Kept::File(path)
            }
        };
        self.push(kind, key, shape, kept);
        Ok(())
    }

    fn push(&mut self, kind: Kind, key: Key, shape: Vec<usize>, kept: Kept) {
        self.numbers.insert(key, self.items.len());
        self.items.push(Item { shape, kind, kept });
    }

    fn number_of(&self, key: &Key) -> Result<usize, TrainError> {
        self.numbers.get(key).copied().ok_or(TrainError::NoData)
    }

    fn numbers_of(&self, keys: &[Key]) -> Result<Vec<usize>, TrainError> {
        keys.iter().map(|key| self.number_of(key)).collect()
    }
}

fn picture_key(picture: &RgbImage, pixels: [u8; 32]) -> Key {
    let mut hash = Sha256::new().chain_update("picture").chain_update(pixels);
    for side in [picture.width(), picture.height()] {
        hash.update(side.to_le_bytes());
    }
    hash.finalize().into()
}

/// A text encoder sees tokens alone, so that these stand for the tokenizer, too.
fn text_key(pipeline: &StableDiffusion, text: Option<&str>) -> Result<Key, TrainError> {
    let mut hash = Sha256::new().chain_update(if text.is_some() { "text" } else { "none" });
    let second = pipeline.text_encoder_2.as_ref();
    for encoder in [Some(&pipeline.text_encoder), second].into_iter().flatten() {
        let tokens = encoder.tokenizer.encode(text.unwrap_or_default());
        let ids = tokens.map_err(DiffusionError::from)?.ids;
        hash.update((ids.len() as u64).to_le_bytes());
        for id in ids {
            hash.update(id.to_le_bytes());
        }
    }
    Ok(hash.finalize().into())
}

/// The parts of a tensor along its first dimension.
fn rows<const D: usize>(tensor: Tensor<D>) -> Result<Vec<Array>, TrainError> {
    let shape = tensor.dims().get(1..).unwrap_or_default().to_vec();
    let values = host(tensor)?;
    let parts = values.chunks(shape.iter().product::<usize>().max(1));
    let array = |values: &[f32]| Array {
        shape: shape.clone(),
        values: values.to_vec(),
    };
    Ok(parts.map(array).collect())
}
