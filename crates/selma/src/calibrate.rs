//! Collecting the statistics of SSR-Merge.

use std::ops::ControlFlow;

use selma_diffusion::pipeline::TextToImage;
use selma_diffusion::{DiffusionError, StableDiffusion};
use selma_lora::merge::Calibration;
use selma_lora::nn::{Calibrator, attach};
use selma_lora::{Adapter, LoraError};

use crate::SelmaError;

const BRANCH: &str = "calibrated";

/// An adapter and prompts of its task.
#[derive(Debug, Clone, Copy)]
pub struct CalibrationTask<'a> {
    /// The adapter.
    pub adapter: &'a Adapter,
    /// What is drawn for it.
    pub prompts: &'a [String],
}

/// How inputs are made, by default as the published code makes them (arXiv 2606.10617): the first of 50 steps of one picture, at the model's guidance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CalibrationStyle {
    /// Steps of the drawing.
    pub steps: usize,
    /// How many of them are seen, the first.
    pub seen_steps: usize,
    /// Scale of guidance; the model's default if none is given. With guidance, the inputs without the prompt are seen, too.
    pub guidance: Option<f64>,
    /// Seed of the noise of the first prompt, from which the others count on.
    pub seed: u64,
}

impl Default for CalibrationStyle {
    fn default() -> Self {
        Self {
            steps: 50,
            seen_steps: 1,
            guidance: None,
            seed: 42,
        }
    }
}

/// Collects statistics: for each task its adapter is attached to the UNet, its prompts are drawn, and what reaches the ranks of all adapters is summed up. The adapters are
/// those of the merge, in its order.
///
/// `observer` is called before each prompt with its task and its number.
///
/// # Errors
///
/// If an adapter does not fit the model, a task has no prompts, the observer stops, or something seen is not finite.
pub fn calibrate(
    pipeline: &StableDiffusion,
    tasks: &[CalibrationTask<'_>],
    style: &CalibrationStyle,
    observer: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Calibration, SelmaError> {
    let adapters: Vec<&Adapter> = tasks.iter().map(|task| task.adapter).collect();
    let calibrator = Calibrator::new(&adapters)?;
    for (number, task) in tasks.iter().enumerate() {
        if task.prompts.is_empty() {
            return Err(SelmaError::Lora(LoraError::Calibration {
                what: "of a task",
                expected: "prompts".to_owned(),
                found: format!("none for adapter {number}"),
            }));
        }
        let mut pipeline = pipeline.clone();
        attach(&mut pipeline.unet, "unet", task.adapter, BRANCH, 1.0)?;
        calibrator.watch(&mut pipeline.unet, "unet", number);
        for (index, (prompt, seed)) in task.prompts.iter().zip(style.seed..).enumerate() {
            if observer(number, index).is_break() {
                return Err(SelmaError::Cancelled);
            }
            let mut request = TextToImage::new(vec![prompt.clone()], vec![seed]);
            request.steps = style.steps;
            request.guidance = style.guidance;
            let mut done = 0;
            let drawn = pipeline.generate(&request, &mut |_| {
                done += 1;
                if done < style.seen_steps {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
            match drawn {
                Ok(_) | Err(DiffusionError::Cancelled) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(calibrator.finish()?)
}
