//! The report of a run: one table in four forms, and a page to look at.
//!
//! [`Report`] is plain data, so that it can be made from a run's folder or from anything else that has been measured.
//! Its outputs depend on nothing but this data: the same report gives the same bytes.
//!
//! | output | for |
//! |---|---|
//! | [`Report::table`] | the terminal at the end of a run |
//! | [`Report::html`] | people: table, charts, pictures with questions and answers, in one file without network |
//! | [`Report::markdown`] | notes and pull requests |
//! | [`Report::csv`] | further computation, one row for each number |
//!
//! [`SeedTable`] sets several runs of one recipe side by side.

mod chart;
mod charts;
mod comparison;
mod csv;
mod curve;
mod distribution;
mod escape;
mod evaluation;
mod funnel;
mod html;
mod markdown;
mod measured;
mod merge;
mod metric;
mod metrics;
mod number;
mod people;
mod pictures;
mod plane;
mod rounds;
mod sections;
mod seeds;
mod table;
mod thumbnail;
mod training;

use std::{collections::BTreeMap, path::Path};

use selma_durable::{DurableError, atomic_write, create_folder};
use selma_eval::{Estimate, Paired};

pub use comparison::Comparison;
pub use evaluation::{EvaluatedItem, Evaluation};
pub use funnel::{FunnelRow, SelectionRow};
pub(crate) use measured::metrics_of;
pub use merge::{MergeRow, MergedLayer};
pub use metric::{Metric, MetricRow, Unit};
pub use people::HumanRating;
pub use rounds::{RoundRow, RoundTable};
pub use seeds::{SeedRow, SeedTable};
pub use training::{TrainingCurve, TrainingStep};

/// What was measured, and on what.
///
/// Every list may be empty; its part of the report is then left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Heading of the page.
    pub title: String,
    /// A paragraph of plain text below the heading.
    pub summary: String,
    /// Share of resamples inside every interval of this report, between 0 and 1; 0.95.
    pub confidence: f64,
    /// The models in the order of the table. The first [`ModelKind::Base`] is what the charts refer to, the first
    /// [`ModelKind::Merged`] the model that the headline speaks of.
    pub models: Vec<ModelRow>,
    /// What the models were measured by. With several metrics there is a table of all of them; each has its distribution over
    /// prompts.
    pub metrics: Vec<Metric>,
    /// What people preferred, study by study.
    pub ratings: Vec<HumanRating>,
    /// Prompts with the pictures that the models drew from them.
    pub samples: Vec<SampleRow>,
    /// What became of the language model's answers, by skill.
    pub funnel: Vec<FunnelRow>,
    /// What trainings chose of the pictures that were drawn.
    pub selected: Vec<SelectionRow>,
    /// How each model's score depends on the guidance.
    pub curves: Vec<GuidanceCurve>,
    /// How the loss of each training went.
    pub training: Vec<TrainingCurve>,
    /// What each merge did.
    pub merges: Vec<MergeRow>,
    /// Name and value of each setting: recipe, seeds.
    pub settings: Vec<(String, String)>,
    /// What was read or made, and its SHA-256.
    pub hashes: Vec<(String, String)>,
    /// Remarks that a reader of the figures should know, one paragraph of plain text each.
    pub notes: Vec<String>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            title: String::new(),
            summary: String::new(),
            confidence: 0.95,
            models: Vec::new(),
            metrics: Vec::new(),
            ratings: Vec::new(),
            samples: Vec::new(),
            funnel: Vec::new(),
            selected: Vec::new(),
            curves: Vec::new(),
            training: Vec::new(),
            merges: Vec::new(),
            settings: Vec::new(),
            hashes: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// The part that a model plays in a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModelKind {
    /// The model that everything starts from.
    Base,
    /// One LoRA, trained on the data of one skill.
    Expert,
    /// One LoRA, trained on the data of all skills.
    Union,
    /// Several experts in one model.
    Merged,
    /// Anything else, for example a LoRA on data that was filtered by another method.
    Other,
}

