//! What the denoising network is conditioned on, besides the timestep.

use std::ops::Range;

use burn::tensor::{Device, FloatDType, Tensor};

/// What the samples of a batch are conditioned on.
#[derive(Debug, Clone)]
pub struct Conditioning {
    /// The texts' embeddings: `[batch, text length, cross_attention_dim]`.
    pub context: Tensor<3>,
    /// What SDXL adds to the timestep.
    pub added: Option<AddedConditioning>,
}

/// The added conditions of SDXL (arXiv 2307.01952, section 2.2): `added_cond_kwargs` of diffusers.
#[derive(Debug, Clone)]
pub struct AddedConditioning {
    /// Pooled texts: `[batch, projection_dim]`.
    pub text_embeds: Tensor<2>,
    /// One for each sample.
    pub time_ids: Vec<TimeIds>,
}

/// Sizes in pixels, height first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimeIds {
    /// Height and width of the picture before it was scaled for the training.
    pub original_size: [usize; 2],
    /// Rows above and columns left of the part that was cut out of it.
    pub crops_coords_top_left: [usize; 2],
    /// Height and width of the picture.
    pub target_size: [usize; 2],
}

impl TimeIds {
    /// How many numbers they are.
    pub const COUNT: usize = 6;

    /// Of a picture that was neither scaled nor cropped.
    #[must_use]
    pub fn of_size(height: usize, width: usize) -> Self {
        Self {
            original_size: [height, width],
            crops_coords_top_left: [0, 0],
            target_size: [height, width],
        }
    }

    /// In the order in which the network takes them.
    #[must_use]
    pub fn values(&self) -> [f64; Self::COUNT] {
        let [
            [original_height, original_width],
            [top, left],
            [height, width],
        ] = [
            self.original_size,
            self.crops_coords_top_left,
            self.target_size,
        ];
        [original_height, original_width, top, left, height, width].map(|size| size as f64)
    }
}

/// In the order of [`values`](TimeIds::values).
impl From<[u32; 6]> for TimeIds {
    fn from([original_height, original_width, top, left, height, width]: [u32; 6]) -> Self {
        Self {
            original_size: [original_height as usize, original_width as usize],
            crops_coords_top_left: [top as usize, left as usize],
            target_size: [height as usize, width as usize],
        }
    }
}

impl From<Tensor<3>> for Conditioning {
    /// Without added conditions.
    fn from(context: Tensor<3>) -> Self {
        Self {
            context,
            added: None,
        }
    }
}

impl Conditioning {
    /// The conditions of these samples and of more, which come behind them. Added ones are kept where both have some.
    #[must_use]
    pub fn followed_by(self, more: Self) -> Self {
        let added = self.added.zip(more.added);
        Self {
            context: Tensor::cat(vec![self.context, more.context], 0),
            added: added.map(|(these, more)| AddedConditioning {
                text_embeds: Tensor::cat(vec![these.text_embeds, more.text_embeds], 0),
                time_ids: [these.time_ids, more.time_ids].concat(),
            }),
        }
    }

    /// The conditions as numbers of another type.
    #[must_use]
    pub fn cast(self, dtype: FloatDType) -> Self {
        Self {
            context: self.context.cast(dtype),
            added: self.added.map(|added| AddedConditioning {
                text_embeds: added.text_embeds.cast(dtype),
                ..added
            }),
        }
    }

    /// The conditions on another device.
    #[must_use]
    pub fn to_device(self, device: &Device) -> Self {
        Self {
            context: self.context.to_device(device),
            added: self.added.map(|added| AddedConditioning {
                text_embeds: added.text_embeds.to_device(device),
                ..added
            }),
        }
    }

    /// The conditions of the samples of a range.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self {
            context: self.context.clone().slice(range.clone()),
            added: self.added.as_ref().map(|added| AddedConditioning {
                text_embeds: added.text_embeds.clone().slice(range.clone()),
                time_ids: added
                    .time_ids
                    .iter()
                    .copied()
                    .skip(range.start)
                    .take(range.len())
                    .collect(),
            }),
        }
    }
}
