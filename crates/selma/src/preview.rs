//! Pictures that show how far a training is.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use selma_diffusion::StableDiffusion;
use selma_diffusion::models::UNet2DConditionModel;
use selma_diffusion::pipeline::TextToImage;
use selma_diffusion::png::encode;
use selma_durable::{atomic_write, create_folder};

use crate::SelmaError;

/// What is drawn every so many steps, from the same noise each time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previews {
    /// A picture for each.
    pub prompts: Vec<String>,
    /// Steps of the training between two drawings.
    pub every: usize,
    /// Denoising steps.
    pub steps: usize,
    /// Seed of the noise of the first picture, from which the others count on.
    pub seed: u64,
}

impl Previews {
    /// Whether pictures are drawn after so many steps.
    #[must_use]
    pub fn is_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.every.max(1))
    }

    /// The picture of a prompt after so many steps, in the folder of the training.
    #[must_use]
    pub fn path(folder: &Path, step: usize, prompt: usize) -> PathBuf {
        let step = format!("step-{step:06}");
        folder
            .join("previews")
            .join(step)
            .join(format!("{prompt}.png"))
    }

    /// Draws with a model as it stands.
    ///
    /// # Errors
    ///
    /// Those of drawing and of writing.
    pub fn draw(
        &self,
        pipeline: &StableDiffusion,
        unet: UNet2DConditionModel,
        folder: &Path,
        step: usize,
    ) -> Result<(), SelmaError> {
        let mut pipeline = pipeline.clone();
        pipeline.unet = unet;
        let seeds = (self.seed..).take(self.prompts.len()).collect();
        let mut request = TextToImage::new(self.prompts.clone(), seeds);
        request.steps = self.steps;
        for (number, part) in request.batches(1)?.iter().enumerate() {
            let drawn = pipeline.generate(part, &mut |_| ControlFlow::Continue(()))?;
            let path = Self::path(folder, step, number);
            if let Some(folder) = path.parent() {
                create_folder(folder)?;
            }
            for image in &drawn.images {
                atomic_write(&path, &encode(image, None)?)?;
            }
        }
        Ok(())
    }
}
