//! BLIP of selma-diffusion, as selma-eval asks a judge.

use std::num::NonZeroUsize;
use std::path::Path;

use burn::tensor::Device;
use image::RgbImage;
use selma_diffusion::DiffusionError;
use selma_diffusion::vqa::{BlipVqa, Search};
use selma_eval::{ChatPrompt, EvalError, Reply, Told, Vqa, YesProbability, texts_of_replies};

use crate::SelmaError;

/// What a question becomes before it is asked.
pub type Phrase = fn(&str) -> String;

/// A [`BlipVqa`] by the name that stands in results.
#[derive(Debug)]
pub struct NamedVqa {
    /// The name.
    pub name: String,
    /// The model.
    pub model: BlipVqa,
    /// What is asked for a question; `str::to_owned` asks the question itself.
    pub phrase: Phrase,
}

/// Characters of a model's hash in its name.
const HASH: usize = 16;

impl NamedVqa {
    /// Loads a BLIP of a folder that follows so many beginnings of an answer. For figures it is asked what a model that chats is asked, and else the plain
    /// question. Its name is that of what it is made of ([`BlipVqa::sha256`]), wherever it lies.
    ///
    /// # Errors
    ///
    /// Those of [`BlipVqa::sha256`], [`BlipVqa::load`] and [`BlipVqa::with_search`].
    pub fn blip(
        folder: &Path,
        beams: NonZeroUsize,
        prompt: ChatPrompt,
        device: &Device,
    ) -> Result<Self, SelmaError> {
        let model = BlipVqa::load(folder, device)?;
        Self::with_hash(model, &BlipVqa::sha256(folder)?, beams, prompt)
    }

    /// The same of a loaded one, with the hash that it is known to have.
    pub(crate) fn with_hash(
        model: BlipVqa,
        sha256: &str,
        beams: NonZeroUsize,
        prompt: ChatPrompt,
    ) -> Result<Self, SelmaError> {
        let hash: String = sha256.chars().take(HASH).collect();
        let search = Search {
            beams: beams.get(),
            ..model.search()
        };
        Ok(Self {
            name: format!("blip:{hash}"),
            model: model.with_search(search)?,
            phrase: match prompt {
                ChatPrompt::Figure => |text| ChatPrompt::Figure.text(text),
                ChatPrompt::YesNo | ChatPrompt::Plain => str::to_owned,
            },
        })
    }

    fn failed(&self, error: &DiffusionError) -> EvalError {
        EvalError::Vqa {
            model: self.name.clone(),
            message: error.to_string(),
        }
    }
}

impl Vqa for NamedVqa {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        texts_of_replies(self, image, questions)
    }

    fn replies(
        &self,
        image: &RgbImage,
        questions: &[&str],
        told: &mut Told<'_>,
    ) -> Result<(), EvalError> {
        let seen = self.model.look(image);
        for question in questions {
            let answer = self.model.answer(&seen, &(self.phrase)(question));
            let answer = answer.map_err(|error| self.failed(&error))?;
            let yes = answer.yes_no.and_then(|[yes, no]| {
                let coverage = yes + no;
                (coverage > 0.0).then(|| YesProbability {
                    probability: yes / coverage,
                    coverage: coverage.min(1.0),
                })
            });
            told(Reply {
                text: answer.text,
                yes,
                failure: None,
            })?;
        }
        Ok(())
    }

    fn settings(&self) -> String {
        let search = self.model.search();
        let phrase = (self.phrase)("");
        format!(
            "beams {}, at most {} tokens, asked as {phrase:?}",
            search.beams, search.max_length
        )
    }
}
