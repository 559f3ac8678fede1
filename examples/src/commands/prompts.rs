//! `selma prompts`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::ArgGroup;
use selma::RunEvent;
use selma::prompts::write_skill;
use selma_llm::{ChatModel, OpenAiClient, OpenAiConfig, PromptConfig, PromptGenerator, Skill};
use selma_mini::{GrammarModel, Style, skill};

use super::{events::Events, values};
use crate::interrupt;
use crate::terminal::say;

/// Write prompts with a language model, one file a skill.
///
/// The model is shown three examples of a skill and asked for more; each new prompt is kept unless it is a near copy of
/// one that is there. DIR/SKILL.jsonl has the prompts, DIR/SKILL.rejected.jsonl those left out and why,
/// DIR/SKILL.report.json the numbers, and DIR/SKILL.journal.jsonl every raw answer: stopped at any time, the same command
/// goes on from there without asking anything twice.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("writer").required(true).args(["llm", "mini"]),
    after_help = "\
Examples:
  selma prompts --mini --count 100 --out prompts
  selma prompts --llm http://localhost:8000/v1 --model my-model --skill coco --skill kitchens.toml --count 1000 --out prompts
  selma prompts --llm https://api.openai.com/v1 --model gpt-4o-mini --api-key-env OPENAI_API_KEY --count 1000 --out prompts"
)]
pub struct Args {
    /// A skill by name (localized_narratives, diffusion_db, count_bench, coco, whoops, midjourney, all) or as a TOML file.
    /// Repeat it for several. Default: the first five, which are the paper's.
    #[arg(long = "skill", value_name = "NAME|FILE.toml")]
    skills: Vec<String>,
    /// Prompts to keep for each skill.
    #[arg(long, value_name = "N")]
    count: NonZeroUsize,
    /// Folder for the files; made if need be.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Address of an OpenAI-compatible server (vLLM, llama.cpp, Ollama, OpenAI, ..), with its version.
    #[arg(long, value_name = "URL", requires = "model")]
    llm: Option<String>,
    /// The model's name on the server.
    #[arg(long, value_name = "NAME", requires = "llm")]
    model: Option<String>,
    /// Environment variable with the API key. Without it no key is sent.
    #[arg(long, value_name = "VAR", requires = "llm")]
    api_key_env: Option<String>,
    /// Write prompts of the miniature world with its grammar, which needs no server.
    #[arg(long)]
    mini: bool,
    /// Seed of the examples shown and of the model's sampling.
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// A prompt is left out if its ROUGE-L F with another is greater than this; over 0 and at most 1.
    #[arg(long, value_name = "F", default_value = "0.8", value_parser = values::threshold)]
    threshold: f64,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    interrupt::install()?;
    let skills = skills(&args)?;
    let config = PromptConfig {
        count: args.count.get(),
        threshold: args.threshold,
        seed: args.seed,
        ..PromptConfig::default()
    };
    let generators = skills
        .into_iter()
        .map(|skill| PromptGenerator::new(skill, config.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let model = model(&args)?;
    let mut events = Events::default();
    for generator in &generators {
        let observer = &mut |event: RunEvent<'_>| events.receive(event);
        let report = write_skill(generator, model.as_ref(), &args.out, observer)?;
        events.finish();
        say(format_args!(
            "{}: {} prompts in {} requests",
            generator.skill().name,
            report.kept,
            report.requests
        ));
    }
    Ok(())
}

fn model(args: &Args) -> anyhow::Result<Box<dyn ChatModel>> {
    // The command line has made sure that there is an address with a model, or `--mini`.
    let (Some(url), Some(name)) = (&args.llm, &args.model) else {
        return Ok(Box::new(GrammarModel));
    };
    let mut config = OpenAiConfig::new(url, name);
    config.api_key_env = args.api_key_env.clone();
    Ok(Box::new(OpenAiClient::new(config)?))
}

fn skills(args: &Args) -> anyhow::Result<Vec<Skill>> {
    if args.skills.is_empty() {
        return Ok(if args.mini {
            Style::ALL
                .iter()
                .map(|&style| skill(style))
                .collect::<Result<_, _>>()?
        } else {
            Skill::of_paper()?
        });
    }
    let mut skills: Vec<Skill> = Vec::new();
    for name in &args.skills {
        let next = if Path::new(name)
            .extension()
            .is_some_and(|ending| ending == "toml")
        {
            Skill::load(Path::new(name))?
        } else if let (true, Ok(style)) = (args.mini, name.parse()) {
            skill(style)?
        } else {
            // Both worlds have skills of the same names, so this knows which names there are.
            Skill::builtin(name)?
        };
        ensure!(
            skills.iter().all(|other| other.name != next.name),
            "the skill {} is given twice, and both would write the same files",
            next.name
        );
        skills.push(next);
    }
    Ok(skills)
}
