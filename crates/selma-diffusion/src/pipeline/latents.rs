//! Latents on the host, and their files.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::tensor::TensorView;

use crate::DiffusionError;
use crate::image::read;
use crate::noise::normal;
use crate::weights::{Dtype, Weights};

/// Name of the tensor in a file of latents.
const KEY: &str = "latents";

/// Latents of a batch of images.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    /// Row-major values.
    pub values: Vec<f32>,
    /// `[batch, channels, height, width]`.
    pub shape: [usize; 4],
}

impl Latents {
    /// Noise of unit variance, each image's from a seed of its own.
    #[must_use]
    pub fn noise(seeds: &[u64], channels: usize, height: usize, width: usize) -> Self {
        let count = channels * height * width;
        Self {
            values: seeds.iter().flat_map(|&seed| normal(seed, count)).collect(),
            shape: [seeds.len(), channels, height, width],
        }
    }

    /// Reads the tensor `latents` of a safetensors file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is damaged, or has no such tensor of rank 4 and floating-point type.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, DiffusionError> {
        Self::from_weights(&Weights::open(path)?, KEY)
    }

    /// Takes latents from an open file under another name.
    ///
    /// # Errors
    ///
    /// If there is no such tensor of rank 4 and floating-point type.
    pub fn from_weights(weights: &Weights, key: &str) -> Result<Self, DiffusionError> {
        let (values, shape) = weights.require(key)?;
        let shape: [usize; 4] =
            shape
                .try_into()
                .map_err(|shape: Vec<usize>| DiffusionError::Tensor {
                    path: weights.path().to_owned(),
                    key: key.to_owned(),
                    expected: "4 dimensions [batch, channels, height, width]".to_owned(),
                    found: format!("{shape:?}"),
                })?;
        Ok(Self { values, shape })
    }

    /// Writes a safetensors file with the tensor `latents` in `F32`; it appears whole or not at all.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), DiffusionError> {
        let path = path.as_ref();
        let damaged = |source| DiffusionError::Weights {
            path: path.to_owned(),
            source,
        };
        let bytes: Vec<u8> = self
            .values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let view = TensorView::new(Dtype::F32, self.shape.to_vec(), &bytes).map_err(damaged)?;
        let file = safetensors::serialize([(KEY, view)], None).map_err(damaged)?;
        Ok(selma_durable::atomic_write(path, &file)?)
    }

    /// The latents on a device.
    #[must_use]
    pub fn to_tensor(&self, device: &Device) -> Tensor<4> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape), device)
    }

    /// Latents from a device.
    ///
    /// # Errors
    ///
    /// If the device does not give its values.
    pub fn from_tensor(tensor: Tensor<4>) -> Result<Self, DiffusionError> {
        let shape = tensor.dims();
        Ok(Self {
            values: read(tensor)?,
            shape,
        })
    }

    /// The latents of `count` images from the one at `first` on, or of as many as there are.
    #[must_use]
    pub fn images(&self, first: usize, count: usize) -> Self {
        let [batch, channels, height, width] = self.shape;
        let (len, first) = (self.len_of_image(), first.min(batch));
        let count = count.min(batch - first);
        let values = self.values.iter().skip(first * len).take(count * len);
        Self {
            values: values.copied().collect(),
            shape: [count, channels, height, width],
        }
    }

    /// The latents of several batches as one.
    ///
    /// # Errors
    ///
    /// If they differ in channels, height or width.
    pub fn concat(batches: &[Self]) -> Result<Self, DiffusionError> {
        let [_, channels, height, width] = batches.first().map_or([0; 4], |first| first.shape);
        let mut all = Self {
            values: Vec::new(),
            shape: [0, channels, height, width],
        };
        for batch in batches {
            let [count, ..] = batch.shape;
            if batch.shape != [count, channels, height, width] {
                return Err(DiffusionError::Request {
                    what: "shape of a batch of latents",
                    expected: format!("{:?}", [count, channels, height, width]),
                    found: format!("{:?}", batch.shape),
                });
            }
            all.values.extend(&batch.values);
            all.shape[0] += count;
        }
        Ok(all)
    }

    /// Number of values of one image.
    #[must_use]
    pub fn len_of_image(&self) -> usize {
        let [_, channels, height, width] = self.shape;
        channels * height * width
    }
}
