//! BLIP-VQA (arXiv 2201.12086).

use std::path::Path;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use image::RgbImage;

use super::search::{Search, probabilities};
use crate::DiffusionError;
use crate::checkpoint::is_constant;
use crate::config::{ConfigError, read_json};
use crate::image::read;
use crate::models::{BlipConfig, BlipForQuestionAnswering, bert_name};
use crate::scorers::{Framing, ImageProcessor, require_processor};
use crate::tokenizer::BertTokenizer;
use crate::weights::{self, Weights, load, sha256_with};

/// The configuration of the network.
const CONFIG: &str = "config.json";
/// Where files keep a second copy of the word embeddings and the bias, or the only one.
const TIED: [(&str, &str); 2] = [
    (
        "text_decoder.bert.embeddings.word_embeddings.weight",
        "text_decoder.cls.predictions.decoder.weight",
    ),
    (
        "text_decoder.cls.predictions.bias",
        "text_decoder.cls.predictions.decoder.bias",
    ),
];

/// What BLIP says.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The answer.
    pub text: String,
    /// Its tokens: the one that answers begin with, and the end token if it was reached.
    pub tokens: Vec<u32>,
    /// How likely the answer was to begin with "yes" and with "no", among all tokens; none if they are no tokens.
    pub yes_no: Option<[f64; 2]>,
}

/// A BLIP that answers questions, such as `Salesforce/blip-vqa-base` or `Salesforce/blip-vqa-capfilt-large`.
#[derive(Debug)]
pub struct BlipVqa {
    model: BlipForQuestionAnswering,
    tokenizer: BertTokenizer,
    processor: ImageProcessor,
    /// The token that an answer begins with, and the one that ends it.
    ends: (u32, u32),
    search: Search,
    /// The longest answer that the network has positions for.
    longest: usize,
    device: Device,
}

impl BlipVqa {
    /// SHA-256 over what a folder has of the model: weights, configuration and tokenizer. Answers are the same as long as it is.
    ///
    /// # Errors
    ///
    /// If there are no weights, or a file cannot be read.
    pub fn sha256(folder: &Path) -> Result<String, DiffusionError> {
        let names = [CONFIG].into_iter().chain(BertTokenizer::FILES);
        let weights = weights::find(folder, None)?.files;
        sha256_with(&weights, folder, &names.collect::<Vec<_>>())
    }

    /// Loads a folder in the layout of transformers: `config.json`, weights, and a tokenizer of BERT (`tokenizer.json` or `vocab.txt`).
    ///
    /// # Errors
    ///
    /// If files are missing, damaged, do not fit each other, or the pictures are to be prepared in another way than BLIP's
    /// (`preprocessor_config.json`).
    pub fn load(folder: &Path, device: &Device) -> Result<Self, DiffusionError> {
        let path = folder.join(CONFIG);
        let config: BlipConfig = read_json(&path)?;
        let (text, size) = (&config.text_config, config.vision_config.image_size);
        require_processor(folder, size, Framing::Stretch)?;
        let model = config.init(device).map_err(|error| error.in_file(&path))?;
        let weights = Weights::open(weights::find(folder, None)?.path)?;
        let rename = |field: &str| {
            let name = bert_name(field);
            let tied = TIED.iter().find(|(own, _)| *own == name);
            match tied {
                Some((own, other)) if weights.shape(own).is_none() => (*other).to_owned(),
                _ => name,
            }
        };
        let second = |name: &str| TIED.iter().any(|(_, other)| *other == name);
        let extra = |name: &str| is_constant(name) || second(name);
        let model = load(model, &weights, FloatDType::F32, rename, extra)?;
        let tokenizer = BertTokenizer::load(folder)?;
        let least = tokenizer.id_bound();
        if text.vocab_size < least {
            let expected = format!("at least {least}, for the ids of the tokenizer beside it");
            let error = ConfigError::invalid("text_config.vocab_size", expected, text.vocab_size);
            return Err(error.in_file(&path).into());
        }
        let length = tokenizer.max_length().min(text.max_position_embeddings);
        Ok(Self {
            tokenizer: tokenizer.with_max_length(length)?,
            processor: ImageProcessor {
                size: u32::try_from(size).unwrap_or(u32::MAX),
                framing: Framing::Stretch,
            },
            ends: (text.bos_token_id, text.sep_token_id),
            search: Search {
                max_length: Search::default()
                    .max_length
                    .min(text.max_position_embeddings),
                ..Search::default()
            },
            longest: text.max_position_embeddings,
            model,
            device: device.clone(),
        })
    }

    /// Writes answers in another way.
    ///
    /// # Errors
    ///
    /// Those of [`Search::validate`], or if answers may be longer than the network has positions for.
    pub fn with_search(mut self, search: Search) -> Result<Self, DiffusionError> {
        search.validate()?;
        if search.max_length > self.longest {
            return Err(DiffusionError::Request {
                what: "length of an answer",
                expected: format!("at most {}", self.longest),
                found: search.max_length.to_string(),
            });
        }
        self.search = search;
        Ok(self)
    }

    /// How answers are written.
    #[must_use]
    pub fn search(&self) -> Search {
        self.search
    }

    /// Looks at a picture, once for all questions about it: `[1, 1 + patches, width]`.
    #[must_use]
    pub fn look(&self, image: &RgbImage) -> Tensor<3> {
        self.model
            .look(self.processor.prepare(&[image], &self.device))
    }

    /// Answers a question about what was looked at. What is too long of a question is cut off.
    ///
    /// # Errors
    ///
    /// If the question cannot be tokenized, or the device fails.
    pub fn answer(&self, seen: &Tensor<3>, question: &str) -> Result<Answer, DiffusionError> {
        let question = self.tokenizer.encode(question)?.ids;
        let question = self.model.read(self.ids(&[&question]), seen);
        let [_, length, width] = question.dims();
        let mut first = None;
        let (begin, end) = self.ends;
        let tokens = self.search.write(begin, end, |beams| {
            let asked = question.clone().expand([beams.len(), length, width]);
            let logits = self.model.text_decoder.next(self.ids(beams), &asked);
            let [_, vocabulary] = logits.dims();
            let values = read(logits)?;
            let rows: Vec<Vec<f32>> = values.chunks(vocabulary).map(<[f32]>::to_vec).collect();
            if first.is_none() {
                first = rows.first().cloned();
            }
            Ok(rows)
        })?;
        let words = self.tokenizer.id("yes").zip(self.tokenizer.id("no"));
        let yes_no = words.zip(first);
        let said: Vec<u32> = tokens.iter().copied().skip(1).collect();
        let said = said.strip_suffix(&[end]).unwrap_or(&said);
        Ok(Answer {
            text: self.tokenizer.decode(said)?,
            yes_no: yes_no.and_then(|((yes, no), logits)| probabilities(&logits, [yes, no])),
            tokens,
        })
    }

    /// Texts of one length.
    fn ids(&self, texts: &[&[u32]]) -> Tensor<2, Int> {
        let length = texts.first().map_or(0, |ids| ids.len());
        let ids: Vec<i32> = texts.concat().iter().map(|&id| id as i32).collect();
        Tensor::from_data(TensorData::new(ids, [texts.len(), length]), &self.device)
    }
}
