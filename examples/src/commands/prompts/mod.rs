//! `selma prompts`.

mod compare;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::ArgGroup;
use selma::RunEvent;
use selma::prompts::{Answers, write_skill};
use selma_llm::{
    BlockList, ChatModel, Endpoint, OpenAiClient, OpenAiConfig, Prompt, PromptComparison,
    PromptConfig, PromptGenerator, PromptStatistics, Skill, Strategy, read_prompts,
};
use selma_mini::{GrammarModel, Style, skill};
use selma_rouge::Tokenizer;

use self::compare::{BiasArgs, CompareArgs};
use super::skills::is_file;
use super::{events::Events, server, values};
use crate::interrupt;
use crate::terminal::{print, say};

/// Write prompts with a language model, one file a skill, or look at prompts that were written.
///
/// The model is shown three examples of a skill and asked for more; each new prompt is kept unless it is a near copy of
/// one that is there. DIR/SKILL.jsonl has the prompts, DIR/SKILL.rejected.jsonl those left out and why,
/// DIR/SKILL.report.json the numbers, and DIR/SKILL.journal.jsonl every raw answer: stopped at any time, the same command
/// goes on from there without asking anything twice.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  selma prompts --mini --count 100 --out prompts
  selma prompts --llm http://localhost:8000/v1 --model my-model --skill coco --skill kitchens.toml --count 1000 --out prompts
  selma prompts --llm https://api.openai.com/v1 --model gpt-4o-mini --api-key-env OPENAI_API_KEY --count 1000 --out prompts
  selma prompts --llm-config server.toml --strategy taxonomy --count 1000 --out prompts
  selma prompts compare prompts-llama3 prompts-gpt"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    write: Option<WriteArgs>,
}

/// What to do with prompts that were written.
#[derive(Debug, clap::Subcommand)]
enum Command {
    Compare(CompareArgs),
    Bias(BiasArgs),
}

/// How to write prompts.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("writer").required(true).args(["llm", "llm_config", "mini"]))]
struct WriteArgs {
    /// A skill by name (see `selma skills`) or as a TOML file. Repeat it for several. Default: the five of the paper.
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
    /// Use the older interface for completions instead of the one for chats, as the paper's code does.
    #[arg(long, requires = "llm")]
    completions: bool,
    /// Everything about the server as a TOML file: address, model, key, time-outs, retries, limits, budget, prices, extra fields.
    #[arg(long, value_name = "FILE.toml")]
    llm_config: Option<PathBuf>,
    /// Write prompts of the miniature world with its grammar, which needs no server.
    #[arg(long)]
    mini: bool,
    /// Ask nobody: make the files anew from the answers in the journals that are in the folder.
    #[arg(long)]
    replay: bool,
    /// What requests show and ask for: pool (SELMA), seeds (Alpaca), stratified (combinations of attributes), taxonomy (a topic
    /// a request), selma-official (the released code to the letter).
    #[arg(long, value_name = "NAME", default_value = "pool", value_parser = values::named::<Strategy>(Strategy::ALL.map(Strategy::name)))]
    strategy: Strategy,
    /// Requests made on one state of the pool. Default: 1, and 5 for selma-official.
    #[arg(long, value_name = "N")]
    request_batch_size: Option<NonZeroUsize>,
    /// Seed of the examples shown and of the model's sampling.
    #[arg(long, value_name = "S", default_value = "0")]
    seed: u64,
    /// Sampling temperature.
    #[arg(long, value_name = "T", default_value = "1", value_parser = values::finite)]
    temperature: f64,
    /// Mass of nucleus sampling; over 0 and at most 1.
    #[arg(long, value_name = "P", default_value = "1", value_parser = values::finite)]
    top_p: f64,
    /// Most tokens of an answer.
    #[arg(long, value_name = "N", default_value = "3072")]
    max_tokens: NonZeroU32,
    /// Requests in a row without a new prompt after which to give up.
    #[arg(long, value_name = "N", default_value = "20")]
    max_stalled_requests: NonZeroU32,
    /// A prompt is left out if its ROUGE-L F with another is greater than this; over 0 and at most 1.
    #[arg(long, value_name = "F", default_value = "0.8", value_parser = values::threshold)]
    threshold: f64,
    /// How prompts become words for ROUGE-L; "unicode" knows every script.
    #[arg(long, value_name = "NAME", default_value = "rouge", value_parser = values::named::<Tokenizer>(["rouge", "rouge-stemmed", "unicode"]))]
    tokenizer: Tokenizer,
    /// Terms that no prompt may have, one a line.
    #[arg(long, value_name = "FILE")]
    block_list: Option<PathBuf>,
    /// Leave out prompts that name an artist, which those of diffusion_db like to do.
    #[arg(long)]
    drop_named_artists: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match (args.command, args.write) {
        (Some(Command::Compare(args)), _) => compare::compare(args),
        (Some(Command::Bias(args)), _) => compare::bias(args),
        (None, Some(args)) => write(&args),
        (None, None) => Ok(()),
    }
}

