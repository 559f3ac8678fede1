use std::{
    error::Error as StdError,
    fmt, io,
    path::{Path, PathBuf},
};

use selma_dataset::DatasetError;
use selma_durable::DurableError;
use thiserror::Error;

/// Where a question or an answer came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A row of a file; `line` counts from 1 and is the line on which the row begins.
    File {
        /// The file.
        path: PathBuf,
        /// The row's first line.
        line: u64,
    },
    /// An element of a list in memory, counted from 0.
    Index(usize),
    /// An element of a JSON file's list.
    Element {
        /// The file.
        path: PathBuf,
        /// Its number, counted from 0.
        index: usize,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Index(index) => write!(f, "question {index} of the list"),
            Self::Element { path, index } => {
                write!(f, "{}, question {index} of the list", path.display())
            }
        }
    }
}

/// Everything that can go wrong in this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A file could not be read.
    #[error("cannot {action} {path}")]
    Io {
        /// "open", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A file is not CSV: rows of different lengths, bytes that are not UTF-8.
    #[error("{path} is not a CSV file of DSG's form")]
    Csv {
        /// The file.
        path: PathBuf,
        /// The reader's reason, with the line.
        source: csv::Error,
    },
    /// A file of results could not be read back.
    #[error("{path} is not a file of evaluation results")]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's reason, with line and column.
        source: serde_json::Error,
    },
    /// A file of TIFA's questions or answers could not be read.
    #[error("{path} is not {expected}")]
    Tifa {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// The parser's reason, with field, line and column.
        source: serde_json::Error,
    },
    /// A column that the format demands is not in the header.
    #[error("{path}:1: column {column} is missing, found {found}")]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The missing column.
        column: &'static str,
        /// The header as it stands.
        found: String,
    },
    /// A column that the format does not know, or has already.
    #[error("{path}:1: unexpected column {found:?}, expected each of {expected} once")]
    UnexpectedColumn {
        /// The file.
        path: PathBuf,
        /// The unknown or repeated column.
        found: String,
        /// The columns of the format.
        expected: String,
    },
    /// A cell holds something else than its column says.
    #[error("{place}, column {column}: expected {expected}, found {found:?}")]
    Cell {
        /// The row.
        place: Place,
        /// The column's name.
        column: &'static str,
        /// What the column holds.
        expected: &'static str,
        /// What the cell holds.
        found: String,
    },
    /// A proposition id stands twice in one item.
    #[error("{place}: item {item} has proposition {proposition} already")]
    DuplicateProposition {
        /// The second of the two.
        place: Place,
        /// The item.
        item: String,
        /// The repeated id.
        proposition: u32,
    },
    /// The questions of one item are about different prompts.
    #[error("{place}, column text: item {item} has the prompt {expected:?}, found {found:?}")]
    PromptDiffers {
        /// The first question that differs.
        place: Place,
        /// The item.
        item: String,
        /// The prompt of the item's first question.
        expected: String,
        /// The prompt here.
        found: String,
    },
    /// A question depends on a proposition that its item does not have.
    #[error(
        "{place}, column dependency: proposition {proposition} of item {item} depends on {parent}, which does not exist"
    )]
    UnknownParent {
        /// The dependent question.
        place: Place,
        /// The item.
        item: String,
        /// The dependent proposition.
        proposition: u32,
        /// The proposition that is not there.
        parent: u32,
    },
    /// Propositions of an item depend on each other in a circle, or one depends on itself.
    #[error("{place}, column dependency: item {item} has the circular dependency {}", arrows(.cycle))]
    DependencyCycle {
        /// One question of the circle.
        place: Place,
        /// The item.
        item: String,
        /// The circle; the first proposition is repeated as the last.
        cycle: Vec<u32>,
    },
    /// There is nothing to evaluate.
    #[error("no {what}: nothing to evaluate")]
    Empty {
        /// What there is none of.
        what: &'static str,
    },
    /// The answers file has no row for the image model asked for.
    #[error("{path}, column t2i_model: no answers for {requested:?}, found {found}")]
    NoAnswersForModel {
        /// The answers file.
        path: PathBuf,
        /// The model asked for.
        requested: String,
        /// The models that are there.
        found: String,
    },
    /// A second answer to a question, for example from another image model in the same file.
    #[error(
        "{place}: item {item} has an answer to proposition {proposition} already; does the file hold several image models?"
    )]
    DuplicateAnswer {
        /// The second answer.
        place: Place,
        /// The item.
        item: String,
        /// The proposition.
        proposition: u32,
    },
    /// An answer to a question that was not asked.
    #[error("there is an answer to proposition {proposition} of item {item}, but no such question")]
    UnknownAnswer {
        /// The item.
        item: String,
        /// The proposition.
        proposition: u32,
    },
    /// An answer to a multiple-choice question that was not asked.
    #[error("there is an answer to {question:?} about item {item}, but no such question")]
    UnknownQuestion {
        /// The item.
        item: String,
        /// The question.
        question: String,
    },
    /// An item has no image.
    #[error("item {item} has no image: {path} does not exist")]
    MissingImage {
        /// The item.
        item: String,
        /// Where its image should be.
        path: PathBuf,
    },
    /// An image is there but cannot be decoded.
    #[error("the image of item {item} cannot be read: {path}")]
    Image {
        /// The item.
        item: String,
        /// The image file.
        path: PathBuf,
        /// The decoder's reason.
        source: image::ImageError,
    },
    /// An item id that would lead out of the folder of images.
    #[error("item id {item:?} cannot be a file name")]
    ItemId {
        /// The id.
        item: String,
    },
    /// The VQA model could not answer.
    #[error("VQA model {model} failed: {message}")]
    Vqa {
        /// [`Vqa::name`](crate::Vqa::name) of the model.
        model: String,
        /// What the model's back end said.
        message: String,
    },
    /// The language model that writes questions could not be asked.
    #[error("questions cannot be written: {message}")]
    Writer {
        /// What the model's back end said.
        message: String,
    },
    /// A model of sentences could not embed texts.
    #[error("embedder {embedder} failed")]
    Embedder {
        /// [`EmbedderId::name`](crate::EmbedderId::name) of the model.
        embedder: String,
        /// The model's reason.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A model of sentences broke its contract of one vector per text, all of one width and of finite numbers.
    #[error("embedder {embedder} did not give vectors of {texts} texts: found {found}")]
    Embeddings {
        /// [`EmbedderId::name`](crate::EmbedderId::name) of the model.
        embedder: String,
        /// Texts given.
        texts: usize,
        /// What came instead.
        found: String,
    },
    /// A scorer could not score pictures.
    #[error("scorer {scorer} failed")]
    Scorer {
        /// [`Scorer::name`](crate::Scorer::name) of the model.
        scorer: String,
        /// The model's reason.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A scorer broke its contract of one score per picture.
    #[error("scorer {scorer} gave {found} scores of {expected} pictures")]
    ScoreCount {
        /// [`Scorer::name`](crate::Scorer::name) of the model.
        scorer: String,
        /// Pictures given.
        expected: usize,
        /// Scores received.
        found: usize,
    },
    /// The VQA model broke its contract of one answer per question.
    #[error("VQA model {model} gave {found} answers to the {expected} questions of item {item}")]
    AnswerCount {
        /// The model.
        model: String,
        /// The item.
        item: String,
        /// Questions asked.
        expected: usize,
        /// Answers given.
        found: usize,
    },
    /// The observer asked to stop.
    #[error("cancelled after {done} of {total} items")]
    Cancelled {
        /// Items answered, whose answers the observer has seen.
        done: usize,
        /// All items.
        total: usize,
    },
    /// A setting that makes no sense.
    #[error("{name}: expected {expected}, found {found}")]
    Setting {
        /// The setting's name.
        name: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Values that a statistic cannot be made of.
    #[error("{name}: expected {expected}, found {found}")]
    Sample {
        /// Which values.
        name: &'static str,
        /// What the statistic needs.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Numbers that no mean can be made of.
    #[error("cluster {index}: expected a finite sum of at least one value, found {sum} of {count}")]
    Cluster {
        /// Which cluster, counted from 0.
        index: usize,
        /// Its sum.
        sum: f64,
        /// The number of its values.
        count: u32,
    },
    /// Two samples of different numbers of clusters.
    #[error("cannot pair {a} clusters with {b}")]
    Unpaired {
        /// Clusters of the first.
        a: usize,
        /// Clusters of the second.
        b: usize,
    },
    /// Two clusters of different numbers of values.
    #[error("cannot pair cluster {index}: {a} values against {b}")]
    UnequalPair {
        /// Which cluster, counted from 0.
        index: usize,
        /// Values of the first.
        a: u32,
        /// Values of the second.
        b: u32,
    },
    /// Two results were made by different settings and cannot be compared.
    #[error("cannot compare results that differ in {what}: {a} against {b}")]
    SettingsDiffer {
        /// The setting.
        what: &'static str,
        /// Its value in the first.
        a: String,
        /// Its value in the second.
        b: String,
    },
    /// Two results are about different items.
    #[error(
        "cannot compare: item {item} is in the result of {present_in} and not in that of {absent_from}"
    )]
    ItemsDiffer {
        /// The first item that only one of them has.
        item: String,
        /// Model whose result has it.
        present_in: String,
        /// Model whose result has not.
        absent_from: String,
    },
    /// Two evaluations that shall be pooled have one name.
    #[error("cannot pool: two evaluations are called {name}")]
    RepeatedName {
        /// The name.
        name: String,
    },
    /// Two results asked different questions about an item.
    #[error("cannot compare: the questions of item {item} differ at proposition {proposition}")]
    QuestionsDiffer {
        /// The item.
        item: String,
        /// The first proposition that differs.
        proposition: u32,
    },
    /// A file of results, or a list of prompts, contradicts itself.
    #[error("{path}: item {item} stands twice")]
    DuplicateItem {
        /// The file or folder.
        path: PathBuf,
        /// The repeated item.
        item: String,
    },
    /// A dataset of pictures to be rated could not be read.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// Two datasets that shall be rated against each other have different pictures or texts.
    #[error("cannot compare {} with {}: {what}: expected {expected}, found {found}", first.display(), second.display())]
    DatasetsDiffer {
        /// A picture of the first dataset.
        first: Box<Path>,
        /// That of the same name in the other.
        second: Box<Path>,
        /// `text` or `file`.
        what: &'static str,
        /// What the first has.
        expected: String,
        /// What the other has.
        found: String,
    },
    /// A picture could not be put into a page.
    #[error("the picture of item {item} by {model} cannot be encoded")]
    Encode {
        /// The item.
        item: String,
        /// The model.
        model: String,
        /// The encoder's reason.
        source: Box<image::ImageError>,
    },
    /// A file is neither the key of a rating study nor somebody's answers, or is torn.
    #[error("{path} is not {expected}")]
    RatingFile {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// The parser's reason, with field, line and column.
        source: serde_json::Error,
    },
    /// A field of a key or of answers holds what cannot be.
    #[error("{path}, field {field}: expected {expected}, found {found}")]
    RatingField {
        /// The file.
        path: PathBuf,
        /// The field, such as `answers[3].pair`.
        field: String,
        /// What would have been right.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// Two files of one rater, saved at the same moment, or two keys of one study do not say the same.
    #[error("{second} contradicts {first}: {what}")]
    RatingConflict {
        /// The file that came first.
        first: PathBuf,
        /// The file that contradicts it.
        second: PathBuf,
        /// What they are about.
        what: String,
    },
}

fn arrows(cycle: &[u32]) -> String {
    cycle
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(" -> ")
}
