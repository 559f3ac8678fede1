//! VQAScore: how likely a model is to say that a picture shows its prompt.
//!
//! Lin et al., "Evaluating Text-to-Visual Generation with Image-to-Text Generation", ECCV 2024 (arXiv 2404.01291);
//! reference code `linzhiqiu/t2v_metrics`.

use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

use image::RgbImage;
use selma_durable::write_json;
use serde::{Deserialize, Serialize};

use crate::{
    EvalError, ImageSource, Reply, Vqa, YesProbability,
    evaluate::replies,
    files,
    parallel::in_parallel,
    rating::StudyPrompt,
    stats::{Bootstrap, Cluster, Estimate},
};

/// VQAScore of one image model by one VQA model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaScoreResult {
    /// The image model.
    pub model: String,
    /// The VQA model.
    pub vqa: String,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// Prompts asked about.
    pub prompts: usize,
    /// Those of them for which the model told no probability; they are in no mean.
    pub unscored: usize,
    /// Mean over prompts of P(yes) / (P(yes) + P(no)), between 0 and 1.
    pub overall: Estimate,
    /// Mean of P(yes) + P(no).
    pub coverage: f64,
    /// The score by category or skill, of the prompts that have one.
    pub by_category: BTreeMap<String, Estimate>,
    /// Every prompt, in the given order.
    pub items: Vec<VqaScoreItem>,
}

/// The score of one prompt's picture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqaScoreItem {
    /// The prompt's id.
    pub item_id: String,
    /// The prompt.
    pub text: String,
    /// Its category or skill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// How likely "yes" was; `None` where the model did not tell.
    pub yes: Option<YesProbability>,
    /// The model's own words; `None` when it gave none.
    pub answer: Option<String>,
    /// Why there is no answer, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What an observer is told after each prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VqaScoreProgress {
    /// Prompts asked about so far.
    pub done: usize,
    /// All prompts.
    pub total: usize,
    /// Those without a probability so far.
    pub unscored: usize,
}

/// Asks `vqa` of each prompt how likely its picture shows it. The model is given the prompt alone as a question and must tell probabilities:
/// a `ChatVqa` with `ChatPrompt::Figure` (feature `llm`).
///
/// The reference takes P(yes) as it is; here it is divided by P(yes) + P(no), so that models that like to say something
/// else are not punished for it, and the sum is told. Multiplied by it, the reference's number comes back.
///
/// # Errors
/// Those of [`crate::ask`]; [`EvalError::Empty`] without prompts, or when the model told no probability at all.
pub fn vqa_score(
    model: &str,
    prompts: &[StudyPrompt],
    images: &impl ImageSource,
    vqa: &dyn Vqa,
    bootstrap: &Bootstrap,
    mut observer: impl FnMut(VqaScoreProgress) -> ControlFlow<()>,
) -> Result<VqaScoreResult, EvalError> {
    bootstrap.validate()?;
    if prompts.is_empty() {
        return Err(EvalError::Empty { what: "prompts" });
    }
    for prompt in prompts {
        images.check(&prompt.id)?;
    }
    let mut told: BTreeMap<usize, Reply> = BTreeMap::new();
    let mut progress = VqaScoreProgress {
        done: 0,
        total: prompts.len(),
        unscored: 0,
    };
    let tasks = prompts.iter().enumerate();
    let tasks = tasks.map(|(index, prompt)| Ok((index, prompt, images.load(&prompt.id)?)));
    let work = |(index, prompt, image): (usize, &StudyPrompt, RgbImage)| {
        (index, replies(vqa, &prompt.id, &image, &[&prompt.text]))
    };
    in_parallel(vqa.jobs(), tasks, work, |(index, given)| {
        let reply = given?.pop().unwrap_or_default();
        progress.done += 1;
        progress.unscored += usize::from(reply.yes.is_none());
        told.insert(index, reply);
        match observer(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled {
                done: progress.done,
                total: progress.total,
            }),
        }
    })?;
    let items = prompts.iter().zip(told.into_values());
    let items = items.map(|(prompt, reply)| VqaScoreItem {
        item_id: prompt.id.clone(),
        text: prompt.text.clone(),
        category: prompt.category.clone(),
        yes: reply.yes,
        answer: reply.is_answered().then_some(reply.text),
        failure: reply.failure,
    });
    summarise(model, vqa.name(), bootstrap, items.collect())
}

fn summarise(
    model: &str,
    vqa: &str,
    bootstrap: &Bootstrap,
    items: Vec<VqaScoreItem>,
) -> Result<VqaScoreResult, EvalError> {
    let mut all = Vec::new();
    let mut coverage = 0.0;
    let mut by_category: BTreeMap<&str, Vec<Cluster>> = BTreeMap::new();
    for item in &items {
        let Some(yes) = item.yes else {
            continue;
        };
        let cluster = Cluster {
            sum: yes.probability,
            count: 1,
        };
        coverage += yes.coverage;
        all.push(cluster);
        if let Some(category) = &item.category {
            by_category.entry(category).or_default().push(cluster);
        }
    }
    if all.is_empty() {
        return Err(EvalError::Empty {
            what: "probabilities, which the judge does not tell",
        });
    }
    let by_category = by_category
        .into_iter()
        .map(|(name, clusters)| Ok((name.to_owned(), bootstrap.estimate(&clusters)?)))
        .collect::<Result<_, EvalError>>()?;
    Ok(VqaScoreResult {
        model: model.to_owned(),
        vqa: vqa.to_owned(),
        bootstrap: *bootstrap,
        prompts: items.len(),
        unscored: items.len() - all.len(),
        overall: bootstrap.estimate(&all)?,
        coverage: coverage / all.len() as f64,
        by_category,
        items,
    })
}

impl VqaScoreResult {
    /// Writes the result as indented JSON, in full or not at all.
    ///
    /// # Errors
    /// [`EvalError::Durable`] when the file cannot be written; the old one is then untouched.
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        Ok(write_json(path, self)?)
    }

    /// Reads a result that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// [`EvalError::Io`]; [`EvalError::Json`] for a torn file, a missing or an unknown key.
    pub fn load(path: &Path) -> Result<Self, EvalError> {
        files::read_result(path)
    }
}
