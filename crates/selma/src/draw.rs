//! Drawing many prompts into a data set, batch by batch.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use selma_dataset::{DatasetWriter, Provenance};
use selma_diffusion::schedulers::SchedulerKind;
use selma_diffusion::{DiffusionError, StableDiffusion, TextToImage};
use selma_llm::Prompt;

use crate::{RunEvent, RunObserver, SelmaError};

/// A picture to draw.
#[derive(Debug, Clone, Copy)]
pub struct Drawing<'a> {
    /// Identifier of the prompt, from which the file is named.
    pub id: &'a str,
    /// Which of the prompt's pictures it is, from 0.
    pub copy: usize,
    /// The skill it belongs to.
    pub skill: &'a str,
    /// The prompt.
    pub text: &'a str,
    /// Seed of the noise.
    pub seed: u64,
}

impl<'a> Drawing<'a> {
    /// `per_prompt` pictures of each prompt, prompt by prompt. The first picture of a prompt does not depend on how many follow. `seed` derives the seed of the
    /// noise from a purpose and indices.
    #[must_use]
    pub fn of_prompts(
        prompts: &'a [Prompt],
        per_prompt: usize,
        seed: impl Fn(&str, &[u64]) -> u64,
    ) -> Vec<Self> {
        let drawing = |(prompt, number): (&'a Prompt, u64), copy: usize| {
            let purpose = format!("image {}", prompt.skill);
            let indices = [number, copy as u64];
            let indices = if copy == 0 {
                &indices[..1]
            } else {
                &indices[..]
            };
            Self {
                id: &prompt.id,
                copy,
                skill: &prompt.skill,
                text: &prompt.text,
                seed: seed(&purpose, indices),
            }
        };
        let numbered = prompts.iter().zip(0..);
        numbered
            .flat_map(|prompt| (0..per_prompt).map(move |copy| drawing(prompt, copy)))
            .collect()
    }

    /// Name of the picture's file.
    fn file_name(&self) -> String {
        match self.copy {
            0 => file_name(self.id),
            copy => file_name(&format!("{}-{copy}", self.id)),
        }
    }
}

/// How to draw.
#[derive(Debug, Clone, Copy)]
pub struct DrawingStyle<'a> {
    /// Denoising steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; none at 1.
    pub guidance: f64,
    /// The scheduler; the checkpoint's if none is given.
    pub scheduler: Option<SchedulerKind>,
    /// Pictures drawn together.
    pub batch_size: usize,
    /// Name of the model for the provenance.
    pub model: &'a str,
    /// Hash of the base's weights.
    pub model_hash: &'a str,
    /// What not to draw, if anything.
    pub negative: Option<&'a str>,
    /// Width and height in pixels; the model's own if none are given.
    pub size: Option<(usize, usize)>,
    /// The adapters for the provenance: the hash of each, with `=WEIGHT` behind it unless that is 1.
    pub adapters: &'a [String],
}

/// Name of the first picture of a prompt.
#[must_use]
pub fn file_name(id: &str) -> String {
    format!("{id}.png")
}

