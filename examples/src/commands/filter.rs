//! `selma filter`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use indicatif::HumanCount;
use selma_rouge::{DiversityFilter, Tokenizer};
use serde::Deserialize;

use super::values;
use crate::interrupt;
use crate::output::{Output, spare};
use crate::progress::Progress;

/// Keep prompts that differ from each other, drop near copies.
///
/// Goes through the prompts in order and keeps each one whose ROUGE-L F with every prompt kept before is at most the
/// threshold, as SELMA and Self-Instruct do. The input has one prompt a line, or is JSONL with a field "text" (by its
/// ending .jsonl, or because it begins like JSON). Lines are passed on as they are, other fields of JSONL included;
/// blank lines are left out. "-" is standard input or output.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  selma filter --input prompts.txt --kept kept.txt --rejected copies.txt"
)]
pub struct Args {
    /// Prompts to go through.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the kept prompts go.
    #[arg(long, value_name = "FILE")]
    kept: PathBuf,
    /// Where the rejected prompts go; nowhere without this.
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// A prompt is rejected if its ROUGE-L F with a kept one is greater than this; over 0 and at most 1.
    #[arg(long, value_name = "F", default_value = "0.8", value_parser = values::threshold)]
    threshold: f64,
    /// How prompts become words: "rouge" is the paper's and knows a-z and 0-9 only, "rouge-stemmed" takes their endings off as well,
    /// "unicode" knows every script.
    #[arg(long, value_name = "NAME", default_value = "rouge", value_parser = values::named::<Tokenizer>(["rouge", "rouge-stemmed", "unicode"]))]
    tokenizer: Tokenizer,
}

/// How the prompt stands in a line.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Form {
    /// The line is the prompt.
    Lines,
    /// The line is a JSON object whose field `text` is the prompt.
    Jsonl,
}

/// A row of JSONL; other fields are of no interest here.
#[derive(Debug, Deserialize)]
struct Row {
    text: String,
}

#[derive(Debug, Default)]
struct Counts {
    kept: u64,
    rejected: u64,
    blank: u64,
}

impl Counts {
    fn lines(&self) -> u64 {
        self.kept + self.rejected + self.blank
    }

    fn note(&self) -> String {
        let mut note = format!(
            "{} kept, {} rejected",
            HumanCount(self.kept),
            HumanCount(self.rejected)
        );
        if self.blank > 0 {
            note += &format!(", {} blank", HumanCount(self.blank));
        }
        note
    }
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let mut filter = DiversityFilter::new(args.threshold, args.tokenizer)?;
    let (mut input, name) = open(&args.input)?;
    let from_file = args.input != Path::new("-");
    spare(
        from_file.then_some(args.input.as_path()),
        std::iter::once(args.kept.as_path()).chain(args.rejected.as_deref()),
    )?;
    let mut kept = Output::create(&args.kept)?;
    let mut rejected = args.rejected.as_deref().map(Output::create).transpose()?;

    let mut form = (args
        .input
        .extension()
        .is_some_and(|ending| ending == "jsonl"))
    .then_some(Form::Jsonl);
    let mut progress = Progress::new("filtering", None, "lines");
    let mut counts = Counts::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = input.read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read {name}"))? == 0 {
            break;
        }
        ensure!(!interrupt::requested(), "interrupted; nothing was written");
        let number = counts.lines() + 1;
        let text = std::str::from_utf8(&line)
            .map_err(|error| anyhow::anyhow!("not valid UTF-8 at byte {}", error.valid_up_to() + 1))
            .with_context(|| format!("{name}, line {number}"))?;
        // A byte order mark is no part of the first prompt.
        let text = text
            .trim_end_matches(['\n', '\r'])
            .trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            counts.blank += 1;
            continue;
        }
        let verdict = match *form.get_or_insert_with(|| detect(text)) {
            Form::Lines => filter.offer(text),
            Form::Jsonl => {
                let row = parse(text).with_context(|| format!("{name}, line {number}"))?;
                filter.offer(&row.text)
            }
        };
        if verdict.is_kept() {
            counts.kept += 1;
            kept.write(&line)?;
        } else {
            counts.rejected += 1;
            if let Some(rejected) = &mut rejected {
                rejected.write(&line)?;
            }
        }
        if counts.lines().is_multiple_of(256) {
            progress.set(counts.lines(), counts.note());
        }
    }
    progress.set(counts.lines(), counts.note());
    if let Some(rejected) = rejected {
        rejected.finish()?;
    }
    kept.finish()?;
    progress.finish();
    Ok(())
}

fn open(path: &Path) -> anyhow::Result<(Box<dyn BufRead>, String)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), "standard input".to_owned()));
    }
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((Box::new(BufReader::new(file)), path.display().to_string()))
}

/// A first line that opens a JSON object with a key, or an empty one, is no prompt.
fn detect(first: &str) -> Form {
    let rest = first.trim_start().strip_prefix('{').map(str::trim_start);
    match rest {
        Some(rest) if rest.starts_with(['"', '}']) => Form::Jsonl,
        _ => Form::Lines,
    }
}

fn parse(line: &str) -> anyhow::Result<Row> {
    serde_json::from_str(line).map_err(|error| {
        // The parser sees one line and would always say "line 1".
        let text = error.to_string();
        let reason = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(reason, _)| reason);
        anyhow::anyhow!(
            "not a JSON object with a text \"text\": {reason} (column {})",
            error.column()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_prompts() {
        for json in [r#"{"text": "a"}"#, r#"  { "id": 1"#, "{}"] {
            assert_eq!(detect(json), Form::Jsonl, "{json}");
        }
        for line in ["a cat", "{red|blue} cat", "[a]", "\"quoted\""] {
            assert_eq!(detect(line), Form::Lines, "{line}");
        }
    }

    #[test]
    fn a_row_without_a_text_says_so_with_its_column() {
        let error = parse(r#"{"txt": "a"}"#).unwrap_err().to_string();
        assert!(
            error.contains("missing field `text`") && error.contains("column 12"),
            "{error}"
        );
        assert_eq!(parse(r#"{"id": 1, "text": "a"}"#).unwrap().text, "a");
    }
}
