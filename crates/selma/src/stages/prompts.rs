//! Stage 1: a language model writes prompts, a filter keeps them diverse.

use selma_llm::{ChatModel, GenerationReport, OpenAiClient, PromptConfig, PromptGenerator, Skill};
use selma_mini::GrammarModel;
use sha2::{Digest, Sha256};

use crate::files::read_json;
use crate::prompts::{Answers, report_path, write_skill as write_skill_files};
use crate::{Run, RunEvent, RunObserver, SelmaError, Writer};

/// Writes the prompts of every skill.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let writer: Box<dyn ChatModel> = match &run.recipe.prompts.writer {
        Writer::Mini => Box::new(GrammarModel),
        Writer::Openai(config) => Box::new(OpenAiClient::new((**config).clone())?),
    };
    for skill in run.skills.iter().filter(|skill| wanted(&skill.name)) {
        run.unchanged(&format!("skill {}", skill.name), &hash(skill)?)?;
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
        let generator = PromptGenerator::new(skill.clone(), config)?;
        let folder = run.layout.prompts();
        write_skill_files(&generator, writer, Answers::New, &folder, observer)?;
    }
    finished(observer, &skill.name, before)
}

/// Hash of everything that a skill says.
fn hash(skill: &Skill) -> Result<String, SelmaError> {
    let text = serde_json::to_vec(skill).map_err(SelmaError::Json)?;
    Ok(hex::encode(Sha256::digest(text)))
}

/// What happened when a skill's prompts were written; `None` for prompts that the user brought.
pub(crate) fn generation_report(
    run: &Run,
    skill: &Skill,
) -> Result<Option<GenerationReport>, SelmaError> {
    let path = report_path(&run.layout.prompts(), &skill.name);
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
