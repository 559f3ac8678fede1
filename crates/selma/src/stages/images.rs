//! Stage 2: the model draws the prompts.

use selma_dataset::METADATA_FILE;
use selma_diffusion::StableDiffusion;
use selma_llm::read_prompts;

use super::prompts::finished;
use crate::draw::{Drawing, DrawingStyle, draw};
use crate::{Run, RunObserver, SelmaError};

/// Draws the prompts of every skill.
pub(crate) fn run(run: &Run, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
    let stage = &run.recipe.images;
    let hash = run.model_hash()?;
    let mut pipeline = None;
    for skill in &run.skills {
        let folder = run.layout.images_of(&skill.name);
        let before = folder.join(METADATA_FILE).is_file();
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
            let pipeline = load_once(&mut pipeline, run)?;
            let model = run.recipe.model.to_string_lossy();
            let style = DrawingStyle {
                steps: stage.steps,
                guidance: stage.guidance,
                scheduler: stage.scheduler,
                batch_size: stage.batch_size,
                model: &model,
                model_hash: hash,
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

/// Loads the base model when it is first needed.
pub(super) fn load_once<'a>(
    slot: &'a mut Option<StableDiffusion>,
    run: &Run,
) -> Result<&'a mut StableDiffusion, SelmaError> {
    let loaded = match slot.take() {
        Some(pipeline) => pipeline,
        None => StableDiffusion::from_checkpoint(&run.checkpoint()?, &run.device)?,
    };
    Ok(slot.insert(loaded))
}
