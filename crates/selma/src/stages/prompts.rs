//! Stage 1: a language model writes prompts, a filter keeps them diverse.

use std::ops::ControlFlow;

use selma_durable::{create_folder, write_json};
use selma_llm::{
    ChatModel, GenerationReport, Journal, LlmError, OpenAiClient, PromptConfig, PromptEvent,
    PromptGenerator, Skill, write_prompts, write_rejected,
};
use selma_mini::GrammarModel;

use crate::files::read_json;
use crate::{Run, RunEvent, RunObserver, SelmaError, Writer};

/// Writes the prompts of every skill.
pub(crate) fn run(run: &Run, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
    create_folder(&run.layout.prompts())?;
    let writer: Box<dyn ChatModel> = match &run.recipe.prompts.writer {
        Writer::Mini => Box::new(GrammarModel),
        Writer::Openai(config) => Box::new(OpenAiClient::new(config.clone())?),
    };
    for skill in &run.skills {
        write_skill(run, skill, writer.as_ref(), observer)?;
    }
    Ok(())
}

fn write_skill(
    run: &Run,
    skill: &Skill,
    writer: &dyn ChatModel,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let path = run.layout.prompts_of(&skill.name);
    let before = path.is_file();
    if !before {
        let config = PromptConfig {
            seed: run.seed("prompts", &[]),
            ..run.recipe.prompts.settings.clone()
        };
        let total = config.count;
        let mut journal = Journal::open(&path.with_extension("journal.jsonl"))?;
        let mut done = 0;
        let mut observe = |event: &PromptEvent<'_>| -> ControlFlow<()> {
            if let PromptEvent::Kept(_) = event {
                done += 1;
            }
            observer(RunEvent::Progress {
                task: &skill.name,
                done,
                total,
                unit: "prompts",
                note: None,
            })
        };
        let generator = PromptGenerator::new(skill.clone(), config)?;
        let generation = generator.run(writer, Some(&mut journal), &mut observe);
        let generation = generation.map_err(|error| match error {
            LlmError::Cancelled { .. } => SelmaError::Cancelled,
            other => other.into(),
        })?;
        write_rejected(&path.with_extension("rejected.jsonl"), &generation.rejected)?;
        write_json(&report_path(run, skill), &generation.report)?;
        // Last, because it marks the skill as finished.
        write_prompts(&path, &generation.prompts)?;
    }
    finished(observer, &skill.name, before)
}

fn report_path(run: &Run, skill: &Skill) -> std::path::PathBuf {
    run.layout
        .prompts_of(&skill.name)
        .with_extension("report.json")
}

/// What happened when a skill's prompts were written; `None` for prompts that the user brought.
pub(crate) fn generation_report(
    run: &Run,
    skill: &Skill,
) -> Result<Option<GenerationReport>, SelmaError> {
    let path = report_path(run, skill);
    if path.is_file() {
        read_json(&path).map(Some)
    } else {
        Ok(None)
    }
}

/// Tells the observer that a piece of work is finished.
pub(super) fn finished(
    observer: &mut RunObserver<'_>,
    task: &str,
    before: bool,
) -> Result<(), SelmaError> {
    if observer(RunEvent::Finished { task, before }).is_break() {
        return Err(SelmaError::Cancelled);
    }
    Ok(())
}
