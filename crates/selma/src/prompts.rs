//! Writing the prompts of a skill to files.

use std::path::{Path, PathBuf};

use selma_durable::{create_folder, write_json};
use selma_llm::{
    ChatModel, GenerationReport, Journal, LlmError, PromptEvent, PromptGenerator, write_prompts,
    write_rejected,
};

use crate::{RunEvent, RunObserver, SelmaError};

/// Where a model's answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// The journal has those to requests made before; the model is asked for the others.
    New,
    /// The journal has all of them; the model is not asked.
    Recorded,
}

/// Has `model` write the prompts of the generator's skill into `folder`, which is made if need be.
///
/// `SKILL.journal.jsonl` gets every raw answer at once, so that nothing is asked twice after an interruption (with
/// `Answers::Recorded` it has to have all of them, and is only read);
/// `SKILL.rejected.jsonl` the prompts left out and why, `SKILL.report.json` what the function returns, and
/// `SKILL.jsonl`, which comes last, the prompts.
///
/// # Errors
///
/// [`SelmaError::Cancelled`] if the observer stops, errors of the model, and of writing.
pub fn write_skill(
    generator: &PromptGenerator,
    model: &dyn ChatModel,
    answers: Answers,
    folder: &Path,
    observer: &mut RunObserver<'_>,
) -> Result<GenerationReport, SelmaError> {
    let skill = &generator.skill().name;
    let path = |ending: &str| folder.join(format!("{skill}.{ending}"));
    let journal_path = path("journal.jsonl");
    let mut journal = match answers {
        Answers::New => {
            create_folder(folder)?;
            Journal::open(&journal_path)?
        }
        Answers::Recorded => Journal::replay(&journal_path)?,
    };
    let bytes = journal.repaired_bytes();
    if bytes > 0 {
        let path = &journal_path;
        if observer(RunEvent::Repaired { path, bytes }).is_break() {
            return Err(SelmaError::Cancelled);
        }
    }
    let (mut done, mut rejected) = (0, 0_u32);
    let mut observe = |event: &PromptEvent<'_>| {
        match event {
            PromptEvent::Kept(_) => done += 1,
            PromptEvent::Rejected(_) => rejected += 1,
            _ => {}
        }
        observer(RunEvent::Progress {
            task: skill,
            done,
            total: generator.config().count,
            unit: "prompts",
            note: Some(("rejected", f64::from(rejected))),
        })
    };
    let generation = generator.run(model, Some(&mut journal), &mut observe);
    let generation = generation.map_err(|error| match error {
        LlmError::Cancelled { .. } => SelmaError::Cancelled,
        other => other.into(),
    })?;
    write_rejected(&path("rejected.jsonl"), &generation.rejected)?;
    write_json(&report_path(folder, skill), &generation.report)?;
    // Last, because it marks the skill as finished.
    write_prompts(&path("jsonl"), &generation.prompts)?;
    Ok(generation.report)
}

/// Where [`write_skill`] says how it went.
pub(crate) fn report_path(folder: &Path, skill: &str) -> PathBuf {
    folder.join(format!("{skill}.report.json"))
}
