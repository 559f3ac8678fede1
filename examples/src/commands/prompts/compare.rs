//! `selma prompts compare` and `selma prompts bias`.

use std::fmt::Write as _;
use std::path::PathBuf;

use selma_llm::{BiasKind, BiasReport, Prompt, compare_prompt_folders, read_prompt_folder};
use selma_rouge::Tokenizer;

use crate::commands::values::named;
use crate::table::columns;
use crate::terminal::print;

/// Set the prompts of several folders side by side, skill by skill, such as those of two language models.
///
/// For each skill a table with a column for each folder: how many prompts there are and how long, how different they are (distinct
/// n-grams, ROUGE-L with the nearest other one), which of the paper's twelve attribute kinds they speak of, and, where the report
/// of the run is beside them, what was asked, rejected and used.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  selma prompts compare prompts-llama3 prompts-gpt")]
pub struct CompareArgs {
    /// Folders that `selma prompts` has written.
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// How prompts become words.
    #[arg(long, value_name = "NAME", default_value = "rouge", value_parser = named::<Tokenizer>(["rouge", "rouge-stemmed", "unicode"]))]
    tokenizer: Tokenizer,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn compare(args: CompareArgs) -> anyhow::Result<()> {
    let skills = compare_prompt_folders(&args.folders, args.tokenizer)?;
    if args.json {
        return print(serde_json::to_string_pretty(&skills)?);
    }
    let mut text = String::new();
    for (skill, comparison) in skills {
        let gap = if text.is_empty() { "" } else { "\n" };
        writeln!(text, "{gap}== {skill}\n{comparison}")?;
    }
    print(text.trim_end())
}

/// Count what the prompts of a folder say of people, and list where.
///
/// Gendered words, words of age, of skin tone and of nationality, and named people, by word lists that are in English and not
/// complete: it shows where to look, and proves nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma prompts bias prompts
  selma prompts bias prompts --json > bias.json")]
pub struct BiasArgs {
    /// A folder that `selma prompts` has written.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Also print every prompt with what was found in it.
    #[arg(long, conflicts_with = "json")]
    list: bool,
    /// Print JSON, with every prompt in which something was found.
    #[arg(long)]
    json: bool,
}

pub fn bias(args: BiasArgs) -> anyhow::Result<()> {
    let sets = read_prompt_folder(&args.folder)?;
    let prompts: Vec<Prompt> = sets.into_iter().flat_map(|set| set.prompts).collect();
    let reports = BiasReport::of(&prompts);
    if args.json {
        return print(serde_json::to_string_pretty(&reports)?);
    }
    let mut rows = Vec::new();
    for report in &reports {
        for kind in BiasKind::ALL {
            let mut terms: Vec<_> = report.terms.get(&kind).into_iter().flatten().collect();
            terms.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
            let often = terms.iter().take(5);
            let often: Vec<String> = often
                .map(|(term, count)| format!("{term} ({count})"))
                .collect();
            rows.push([
                report.skill.clone(),
                kind.name().to_owned(),
                report.prompts_with.get(&kind).unwrap_or(&0).to_string(),
                report.prompts.to_string(),
                often.join(", "),
            ]);
        }
    }
    print(columns(
        ["skill", "kind", "prompts", "of", "most often"],
        &rows,
    ))?;
    if args.list {
        print("")?;
        for hit in reports.iter().flat_map(|report| &report.hits) {
            print(format_args!(
                "{}\t{}\t{}",
                hit.prompt,
                hit.kind.name(),
                hit.term
            ))?;
        }
    }
    Ok(())
}
