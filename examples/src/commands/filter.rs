//! `selma filter`.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use indicatif::HumanCount;
use selma_rouge::{DiversityFilter, FilterConfig, Nearest, Tokenizer, WithoutTokens};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::values;
use crate::interrupt;
use crate::output::{Output, check_file, spare};
use crate::progress::Progress;

/// Lines that are compared at once, on all processors.
const BATCH_LINES: usize = 8192;
/// Bytes of lines at which a batch is full, too: prompts may be long.
const BATCH_BYTES: usize = 16 << 20;

/// Keep prompts that differ from each other, drop near copies.
///
/// Goes through the prompts in order and keeps each one whose ROUGE-L F with every prompt kept before is at most the
/// threshold, as SELMA and Self-Instruct do. The input has one prompt a line, or is JSONL with a field "text" (by its
/// ending .jsonl, or because it begins like JSON). Lines are passed on as they are, other fields of JSONL included;
/// blank lines are left out. "-" is standard input or output.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  selma filter --input prompts.txt --kept kept.txt --rejected copies.jsonl\n  selma filter --input more.txt --kept new.txt --state seen.filter"
)]
pub struct Args {
    /// Prompts to go through.
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Where the kept prompts go.
    #[arg(long, value_name = "FILE")]
    kept: PathBuf,
    /// Where the rejected prompts go; nowhere without this. In a file that ends with .jsonl, each has the fields "nearest", the
    /// kept prompt it is closest to, and "score", the F of both.
    #[arg(long, value_name = "FILE")]
    rejected: Option<PathBuf>,
    /// Everything that was kept in earlier runs, which count as kept before; the file is made by the first run, and by each
    /// run anew when its outputs are complete.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// A prompt is rejected if its ROUGE-L F with a kept one is greater than this; over 0 and at most 1.
    #[arg(long, value_name = "F", default_value = "0.8", value_parser = values::threshold)]
    threshold: f64,
    /// Weight of recall in F; 1 is the common F, 0 is precision alone.
    #[arg(long, value_name = "BETA", default_value = "1", value_parser = values::finite)]
    beta: f64,
    /// How prompts become words: "rouge" is the paper's and knows a-z and 0-9 only, "rouge-stemmed" takes their endings off as well,
    /// "unicode" knows every script.
    #[arg(long, value_name = "NAME", default_value = "rouge", value_parser = values::named::<Tokenizer>(["rouge", "rouge-stemmed", "unicode"]))]
    tokenizer: Tokenizer,
    /// What becomes of prompts without words: "keep" keeps them all, "distinct" rejects copies.
    #[arg(long, value_name = "RULE", default_value = "keep", value_parser = values::named::<WithoutTokens>(["keep", "distinct"]))]
    without_tokens: WithoutTokens,
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
    let outputs = [
        Some(&args.kept),
        args.rejected.as_ref(),
        args.state.as_ref(),
    ];
    let from_file = args.input != Path::new("-");
    spare(
        from_file.then_some(args.input.as_path()),
        outputs.into_iter().flatten().map(PathBuf::as_path),
    )?;
    let mut filter = filter(&args)?;
    let mut lines = Lines::open(&args.input)?;
    let mut kept = Output::create(&args.kept)?;
    let mut rejected = args.rejected.as_deref().map(Rejected::create).transpose()?;

    let mut progress = Progress::new("filtering", None, "lines");
    let mut counts = Counts::default();
    loop {
        let batch = lines.batch()?;
        if batch.texts.is_empty() && batch.blank == 0 {
            break;
        }
        counts.blank += batch.blank;
        let verdicts = filter.offer_batch(&batch.texts);
        for ((line, text), verdict) in batch.lines.iter().zip(&batch.texts).zip(verdicts) {
            match verdict.nearest() {
                None => {
                    counts.kept += 1;
                    kept.write(line)?;
                }
                Some(nearest) => {
                    counts.rejected += 1;
                    if let Some(rejected) = &mut rejected {
                        rejected.write(line, text, lines.form, &filter, nearest)?;
                    }
                }
            }
        }
        progress.set(counts.lines(), counts.note());
    }
    if let Some(rejected) = rejected {
        rejected.output.finish()?;
    }
    kept.finish()?;
    // Last, so that no prompt counts as seen that is in no output.
    if let Some(state) = &args.state {
        filter.save(state)?;
    }
    progress.finish();
    Ok(())
}