/// Scores of one model. All of them are shares between 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelRow {
    /// Unique name.
    pub name: String,
    /// The part that it plays.
    pub kind: ModelKind,
    /// The guidance at which it was measured; not a number where that is not known.
    pub guidance: f64,
    /// Score over all questions.
    pub overall: Estimate,
    /// Score by the prompt's skill.
    pub by_skill: BTreeMap<String, Estimate>,
    /// Score by the question's category.
    pub by_category: BTreeMap<String, Estimate>,
    /// This model's overall score minus the base's, paired by prompt; `None` for the base itself.
    pub difference_to_base: Option<Paired>,
}

/// A prompt and what was drawn from it.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// Id of the prompt.
    pub id: String,
    /// Skill that the prompt belongs to.
    pub skill: String,
    /// The prompt.
    pub prompt: String,
    /// The pictures, in any order; several of one model stand in one cell.
    pub images: Vec<SampleImage>,
}

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleImage {
    /// [`ModelRow::name`] of the model that drew it.
    pub model: String,
    /// The picture as a PNG file. The page shows "not readable" in place of one that cannot be decoded.
    pub png: Vec<u8>,
    /// Share of questions answered as the prompt demands, between 0 and 1; not a number without questions.
    pub score: f64,
    /// The questions with their answers.
    pub answers: Vec<Answer>,
}

/// A question about a picture and what the judge said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub question: String,
    /// What it is about: "color", "spatial", …; may be empty.
    pub category: String,
    /// The judge's own words; `None` without an answer.
    pub answer: Option<String>,
    /// Whether it counts as right.
    pub ok: bool,
}

/// Score of one model by guidance.
#[derive(Clone, Debug, PartialEq)]
pub struct GuidanceCurve {
    /// [`ModelRow::name`] of the model.
    pub model: String,
    /// Guidance and score, in any order.
    pub points: Vec<(f64, Estimate)>,
    /// The guidance chosen for this model, if a choice was made.
    pub chosen: Option<f64>,
}

impl ModelKind {
    /// One word for a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Expert => "expert",
            Self::Union => "union",
            Self::Merged => "merged",
            Self::Other => "other",
        }
    }
}

impl Report {
    /// The table as plain text with aligned columns and a line feed at the end: for each model its guidance, its
    /// score overall and by category, then by skill, each with its interval below. `*` marks the best of a column.
    pub fn table(&self) -> String {
        table::plain(self)
    }

    /// The page: one HTML file with styles, script, charts and pictures inside, which asks no network for anything.
    ///
    /// Pictures are made small enough for about 20 MB in all. Text from prompts, models and settings is escaped.
    pub fn html(&self) -> String {
        html::page(self)
    }

    /// Summary, table and the rest of the figures, without pictures, in GitHub's Markdown.
    pub fn markdown(&self) -> String {
        markdown::document(self)
    }

    /// The figures with all their digits, one row for each model and score, after one row of names.
    pub fn csv(&self) -> String {
        csv::document(self)
    }

    /// Writes `index.html`, `report.md` and `report.csv` into a folder, which is made if need be. Each file is
    /// replaced in full or not at all.
    ///
    /// # Errors
    /// [`DurableError::Io`] with the path that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), DurableError> {
        create_folder(folder)?;
        let write = |name, text: String| atomic_write(&folder.join(name), text.as_bytes());
        write("report.csv", self.csv())?;
        write("report.md", self.markdown())?;
        write("index.html", self.html())
    }

    fn base(&self) -> Option<&ModelRow> {
        self.first(ModelKind::Base)
    }

    fn merged(&self) -> Option<&ModelRow> {
        self.first(ModelKind::Merged)
    }

    fn first(&self, kind: ModelKind) -> Option<&ModelRow> {
        self.models.iter().find(|model| model.kind == kind)
    }

    /// The kind of a model by name; [`ModelKind::Other`] for one that is not in the table.
    fn kind_of(&self, name: &str) -> ModelKind {
        let mut models = metrics::models(self).into_iter();
        let model = models.find(|(model, _)| *model == name);
        model.map_or(ModelKind::Other, |(_, kind)| kind)
    }
}