/// Draws all prompts that a data set does not have yet, and finishes it.
///
/// Batches are cut by position, not by what is missing, so that an interrupted run draws the same batches again as an
/// uninterrupted one: sums in another order would change the last bit of a picture. `task` is what the observer is told.
///
/// # Errors
///
/// [`SelmaError::SameFile`] if two of them have one name, before anything is written;
/// [`SelmaError::OtherPictures`] if the folder has pictures that are not among these or were drawn in another way,
/// [`SelmaError::Cancelled`] if the observer stops, and errors of drawing and writing; finished pictures are kept.
pub fn draw(
    pipeline: &StableDiffusion,
    drawings: &[Drawing<'_>],
    style: &DrawingStyle<'_>,
    folder: &Path,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    if style.batch_size == 0 {
        return Err(SelmaError::Setting {
            field: "batch_size".to_owned(),
            expected: "at least 1".to_owned(),
            found: "0".to_owned(),
        });
    }
    let wanted = by_file_name(drawings)?;
    let mut writer = DatasetWriter::open(folder)?;
    let scheduler = pipeline.scheduler_for(style.scheduler)?.name();
    if let Err(error) = check_drawn(&writer, &wanted, style, scheduler) {
        writer.leave()?;
        return Err(error);
    }
    let total = drawings.len();
    let mut cut = HashSet::new();
    for batch in drawings.chunks(style.batch_size) {
        if batch
            .iter()
            .all(|drawing| writer.contains(&drawing.file_name()))
        {
            continue;
        }
        let prompts = batch
            .iter()
            .map(|drawing| drawing.text.to_owned())
            .collect();
        let mut request = TextToImage::new(prompts, batch.iter().map(|d| d.seed).collect());
        request.steps = style.steps;
        request.guidance = Some(style.guidance);
        request.scheduler = style.scheduler;
        request.negative_prompts = style.negative.map(str::to_owned).into_iter().collect();
        request.width = style.size.map(|(width, _)| width);
        request.height = style.size.map(|(_, height)| height);
        let done = writer.len();
        let mut observe = |state: selma_diffusion::pipeline::Denoising<'_>| -> ControlFlow<()> {
            for truncated in state.truncated {
                if cut.insert(truncated.text.clone()) {
                    observer(RunEvent::Truncated {
                        text: &truncated.text,
                        cut: &truncated.cut,
                        dropped: truncated.dropped,
                    })?;
                }
            }
            observer(RunEvent::Progress {
                task,
                done,
                total,
                unit: "images",
                note: None,
            })
        };
        let generated = pipeline.generate(&request, &mut observe);
        let generated = generated.map_err(|error| match error {
            DiffusionError::Cancelled => SelmaError::Cancelled,
            other => other.into(),
        })?;
        for (drawing, image) in batch.iter().zip(&generated.images) {
            let name = drawing.file_name();
            if writer.contains(&name) {
                continue;
            }
            let provenance = provenance(drawing, style, scheduler, image.dimensions());
            writer.push(&name, image, drawing.text, provenance)?;
        }
        let progress = RunEvent::Progress {
            task,
            done: writer.len(),
            total,
            unit: "images",
            note: None,
        };
        if observer(progress).is_break() {
            return Err(SelmaError::Cancelled);
        }
    }
    Ok(writer.finish()?)
}

/// The drawings by the names of their files, which differ: prompts may be called `x` and `x-1`, and the second picture of
/// `x` is `x-1.png` too.
fn by_file_name<'a>(
    drawings: &'a [Drawing<'a>],
) -> Result<HashMap<String, &'a Drawing<'a>>, SelmaError> {
    let mut wanted = HashMap::with_capacity(drawings.len());
    for drawing in drawings {
        if let Some(first) = wanted.insert(drawing.file_name(), drawing) {
            return Err(SelmaError::SameFile {
                first: first.id.to_owned(),
                second: drawing.id.to_owned(),
                file_name: drawing.file_name(),
            });
        }
    }
    Ok(wanted)
}

/// Sees that the pictures that a data set has are some of those to be drawn.
fn check_drawn(
    writer: &DatasetWriter,
    wanted: &HashMap<String, &Drawing<'_>>,
    style: &DrawingStyle<'_>,
    scheduler: &str,
) -> Result<(), SelmaError> {
    for sample in writer.samples() {
        let other = |reason| SelmaError::OtherPictures {
            path: writer.root().to_owned(),
            file_name: sample.file_name.clone(),
            reason,
        };
        let drawing = wanted
            .get(&sample.file_name)
            .ok_or_else(|| other("which is not to be drawn"))?;
        if sample.text != drawing.text {
            return Err(other("whose prompt was another one"));
        }
        let Some(found) = &sample.provenance else {
            return Err(other("whose origin is unknown"));
        };
        // The same weights may lie in another folder now.
        let size = match style.size {
            Some((width, height)) => (width as u32, height as u32),
            None => (found.width, found.height),
        };
        let expected = Provenance {
            model: found.model.clone(),
            ..provenance(drawing, style, scheduler, size)
        };
        if *found != expected {
            return Err(other("which was drawn by another model, seed or setting"));
        }
    }
    Ok(())
}

fn provenance(
    drawing: &Drawing<'_>,
    style: &DrawingStyle<'_>,
    scheduler: &str,
    (width, height): (u32, u32),
) -> Provenance {
    Provenance {
        skill: drawing.skill.to_owned(),
        prompt_id: drawing.id.to_owned(),
        model: style.model.to_owned(),
        model_hash: style.model_hash.to_owned(),
        seed: drawing.seed,
        scheduler: scheduler.to_owned(),
        steps: style.steps as u32,
        guidance: style.guidance,
        width,
        height,
        negative_prompt: style.negative.map(str::to_owned),
        adapters: style.adapters.to_vec(),
    }
}
