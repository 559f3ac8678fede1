//! What the UNet is conditioned on when it draws.

use super::{MicroConditioning, StableDiffusion, TextEmbeddings, Truncated};
use crate::DiffusionError;
use crate::models::{AddedConditioning, Conditioning, TimeIds};

/// The texts and sizes of a batch of pictures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions<'a> {
    /// One a picture.
    pub(super) prompts: &'a [&'a str],
    /// One a picture, where there is guidance.
    pub(super) negative_prompts: Option<&'a [Option<&'a str>]>,
    /// Layers of the text encoders to skip.
    pub(super) clip_skip: Option<usize>,
    /// Height and width of the pictures.
    pub(super) size: [usize; 2],
    /// What SDXL is told of sizes.
    pub(super) micro: &'a MicroConditioning,
    /// Whether the run starts from a picture.
    pub(super) from_image: bool,
}

impl StableDiffusion {
    /// The conditions for all pictures, those of the negative prompts first where there are any; and the texts that were
    /// cut.
    pub(super) fn conditioning(
        &self,
        conditions: &Conditions<'_>,
    ) -> Result<(Conditioning, Vec<Truncated>), DiffusionError> {
        let [height, width] = conditions.size;
        let micro = conditions.micro;
        if self.text_encoder_2.is_none() && !micro.is_default() {
            return Err(DiffusionError::Request {
                what: "micro-conditioning",
                expected: "none, for the model is not SDXL".to_owned(),
                found: format!("{micro:?}"),
            });
        }
        let (texts, places) = distinct(conditions.prompts);
        let with = self
            .encode_texts(&texts, conditions.clip_skip)?
            .select(&places);
        let mut truncated = with.truncated.clone();
        let with = added(with, micro.time_ids(height, width));
        let Some(negative_prompts) = conditions.negative_prompts else {
            return Ok((with, truncated));
        };
        let (texts, places) = distinct(negative_prompts);
        let without = self.encode_negative_texts(&texts)?.select(&places);
        truncated.extend(without.truncated.iter().cloned());
        let time_ids = match conditions.from_image {
            true => micro.negative_time_ids_from_image(height, width),
            false => micro.negative_time_ids(height, width),
        };
        let without = added(without, time_ids);
        Ok((without.followed_by(with), truncated))
    }
}

/// The embeddings with the time ids of all of them, where there is a pooled output.
fn added(embeddings: TextEmbeddings, time_ids: TimeIds) -> Conditioning {
    let [count, _, _] = embeddings.context.dims();
    Conditioning {
        context: embeddings.context,
        added: embeddings.pooled.map(|text_embeds| AddedConditioning {
            text_embeds,
            time_ids: vec![time_ids; count],
        }),
    }
}

/// Every different text once, and the place of each text among them.
fn distinct<T: PartialEq + Copy>(texts: &[T]) -> (Vec<T>, Vec<usize>) {
    let mut different: Vec<T> = Vec::new();
    let places = texts.iter().map(|text| {
        let place = different.iter().position(|other| other == text);
        place.unwrap_or_else(|| {
            different.push(*text);
            different.len() - 1
        })
    });
    let places = places.collect();
    (different, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_texts_are_encoded_once() {
        let (texts, places) = distinct(&["b", "a", "b", "a", "c"]);
        assert_eq!(texts, ["b", "a", "c"]);
        assert_eq!(places, [0, 1, 0, 1, 2]);
    }
}
