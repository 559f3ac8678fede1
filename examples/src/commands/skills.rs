//! `selma skills`.

use std::path::Path;

use selma_llm::Skill;

use crate::table::columns;
use crate::terminal::print;

/// List the skills that prompts can be written for, or show one.
///
/// A skill is a TOML file: what to ask the language model for, and seeds to begin with. Those of the paper and two more of its
/// code are built in; start your own from one of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  selma skills
  selma skills coco > mine.toml
  selma skills mine.toml")]
pub struct Args {
    /// The skill to show, by name or as a TOML file, which is checked.
    #[arg(value_name = "NAME|FILE.toml")]
    skill: Option<String>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.skill {
        None => list(),
        Some(name) if is_file(&name) => print(describe(&Skill::load(Path::new(&name))?)),
        Some(name) => print(Skill::builtin_toml(&name)?.trim_end()),
    }
}

/// Whether a skill is meant that has a file of its own.
pub fn is_file(name: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|ending| ending == "toml")
}

fn list() -> anyhow::Result<()> {
    let paper: Vec<String> = Skill::of_paper()?
        .into_iter()
        .map(|skill| skill.name)
        .collect();
    let rows: Vec<[String; 4]> = Skill::builtins()?
        .into_iter()
        .map(|skill| {
            let origin = if paper.contains(&skill.name) {
                "paper"
            } else {
                "code"
            };
            let words = skill.max_words;
            [
                skill.name,
                origin.to_owned(),
                words.to_string(),
                skill.description,
            ]
        })
        .collect();
    print(columns(["skill", "from", "words", "about"], &rows))
}

fn describe(skill: &Skill) -> String {
    format!(
        "{}: {}\n{} seeds, at most {} words, {} prompts a request\n\n{}",
        skill.name,
        skill.description,
        skill.seeds.len(),
        skill.max_words,
        skill.count,
        skill.render(&skill.seeds)
    )
}
