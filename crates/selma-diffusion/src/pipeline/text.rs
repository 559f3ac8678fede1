//! From texts to embeddings.

use burn::tensor::{Device, Int, Tensor, TensorData};
use selma_lora::nn::{LoraLayerMut, LoraLayers};

use super::StableDiffusion;
use super::request::refuse;
use crate::DiffusionError;
use crate::models::{ClipTextConfig, ClipTextModel, ClipTextOutput};
use crate::tokenizer::{ClipTokenizer, Encoded};

/// A tokenizer and the network that was trained with it.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    /// From text to token ids.
    pub tokenizer: ClipTokenizer,
    /// Configuration of the network.
    pub config: ClipTextConfig,
    /// From token ids to hidden states.
    pub model: ClipTextModel,
}

/// Texts as the UNet takes them.
#[derive(Debug, Clone)]
pub struct TextEmbeddings {
    /// `[texts, max length, cross_attention_dim]`.
    pub context: Tensor<3>,
    /// The pooled output of the second text encoder (SDXL): `[texts, projection_dim]`.
    pub pooled: Option<Tensor<2>>,
    /// Texts that were longer than a text encoder takes.
    pub truncated: Vec<Truncated>,
}

/// A text whose end was cut off, because it is longer than a text encoder takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated {
    /// The whole text.
    pub text: String,
    /// The part of it that was cut off.
    pub cut: String,
    /// Tokens in that part.
    pub dropped: usize,
}

impl StableDiffusion {
    /// Encodes texts for the UNet.
    ///
    /// The embedding is the last hidden state after the final normalisation; in SDXL it is the last but one of both text
    /// encoders, side by side and not normalised. `clip_skip` counts layers back from there, as in diffusers. The pooled
    /// output does not depend on it.
    ///
    /// # Errors
    ///
    /// If there is no text, a text cannot be tokenized, the tokenizers of SDXL differ in length, or a text encoder has
    /// fewer layers than are to be skipped.
    pub fn encode_texts(
        &self,
        texts: &[&str],
        clip_skip: Option<usize>,
    ) -> Result<TextEmbeddings, DiffusionError> {
        if texts.is_empty() {
            return Err(refuse("texts to encode", "at least one", "none"));
        }
        let device = self.device();
        let skip = clip_skip.unwrap_or_default();
        let first_ids = self.text_encoder.tokenize(texts)?;
        let first = self.text_encoder.run(&first_ids, device);
        let Some(encoder) = &self.text_encoder_2 else {
            let context = match clip_skip {
                None => first.last_hidden_state,
                Some(_) => {
                    let norm = &self.text_encoder.model.text_model.final_layer_norm;
                    norm.forward(hidden_state(&first, skip, 0)?)
                }
            };
            return Ok(TextEmbeddings {
                context,
                pooled: None,
                truncated: truncated(texts, &[&first_ids]),
            });
        };
        let second_ids = encoder.tokenize(texts)?;
        let second = encoder.run(&second_ids, device);
        let (left, right) = (
            hidden_state(&first, skip, 1)?,
            hidden_state(&second, skip, 1)?,
        );
        let (length, found) = (left.dims()[1], right.dims()[1]);
        if length != found {
            let expected = format!("{length}, that of the first");
            return Err(refuse("text length of tokenizer_2", expected, found));
        }
        Ok(TextEmbeddings {
            context: Tensor::cat(vec![left, right], 2),
            pooled: Some(second.pooled),
            truncated: truncated(texts, &[&first_ids, &second_ids]),
        })
    }

    /// Encodes negative prompts, for classifier-free guidance.
    ///
    /// Where there is none, zeros stand for it in SDXL (if `model_index.json` does not say otherwise), and the empty text
    /// elsewhere. There is no `clip_skip`: as in diffusers, it does not apply to negative prompts.
    ///
    /// # Errors
    ///
    /// Those of [`encode_texts`](Self::encode_texts).
    pub fn encode_negative_texts(
        &self,
        texts: &[Option<&str>],
    ) -> Result<TextEmbeddings, DiffusionError> {
        let given: Vec<&str> = texts.iter().map(|text| text.unwrap_or_default()).collect();
        let embeddings = self.encode_texts(&given, None)?;
        if !self.force_zeros_for_empty_prompt || !texts.contains(&None) {
            return Ok(embeddings);
        }
        let count = texts.len();
        let absent: Vec<bool> = texts.iter().map(Option::is_none).collect();
        let absent = Tensor::<1, Int>::from_data(
            TensorData::new(
                absent.iter().map(|&absent| i32::from(absent)).collect(),
                [count],
            ),
            self.device(),
        )
        .bool();
        let TextEmbeddings {
            context,
            pooled,
            truncated,
        } = embeddings;
        let mask = absent.clone().reshape([count, 1, 1]).expand(context.dims());
        Ok(TextEmbeddings {
            context: context.mask_fill(mask, 0.0),
            pooled: pooled.map(|pooled| {
                let mask = absent.reshape([count, 1]).expand(pooled.dims());
                pooled.mask_fill(mask, 0.0)
            }),
            truncated,
        })
    }
}

impl TextEmbeddings {
    /// The embeddings at these places, which may repeat.
    #[must_use]
    pub fn select(self, places: &[usize]) -> Self {
        let places: Vec<i32> = places.iter().map(|&place| place as i32).collect();
        let count = places.len();
        let places =
            Tensor::<1, Int>::from_data(TensorData::new(places, [count]), &self.context.device());
        Self {
            context: self.context.select(0, places.clone()),
            pooled: self.pooled.map(|pooled| pooled.select(0, places)),
            truncated: self.truncated,
        }
    }
}

impl LoraLayers for TextEncoder {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        self.model.push_layers(path, layers);
    }
}

impl TextEncoder {
    fn tokenize(&self, texts: &[&str]) -> Result<Vec<Encoded>, DiffusionError> {
        let encoded = texts.iter().map(|text| self.tokenizer.encode(text));
        Ok(encoded.collect::<Result<_, _>>()?)
    }

    fn run(&self, encoded: &[Encoded], device: &Device) -> ClipTextOutput {
        let ids = encoded.iter().flat_map(|encoded| &encoded.ids);
        let ids: Vec<i32> = ids.map(|&id| id as i32).collect();
        let shape = [encoded.len(), self.tokenizer.max_length()];
        self.model
            .forward(Tensor::from_data(TensorData::new(ids, shape), device))
    }
}

/// The hidden state `skip` layers before the one that is used without a skip, which is `usual` layers before the last.
fn hidden_state(
    output: &ClipTextOutput,
    skip: usize,
    usual: usize,
) -> Result<Tensor<3>, DiffusionError> {
    let states = &output.hidden_states;
    let most = states.len().saturating_sub(1 + usual);
    let state = most.checked_sub(skip).and_then(|index| states.get(index));
    state
        .cloned()
        .ok_or_else(|| refuse("clip_skip", format!("at most {most}"), skip))
}

/// The texts that were cut; of several text encoders, by the one that saw the least.
fn truncated(texts: &[&str], encodings: &[&[Encoded]]) -> Vec<Truncated> {
    let report = |(index, text): (usize, &&str)| {
        let of_text = encodings.iter().filter_map(|encoded| encoded.get(index));
        let worst = of_text.max_by_key(|encoded| encoded.dropped)?;
        (worst.dropped > 0).then(|| Truncated {
            text: (*text).to_owned(),
            cut: worst.cut.clone(),
            dropped: worst.dropped,
        })
    };
    texts.iter().enumerate().filter_map(report).collect()
}
