//! Sentence encoders of selma-diffusion, as selma-eval asks for one.

use selma_diffusion::sentences::SentenceEncoder;
use selma_eval::{Embedder, EmbedderId, EvalError};

/// A [`SentenceEncoder`] by the name that stands in results.
#[derive(Debug)]
pub struct NamedEmbedder {
    /// The name.
    pub name: String,
    /// The model.
    pub model: SentenceEncoder,
}

impl Embedder for NamedEmbedder {
    fn id(&self) -> EmbedderId {
        EmbedderId {
            name: self.name.clone(),
            sha256: self.model.sha256().to_owned(),
        }
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, EvalError> {
        let embedded = self.model.embed(texts);
        embedded.map_err(|source| EvalError::Embedder {
            embedder: self.name.clone(),
            source: Box::new(source),
        })
    }
}
