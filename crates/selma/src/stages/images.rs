//! Stage 2: the model, or its teacher, draws the prompts.

use selma_dataset::METADATA_FILE;
use selma_diffusion::{Checkpoint, StableDiffusion};
use selma_llm::read_prompts;

use super::prompts::finished;
use crate::draw::{Drawing, DrawingStyle, draw};
use crate::{Run, RunObserver, SelmaError};

/// Draws the prompts of every skill.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    let stage = &run.recipe.images;
    let hash = run.teacher_hash()?;
    let model = stage.model.as_ref().unwrap_or(&run.recipe.model);
    let model = model.to_string_lossy();
    let mut pipeline = None;
    for skill in run.skills.iter().filter(|skill| wanted(&skill.name)) {
        let folder = run.layout.images_of(&skill.name);
        let before = is_finished(run, &skill.name);
        if !before {
            let path = run.layout.prompts_of(&skill.name);
            if !path.is_file() {
                return Err(SelmaError::MissingStage {
                    path,
                    stage: "prompts",
                });
            }
            let prompts = read_prompts(&path)?;
            let seed = |purpose: &str, indices: &[u64]| run.seed(purpose, indices);
            let drawings = Drawing::of_prompts(&prompts, stage.per_prompt, seed);
            let pipeline = load_once(&mut pipeline, run, Run::teacher)?;
            let style = DrawingStyle {
                steps: stage.steps,
                guidance: stage.guidance,
                scheduler: stage.scheduler,
                batch_size: stage.batch_size,
                model: &model,
                model_hash: &hash,
                negative: None,
                size: None,
                adapters: &[],
            };
            draw(pipeline, &drawings, &style, &folder, &skill.name, observer)?;
        }
        finished(observer, &skill.name, before)?;
    }
    Ok(())
}

/// Whether the pictures of a skill are drawn.
pub(crate) fn is_finished(run: &Run, skill: &str) -> bool {
    let folder = run.layout.images_of(skill);
    folder.join(METADATA_FILE).is_file()
}

/// Loads a model of the run when it is first needed.
pub(super) fn load_once<'a>(
    slot: &'a mut Option<StableDiffusion>,
    run: &Run,
    checkpoint: impl Fn(&Run) -> Result<Checkpoint, SelmaError>,
) -> Result<&'a mut StableDiffusion, SelmaError> {
    let loaded = match slot.take() {
        Some(pipeline) => pipeline,
        None => StableDiffusion::from_checkpoint(&checkpoint(run)?, &run.device)?,
    };
    Ok(slot.insert(loaded))
}