/// The filter with what earlier runs kept, if there were any.
fn filter(args: &Args) -> anyhow::Result<DiversityFilter> {
    let config = FilterConfig {
        threshold: args.threshold,
        beta: args.beta,
        tokenizer: args.tokenizer,
        without_tokens: args.without_tokens,
    };
    let Some(state) = &args.state else {
        return Ok(DiversityFilter::with_config(config)?);
    };
    check_file(state)?;
    if !state.exists() {
        return Ok(DiversityFilter::with_config(config)?);
    }
    let filter = DiversityFilter::load(state)?;
    let found = serde_json::to_value(filter.config())?;
    let wanted = serde_json::to_value(config)?;
    for (name, wanted) in wanted.as_object().into_iter().flatten() {
        let flag = name.replace('_', "-");
        let found = found.get(name).unwrap_or(&Value::Null);
        ensure!(
            found == wanted,
            "{} was made with --{flag} {found}, not with {wanted}; its verdicts hold for its own settings alone",
            state.display()
        );
    }
    Ok(filter)
}

/// The input, line by line.
struct Lines {
    input: Box<dyn BufRead>,
    name: String,
    /// Known from the file's ending, or else from the first prompt.
    form: Option<Form>,
    /// Lines read so far.
    number: u64,
}

/// Some lines of the input, with their prompts; blank lines are counted only.
#[derive(Default)]
struct Batch {
    lines: Vec<Vec<u8>>,
    texts: Vec<String>,
    blank: u64,
}

impl Lines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let (input, name) = open(path)?;
        let jsonl = path.extension().is_some_and(|ending| ending == "jsonl");
        Ok(Self {
            input,
            name,
            form: jsonl.then_some(Form::Jsonl),
            number: 0,
        })
    }

    /// The next lines; none are left if the batch has neither prompts nor blank lines.
    fn batch(&mut self) -> anyhow::Result<Batch> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while batch.texts.len() < BATCH_LINES && bytes < BATCH_BYTES {
            let mut line = Vec::new();
            let read = self.input.read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read {}", self.name))? == 0 {
                break;
            }
            ensure!(!interrupt::requested(), "interrupted; nothing was written");
            bytes += line.len();
            self.number += 1;
            let text = self
                .text(&line)
                .with_context(|| format!("{}, line {}", self.name, self.number))?;
            match text {
                Some(text) => {
                    batch.texts.push(text);
                    batch.lines.push(line);
                }
                None => batch.blank += 1,
            }
        }
        Ok(batch)
    }

    /// The prompt of a line, unless the line is blank.
    fn text(&mut self, line: &[u8]) -> anyhow::Result<Option<String>> {
        let text = std::str::from_utf8(line).map_err(|error| {
            anyhow::anyhow!("not valid UTF-8 at byte {}", error.valid_up_to() + 1)
        })?;
        // A byte order mark is no part of the first prompt.
        let text = text
            .trim_end_matches(['\n', '\r'])
            .trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Ok(None);
        }
        Ok(Some(match *self.form.get_or_insert_with(|| detect(text)) {
            Form::Lines => text.to_owned(),
            Form::Jsonl => parse(text)?.text,
        }))
    }
}

/// The rejected prompts, as their lines were, or as rows that say why.
struct Rejected {
    output: Output,
    with_reasons: bool,
}

impl Rejected {
    fn create(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            output: Output::create(path)?,
            with_reasons: path.extension().is_some_and(|ending| ending == "jsonl"),
        })
    }

    fn write(
        &mut self,
        line: &[u8],
        text: &str,
        form: Option<Form>,
        filter: &DiversityFilter,
        nearest: Nearest,
    ) -> anyhow::Result<()> {
        if !self.with_reasons {
            return self.output.write(line);
        }
        let mut row: Map<String, Value> = match form {
            Some(Form::Jsonl) => {
                let line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
                serde_json::from_slice(line)?
            }
            _ => Map::from_iter([("text".to_owned(), text.into())]),
        };
        row.insert("nearest".to_owned(), filter.get(nearest.id).into());
        row.insert("score".to_owned(), nearest.score.fmeasure.into());
        let mut row = serde_json::to_vec(&row)?;
        row.push(b'\n');
        self.output.write(&row)
    }
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
