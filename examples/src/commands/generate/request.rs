//! From flags to a request.

use std::num::NonZeroUsize;

use anyhow::ensure;
use image::RgbImage;
use selma_diffusion::pipeline::Pictures;
use selma_diffusion::{InitImage, Latents, StableDiffusion, TextToImage, image as pictures};

use super::Args;
use super::seeds::{listed, spread};

/// All pictures of a command line, prompt by prompt. Reads the files to start from.
pub fn build(args: &Args) -> anyhow::Result<TextToImage> {
    let init_latents = args
        .init_latents
        .as_deref()
        .map(Latents::load)
        .transpose()?;
    let seeds = listed(&args.seeds);
    let prompts = args.prompts.len();
    let per_prompt = match (args.images_per_prompt, &init_latents) {
        (Some(count), _) => count.get(),
        // A single prompt serves all latents.
        (None, Some(latents)) if prompts == 1 => latents.shape[0],
        (None, None) if seeds.len() != 1 && seeds.len() != prompts => seeds.len(),
        (None, _) => 1,
    };
    for (flag, count) in [
        ("--negative", args.negatives.len()),
        ("--init-image", args.init_images.len()),
    ] {
        ensure!(
            count <= 1 || count == prompts,
            "{count} times {flag} for {prompts} prompts; expected once for all, or once for each"
        );
    }
    let init_images = args
        .init_images
        .iter()
        .map(pictures::open)
        .collect::<Result<Vec<RgbImage>, _>>()?;
    let init_image = (!init_images.is_empty()).then(|| InitImage {
        pictures: Pictures::Images(shared_or_repeated(&init_images, per_prompt)),
        strength: args.strength,
    });
    Ok(TextToImage {
        negative_prompts: shared_or_repeated(&args.negatives, per_prompt),
        steps: args.steps.get(),
        guidance: args.guidance,
        guidance_rescale: args.guidance_rescale,
        eta: args.eta,
        clip_skip: args.clip_skip,
        micro_conditioning: args.sizes.micro_conditioning(),
        scheduler: args.scheduler,
        width: args.width.map(NonZeroUsize::get),
        height: args.height.map(NonZeroUsize::get),
        init_latents,
        init_image,
        ..TextToImage::new(
            repeated(&args.prompts, per_prompt),
            spread(seeds, prompts, per_prompt)?,
        )
    })
}

/// What there is one of for each prompt, for each of its pictures. One for all stays alone.
fn shared_or_repeated<T: Clone>(all: &[T], per_prompt: usize) -> Vec<T> {
    match all {
        [shared] => vec![shared.clone()],
        _ => repeated(all, per_prompt),
    }
}

fn repeated<T: Clone>(all: &[T], times: usize) -> Vec<T> {
    let all = all.iter();
    all.flat_map(|one| std::iter::repeat_n(one.clone(), times))
        .collect()
}

/// Takes the picture's size from the initial latents where no flag gives it.
pub fn fit_to_latents(mut request: TextToImage, pipeline: &StableDiffusion) -> TextToImage {
    if let Some(Latents {
        shape: [_, _, height, width],
        ..
    }) = &request.init_latents
    {
        let factor = pipeline.vae_config.factor();
        request.width = request.width.or(Some(width * factor));
        request.height = request.height.or(Some(height * factor));
    }
    request
}
