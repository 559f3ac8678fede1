//! The one thing that is asked of a model of sentences.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::EvalError;

/// Texts that are embedded between two words to the observer.
const TOGETHER: usize = 1024;

/// A model that turns sentences into vectors whose angles say how alike they are.
pub trait Embedder: Send + Sync {
    /// Name and weights, recorded in every result that the model has a part in.
    fn id(&self) -> EmbedderId;

    /// Embeds texts together: one vector each, in their order, all of one width and of length 1, so that a product is a cosine.
    ///
    /// # Errors
    /// [`EvalError::Embedder`] when the model could not be asked.
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f64>>, EvalError>;
}

/// What tells an [`Embedder`] from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedderId {
    /// Its name.
    pub name: String,
    /// SHA-256 of its weights, in hexadecimal digits.
    pub sha256: String,
}

/// The vectors of different texts, each of which was embedded once.
pub(crate) struct Embedded<'a> {
    /// Sorted.
    texts: Vec<&'a str>,
    vectors: Vec<Vec<f64>>,
}

impl<'a> Embedded<'a> {
    /// Embeds each different text once. The observer is told before and after how many of how many are done, unless there are none.
    pub(crate) fn new(
        embedder: &dyn Embedder,
        texts: BTreeSet<&'a str>,
        mut observer: impl FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Self, EvalError> {
        let texts: Vec<&str> = texts.into_iter().collect();
        let total = texts.len();
        let mut vectors: Vec<Vec<f64>> = Vec::with_capacity(total);
        let mut tell = |done| match observer(done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled { done, total }),
        };
        for together in texts.chunks(TOGETHER) {
            tell(vectors.len())?;
            let given = embedder.embed(together)?;
            check(embedder, vectors.first(), together.len(), &given)?;
            vectors.extend(given);
        }
        if total > 0 {
            tell(total)?;
        }
        Ok(Self { texts, vectors })
    }

    /// Which of some texts is the nearest to a text, by the cosine; of equals the first. `None` for texts that were not embedded.
    pub(crate) fn nearest(&self, text: &str, among: &[String]) -> Option<usize> {
        let text = self.vector(text)?;
        let cosine = |other: &String| -> Option<f64> {
            Some(
                text.iter()
                    .zip(self.vector(other)?)
                    .map(|(a, b)| a * b)
                    .sum(),
            )
        };
        let cosines: Vec<f64> = among.iter().map(cosine).collect::<Option<_>>()?;
        let best = cosines.into_iter().enumerate();
        let best = best.reduce(|best, next| if next.1 > best.1 { next } else { best });
        best.map(|(index, _)| index)
    }

    fn vector(&self, text: &str) -> Option<&[f64]> {
        let index = self.texts.binary_search(&text).ok()?;
        self.vectors.get(index).map(Vec::as_slice)
    }
}

/// Sees that there is a vector for each text, all of one width and of finite numbers.
fn check(
    embedder: &dyn Embedder,
    first: Option<&Vec<f64>>,
    texts: usize,
    given: &[Vec<f64>],
) -> Result<(), EvalError> {
    let width = first.or(given.first()).map_or(0, Vec::len);
    let fits =
        |vector: &Vec<f64>| vector.len() == width && vector.iter().all(|number| number.is_finite());
    let found = match given.iter().find(|vector| !fits(vector)) {
        None if given.len() == texts && width > 0 => return Ok(()),
        None => format!("{} of {width}", given.len()),
        Some(vector) if vector.len() == width => "numbers that are not finite".to_owned(),
        Some(vector) => format!("one of {} among those of {width}", vector.len()),
    };
    Err(EvalError::Embeddings {
        embedder: embedder.id().name,
        texts,
        found,
    })
}
