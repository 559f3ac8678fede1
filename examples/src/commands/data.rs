//! Reading datasets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use selma_dataset::{OpenOptions, Pictures, Scores, SelectConfig, Subset, open_any, select};

use super::values::finite;
use crate::terminal::say;

/// How datasets are read.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct DataOptions {
    /// Where the captions are, if not in the usual place: a column of the metadata, or the ending of the caption files.
    #[arg(long, value_name = "NAME")]
    caption: Option<String>,
    /// Leave out what cannot be used, and say what, instead of refusing the whole dataset.
    #[arg(long)]
    skip_unusable: bool,
}

impl DataOptions {
    /// Opens a dataset of any layout.
    ///
    /// # Errors
    ///
    /// Those of [`open_any`].
    pub fn open(&self, path: &Path) -> anyhow::Result<Box<dyn Pictures>> {
        let options = OpenOptions {
            caption: self.caption.clone(),
            skip_unusable: self.skip_unusable,
        };
        let opened = open_any(path, &options)?;
        for skipped in &opened.skipped {
            say(format_args!("warning: left out: {skipped}"));
        }
        Ok(opened.pictures)
    }
}

/// Which pictures of a dataset are used.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct SelectOptions {
    /// Scores of the pictures, one JSON object a line: {"file_name", "scorer", "score"}. Of each prompt the best picture is used that scores enough.
    #[arg(long, value_name = "FILE.jsonl")]
    scores: Option<PathBuf>,
    /// What a picture must score at least. Repeat it for several scorers.
    #[arg(long = "min", value_name = "SCORER=SCORE", requires = "scores", value_parser = minimum)]
    minimums: Vec<(String, f64)>,
    /// The scorer that says which picture of a prompt is the best. Default: the earliest picture is.
    #[arg(long, value_name = "SCORER", requires = "scores")]
    rank_by: Option<String>,
    /// Look at so many pictures of each prompt, the first. Default: all.
    #[arg(long, value_name = "K", requires = "scores")]
    best_of: Option<usize>,
    /// Use at most so many pictures of each prompt.
    #[arg(long, value_name = "N", requires = "scores", default_value = "1")]
    per_prompt: usize,
}

impl SelectOptions {
    /// The pictures of a dataset that are used; all where no scores are given.
    ///
    /// # Errors
    ///
    /// Those of [`Scores::read`] and [`select`]; if no picture is left.
    pub fn select(
        &self,
        path: &Path,
        pictures: Box<dyn Pictures>,
    ) -> anyhow::Result<Box<dyn Pictures>> {
        let Some(file) = &self.scores else {
            return Ok(pictures);
        };
        let scores = Scores::read(file, &*pictures)?;
        let config = SelectConfig {
            minimums: self.minimums.iter().cloned().collect::<BTreeMap<_, _>>(),
            rank_by: self.rank_by.clone(),
            best_of: self.best_of,
            per_prompt: self.per_prompt,
        };
        let selection = select(&*pictures, &scores, &config)?;
        let report = &selection.report;
        say(format_args!(
            "{}: {} of {} pictures are used, for {} of {} prompts; {} score too little, {} are outdone",
            path.display(),
            report.kept,
            report.pictures,
            report.prompts_kept,
            report.prompts,
            report.failed,
            report.outdone,
        ));
        if selection.kept.is_empty() {
            bail!("{}: no picture scores enough", path.display());
        }
        Ok(Box::new(Subset::new(pictures, selection.kept)?))
    }
}

fn minimum(text: &str) -> Result<(String, f64), String> {
    let (scorer, score) = text
        .split_once('=')
        .filter(|(scorer, _)| !scorer.is_empty())
        .ok_or_else(|| "expected SCORER=SCORE".to_owned())?;
    Ok((scorer.to_owned(), finite(score)?))
}
