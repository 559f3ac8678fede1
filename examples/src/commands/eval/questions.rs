//! `selma eval questions`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::bail;
use clap::ArgGroup;
use selma_durable::to_jsonl;
use selma_eval::dsg::{WrittenQuestions, write_questions};
use selma_eval::rating::read_study_prompts;
use selma_eval::{EvalError, QuestionSet};
use selma_llm::{Journal, OpenAiClient, OpenAiConfig, Recorded};

use crate::commands::server;
use crate::interrupt;
use crate::output::{Output, spare};
use crate::progress::Progress;
use crate::terminal::say;

/// Write yes/no questions for your own prompts with a language model, in the three steps of Davidsonian Scene Graphs.
///
/// What a prompt says becomes tuples, each tuple is told what it presupposes, and becomes a question. FILE.csv has DSG's
/// columns, so that selma eval dsg and DSG's program read it. FILE.unwritten.jsonl has the prompts whose questions could not
/// be used, and why; FILE.journal.jsonl every raw answer: stopped at any time, the same command goes on from there
/// without asking anything twice.
#[derive(Debug, clap::Args)]
#[command(
    group = ArgGroup::new("writer").required(true).args(["llm", "llm_config"]),
    after_help = "\
Examples:
  selma eval questions --prompts prompts/coco.jsonl --llm http://localhost:8000/v1 --model my-model --out questions.csv
  selma eval dsg --images drawn --annotations questions.csv --vqa openai:http://localhost:8000/v1#my-vision-model"
)]
pub struct Questions {
    /// Prompts: JSONL with "id", "text" and, if there are any, "category" or "skill".
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: PathBuf,
    /// Address of an OpenAI-compatible server (vLLM, llama.cpp, Ollama, OpenAI, ..), with its version.
    #[arg(long, value_name = "URL", requires = "model")]
    llm: Option<String>,
    /// The model's name on the server.
    #[arg(long, value_name = "NAME", requires = "llm")]
    model: Option<String>,
    /// Environment variable with the API key. Without it no key is sent.
    #[arg(long, value_name = "VAR", requires = "llm")]
    api_key_env: Option<String>,
    /// Everything about the server as a TOML file, as for selma prompts.
    #[arg(long, value_name = "FILE.toml")]
    llm_config: Option<PathBuf>,
    /// Prompts worked on at once. Default: 4, or as the file of --llm-config says.
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Where the questions go.
    #[arg(long, value_name = "FILE.csv")]
    out: PathBuf,
}

impl Questions {
    pub fn run(self) -> anyhow::Result<()> {
        let beside = |ending: &str| self.out.with_extension(ending);
        let (journal, unwritten) = (beside("journal.jsonl"), beside("unwritten.jsonl"));
        let outputs = [&self.out, &journal, &unwritten].map(PathBuf::as_path);
        spare([self.prompts.as_path()], outputs)?;
        let output = Output::create(&self.out)?;
        let prompts = read_study_prompts(&self.prompts)?;
        let client = OpenAiClient::new(self.config()?)?;
        interrupt::install()?;
        let journal = Journal::open(&journal)?;
        if journal.repaired_bytes() > 0 {
            let bytes = journal.repaired_bytes();
            say(format_args!(
                "the journal: a torn last line of {bytes} bytes was cut off"
            ));
        }
        let model = Recorded::new(client, journal);
        let mut progress = Progress::new("writing", prompts.len() as u64, "prompts");
        let written = write_questions(&model, &prompts, |state| {
            let note = match state.unwritten {
                0 => String::new(),
                count => format!("{count} without questions"),
            };
            progress.set(state.done as u64, note);
            interrupt::flow()
        });
        let written = match written {
            Err(EvalError::Cancelled { .. }) => {
                bail!("interrupted; the same command goes on from here")
            }
            other => other?,
        };
        progress.finish();
        self.save(written, output, &unwritten)
    }

    fn config(&self) -> anyhow::Result<OpenAiConfig> {
        let mut config = match (&self.llm_config, &self.llm, &self.model) {
            (Some(path), _, _) => server::load(path)?,
            (None, Some(url), Some(name)) => OpenAiConfig::new(url, name),
            // The command line has made sure that there is one of them.
            _ => bail!("either --llm and --model, or --llm-config, are needed"),
        };
        if let Some(variable) = &self.api_key_env {
            config.api_key_env = Some(variable.clone());
        }
        if let Some(jobs) = self.jobs {
            config.in_flight = jobs.get();
        }
        Ok(config)
    }

    /// Writes what there is; that some prompts have no questions is told, and no failure.
    fn save(
        &self,
        written: WrittenQuestions,
        output: Output,
        unwritten: &std::path::Path,
    ) -> anyhow::Result<()> {
        let rows = written.unwritten.len();
        if rows > 0 || unwritten.exists() {
            let bytes = to_jsonl(unwritten, &written.unwritten)?;
            Output::create(unwritten)?.finish_with(&bytes)?;
        }
        if let Some(first) = written.unwritten.first() {
            say(format_args!(
                "{rows} prompts have no questions, see {}; the first: {}: {}: {}",
                unwritten.display(),
                first.id,
                first.step,
                first.reason
            ));
        }
        if written.questions.is_empty() {
            bail!("no prompt has questions");
        }
        let questions = QuestionSet::new(written.questions)?;
        output.finish_with(&questions.to_csv(&self.out)?)?;
        say(format_args!(
            "{} questions of {} prompts",
            questions.question_count(),
            questions.items().len()
        ));
        Ok(())
    }
}
