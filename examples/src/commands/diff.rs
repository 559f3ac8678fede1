//! `selma diff`.

use std::path::PathBuf;

use selma_lora::Comparison;

use super::values::load_lora;
use crate::table::{columns, pairs};
use crate::terminal::print;

/// Show how two LoRA adapters differ, layer by layer.
///
/// Compared are the updates that they make to a model, so that form, number type, rank and alpha do not matter. The distance is the Frobenius norm
/// of the second update minus the first, also relative to the first; a cosine of 1 means the same direction, 0 nothing in common, -1 the
/// opposite.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma diff lora.safetensors small.safetensors
  selma diff lora.safetensors lora-peft --json")]
pub struct Args {
    /// An adapter file, or a folder of PEFT.
    #[arg(value_name = "FILE|DIR")]
    first: PathBuf,
    /// What is compared with it.
    #[arg(value_name = "FILE|DIR")]
    second: PathBuf,
    /// Print JSON for programs instead of text for people.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let first = load_lora(&args.first)?;
    let second = load_lora(&args.second)?;
    let comparison = first.compare(&second)?;
    if args.json {
        return print(serde_json::to_string_pretty(&comparison)?);
    }
    print(describe(&comparison))
}

fn describe(comparison: &Comparison) -> String {
    let mut rows = vec![
        ("norm of the first", number(comparison.first_norm)),
        ("norm of the second", number(comparison.second_norm)),
        ("distance", number(comparison.distance)),
        ("relative to the first", maybe(comparison.relative)),
        ("cosine", maybe(comparison.cosine)),
        ("modules of both", comparison.modules.len().to_string()),
    ];
    for (label, only) in [
        ("only in the first", &comparison.only_first),
        ("only in the second", &comparison.only_second),
    ] {
        rows.extend(only.iter().map(|module| (label, module.clone())));
    }
    if comparison.modules.is_empty() {
        return pairs(&rows);
    }
    let modules: Vec<[String; 7]> = comparison
        .modules
        .iter()
        .map(|module| {
            let [first, second] = module.ranks;
            [
                module.module.clone(),
                format!("{first}, {second}"),
                number(module.first_norm),
                number(module.second_norm),
                number(module.distance),
                maybe(module.relative),
                maybe(module.cosine),
            ]
        })
        .collect();
    let heading = [
        "module", "ranks", "first", "second", "distance", "relative", "cosine",
    ];
    format!("{}\n\n{}", pairs(&rows), columns(heading, &modules))
}

fn number(value: f64) -> String {
    format!("{value:.6}")
}

/// There is no ratio to an update of zero.
fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), number)
}
