//! `selma rate`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use selma_dataset::Dataset;
use selma_durable::to_json;
use selma_eval::dsg::Quirks;
use selma_eval::rating::{
    Comparison, DatasetImages, Preference, RatingResult, Ratings, Study, StudyOptions, StudyPrompt,
    read_study_prompts, shared_prompts,
};
use selma_eval::stats::IntervalMethod;
use selma_eval::{Bootstrap, Estimate, ImageFolder, ImageSource, QuestionSet};

use crate::output::{Output, spare};
use crate::table::columns;
use crate::terminal::{print, say};

/// Have people judge which of two models' pictures fit their texts better.
///
/// "export" makes one HTML file with all pictures in it that works in any browser, on a phone and without a network. Raters choose with
/// the mouse or the keys and send back a file, and "import" makes win rates, agreement and strengths of these files.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  selma rate export base=drawn/base tuned=drawn/tuned --out rate.html\n  selma rate import rate.key.json answers/*.json"
)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Export(Export),
    Import(Import),
}

/// Make the page for raters, and the key that says who drew what.
///
/// Every two models are compared on every prompt, in a random order and on random sides. The page says nothing of who drew which
/// picture: keep the key to yourself, and hand out the page.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma rate export base=drawn/base tuned=drawn/tuned --out rate.html
  selma rate export sd2 sd2-selma --prompts dsg-1k-anns.csv --count 200 --out rate.html")]
struct Export {
    /// Two or more folders of pictures, by default datasets with metadata.jsonl, as `selma images` makes them, that have the same file
    /// names and texts. The name of a model is what stands before "=", or else that of its folder.
    #[arg(required = true, num_args = 2.., value_name = "DIR|NAME=DIR")]
    models: Vec<String>,
    /// Prompts, for folders with a picture ID.png for each: JSONL with "id", "text" and, if there are any, "category" or "skill", or
    /// DSG's annotations as CSV.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Take this many prompts at random; the paper took 200.
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Seed of everything random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// What raters are asked.
    #[arg(long, value_name = "TEXT", default_value_t = StudyOptions::default().title)]
    title: String,
    /// Longer edge in pixels to which larger pictures are reduced.
    #[arg(long, value_name = "PIXELS", default_value_t = StudyOptions::default().edge)]
    edge: u32,
    /// Where the page goes.
    #[arg(long, value_name = "FILE.html")]
    out: PathBuf,
    /// Where the key goes; beside the page, with the ending .key.json, without this.
    #[arg(long, value_name = "FILE.json")]
    key: Option<PathBuf>,
}

/// Say which model people prefer, from keys and answers.
///
/// Ties count half in the win rate; the share without ties is what the paper reports. Intervals are 95% and take the prompts, not the
/// answers, as independent. A rater who saved several times counts once, with the last.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  selma rate import rate.key.json answers/*.json")]
struct Import {
    /// Keys of one or more studies and raters' answers, in any order.
    #[arg(required = true, value_name = "FILE.json")]
    files: Vec<PathBuf>,
    /// Tables for people, or everything as JSON.
    #[arg(long, value_name = "FORM", default_value = "text")]
    format: Form,
    /// How intervals are made: equal tails, or corrected for bias and skewness.
    #[arg(long, value_name = "METHOD", default_value = "percentile")]
    interval: Method,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Method {
    Percentile,
    Bca,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.action {
        Action::Export(args) => args.run(),
        Action::Import(args) => args.run(),
    }
}

impl Export {
    fn run(self) -> anyhow::Result<()> {
        let key_path = self
            .key
            .clone()
            .unwrap_or_else(|| self.out.with_extension("key.json"));
        spare(
            self.prompts.as_deref(),
            [self.out.as_path(), key_path.as_path()],
        )?;
        let page = Output::create(&self.out)?;
        let key = Output::create(&key_path)?;
        let folders = self.models.iter().map(|model| named(model));
        let folders: Vec<(&str, &Path)> = folders.collect::<Result<_, _>>()?;
        let study = match &self.prompts {
            Some(prompts) => self.of_folders(&folders, prompts)?,
            None => self.of_datasets(&folders)?,
        };
        // First, because a page without its key is of no use.
        key.finish_with(&to_json(&key_path, &study.key)?)?;
        page.finish_with(study.page.as_bytes())?;
        say(format_args!(
            "pairs: {}; page: {:.1} MB; key: {}",
            study.key.pairs.len(),
            study.page.len() as f64 / 1e6,
            key_path.display()
        ));
        Ok(())
    }

    fn options(&self) -> StudyOptions {
        StudyOptions {
            title: self.title.clone(),
            seed: self.seed,
            prompts: self.count,
            edge: self.edge,
        }
    }

    fn of_datasets(&self, folders: &[(&str, &Path)]) -> anyhow::Result<Study> {
        let datasets = folders.iter().map(|(_, folder)| Dataset::open(*folder));
        let datasets: Vec<Dataset> = datasets.collect::<Result<_, _>>()?;
        let prompts = shared_prompts(&datasets.iter().collect::<Vec<_>>())?;
        let images: Vec<DatasetImages<'_>> = datasets.iter().map(DatasetImages::new).collect();
        self.study(folders, &images, &prompts)
    }

    fn of_folders(&self, folders: &[(&str, &Path)], prompts: &Path) -> anyhow::Result<Study> {
        let prompts = read_prompts(prompts)?;
        let images = folders.iter().map(|(_, folder)| ImageFolder::new(*folder));
        self.study(folders, &images.collect::<Vec<_>>(), &prompts)
    }