fn write(args: &WriteArgs) -> anyhow::Result<()> {
    interrupt::install()?;
    let skills = skills(args)?;
    let block_list = args
        .block_list
        .as_deref()
        .map(BlockList::load)
        .transpose()?;
    let config = PromptConfig {
        count: args.count.get(),
        strategy: args.strategy,
        request_batch_size: args.request_batch_size.map(NonZeroUsize::get),
        threshold: args.threshold,
        tokenizer: args.tokenizer,
        block_list: block_list.unwrap_or_default(),
        drop_named_artists: args.drop_named_artists,
        temperature: args.temperature,
        top_p: args.top_p,
        max_tokens: args.max_tokens.get(),
        seed: args.seed,
        max_stalled_requests: args.max_stalled_requests.get(),
        ..PromptConfig::default()
    };
    let generators = skills
        .into_iter()
        .map(|skill| PromptGenerator::new(skill, config.clone()))
        .collect::<Result<Vec<_>, _>>()?;
    let model = model(args)?;
    let answers = if args.replay {
        Answers::Recorded
    } else {
        Answers::New
    };
    let mut events = Events::default();
    let mut sets = Vec::new();
    for generator in &generators {
        let observer = &mut |event: RunEvent<'_>| events.receive(event);
        let report = write_skill(generator, model.as_ref(), answers, &args.out, observer)?;
        events.finish();
        let skill = &generator.skill().name;
        say(format_args!(
            "{skill}: {} prompts in {} requests",
            report.kept, report.requests
        ));
        let prompts: Vec<Prompt> = read_prompts(&args.out.join(format!("{skill}.jsonl")))?;
        sets.push(PromptStatistics::new(skill, &prompts, args.tokenizer)?.with_report(report));
    }
    print(PromptComparison::new(sets))
}

/// Who writes.
fn model(args: &WriteArgs) -> anyhow::Result<Box<dyn ChatModel>> {
    let config = match (&args.llm_config, &args.llm, &args.model) {
        (Some(path), _, _) => server::load(path)?,
        (None, Some(url), Some(name)) => {
            let mut config = OpenAiConfig::new(url, name);
            config.api_key_env = args.api_key_env.clone();
            if args.completions {
                config.endpoint = Endpoint::Completions;
            }
            config
        }
        // The command line has made sure that there is an address with a model, or `--mini`.
        _ => return Ok(Box::new(GrammarModel)),
    };
    let client = if args.replay {
        // Nobody is asked, so no key is needed.
        OpenAiClient::with_key(config, None)?
    } else {
        OpenAiClient::new(config)?
    };
    Ok(Box::new(client))
}

fn skills(args: &WriteArgs) -> anyhow::Result<Vec<Skill>> {
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
        let next = if is_file(name) {
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