    fn study(
        &self,
        folders: &[(&str, &Path)],
        images: &[impl ImageSource],
        prompts: &[StudyPrompt],
    ) -> anyhow::Result<Study> {
        let names = folders.iter().map(|(name, _)| *name);
        let images = images.iter().map(|images| images as &dyn ImageSource);
        let models: Vec<_> = names.zip(images).collect();
        Ok(Study::new(&models, prompts, &self.options())?)
    }
}

/// Prompts from JSONL or from DSG's annotations.
pub fn read_prompts(path: &Path) -> anyhow::Result<Vec<StudyPrompt>> {
    if path.extension().is_none_or(|ending| ending != "csv") {
        return Ok(read_study_prompts(path)?);
    }
    // Only the texts are needed, so malformed dependencies do no harm.
    let questions = QuestionSet::read(path, Quirks::Official)?;
    Ok(questions.items().iter().map(StudyPrompt::from).collect())
}

/// `NAME=DIR`, or a folder by its own name.
fn named(model: &str) -> anyhow::Result<(&str, &Path)> {
    if let Some((name, folder)) = model.split_once('=') {
        return Ok((name, Path::new(folder)));
    }
    let folder = Path::new(model);
    let name = folder.file_name().and_then(|name| name.to_str());
    let name =
        name.with_context(|| format!("{model} has no name of its own: write NAME={model}"))?;
    Ok((name, folder))
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        let bootstrap = Bootstrap {
            method: match self.interval {
                Method::Percentile => IntervalMethod::Percentile,
                Method::Bca => IntervalMethod::Bca,
            },
            ..Bootstrap::default()
        };
        let result = Ratings::read(&self.files)?.result(&bootstrap)?;
        match self.format {
            Form::Text => print(text(&result)),
            Form::Json => print(serde_json::to_string_pretty(&result)?),
        }
    }
}

fn text(result: &RatingResult) -> String {
    let mut text = format!(
        "{} answers to {} pairs of {} prompts, {} left open; raters: {}",
        result.answers,
        result.pairs,
        result.prompts,
        result.unanswered,
        result.raters.len()
    );
    if !result.superseded.is_empty() {
        let files = result.superseded.iter();
        let files: Vec<String> = files.map(|file| file.display().to_string()).collect();
        text += &format!("\nsaved again later, not counted: {}", files.join(", "));
    }
    for comparison in &result.comparisons {
        text += &format!("\n\n{}", preferences(comparison));
    }
    if let Some(ranking) = &result.ranking {
        let rows = ranking.models.iter().map(|row| {
            [
                row.model.clone(),
                format!("{:.2}", row.strength),
                format!("[{:.2}, {:.2}]", row.low, row.high),
                row.answers.to_string(),
            ]
        });
        let rows: Vec<[String; 4]> = rows.collect();
        let heading = ["Bradley-Terry", "log strength", "95% interval", "answers"];
        text += &format!("\n\n{}", columns(heading, &rows));
        if ranking.undefined_resamples > 0 {
            text += &format!(
                "\nintervals without {} of {} resamples, which have no strengths",
                ranking.undefined_resamples, result.bootstrap.resamples
            );
        }
    } else if result.models.len() > 2 {
        text += "\n\nno Bradley-Terry strengths: some models never won or tied against the others";
    }
    text += "\n";
    match &result.agreement {
        Some(agreement) => {
            text += &format!(
                "\nagreement: Krippendorff's alpha {:.2} [{:.2}, {:.2}], {}% of answers agree, {} pairs with {} answers",
                agreement.alpha,
                agreement.low,
                agreement.high,
                percent(agreement.agreement),
                agreement.pairs,
                agreement.answers
            );
        }
        None => {
            text += "\nagreement: unknown, it takes two raters of one pair and different answers"
        }
    }
    if let Some(left) = &result.left {
        text += &format!(
            "\nleft preferred in {}% {} of answers without ties (50% if sides do not matter)",
            percent(left.mean),
            interval(left)
        );
    }
    text
}

fn preferences(comparison: &Comparison) -> String {
    let row = |name: &str, preference: &Preference, p_holm: String| {
        let (share, range) = match &preference.decided {
            Some(decided) => (percent(decided.mean), interval(decided)),
            None => ("-".to_owned(), "-".to_owned()),
        };
        [
            name.to_owned(),
            percent(preference.rate.mean),
            interval(&preference.rate),
            share,
            range,
            preference.wins.to_string(),
            preference.ties.to_string(),
            preference.losses.to_string(),
            preference.rate.clusters.to_string(),
            format!("{:.4}", preference.p),
            p_holm,
        ]
    };
    let overall = row("all", &comparison.overall, "-".to_owned());
    let categories = comparison.by_category.iter().map(|(name, category)| {
        let p_holm = format!("{:.4}", category.p_holm);
        row(name, &category.preference, p_holm)
    });
    let rows: Vec<_> = std::iter::once(overall).chain(categories).collect();
    let heading = [
        "",
        "win rate, %",
        "95% interval",
        "without ties, %",
        "95% interval",
        "won",
        "tied",
        "lost",
        "prompts",
        "p",
        "p (Holm)",
    ];
    format!(
        "{} over {}\n{}",
        comparison.first,
        comparison.second,
        columns(heading, &rows)
    )
}

fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

fn interval(estimate: &Estimate) -> String {
    format!(
        "[{:.1}, {:.1}]",
        100.0 * estimate.low,
        100.0 * estimate.high
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_named_by_the_user_or_by_its_folder() {
        let of = |text| named(text).ok();
        assert_eq!(of("tuned=a/b"), Some(("tuned", Path::new("a/b"))));
        assert_eq!(of("a/b/"), Some(("b", Path::new("a/b/"))));
        assert_eq!(of(".."), None);
    }
}
