//! How a picture was drawn.

use std::path::{Path, PathBuf};

use selma_diffusion::png::{self, Description, Settings, UsedFile};
use serde::Serialize;

use crate::table::pairs;

/// A PNG file.
#[derive(Debug, Serialize)]
pub struct Picture {
    path: PathBuf,
    #[serde(flatten)]
    description: Description,
}

pub fn describe(path: &Path) -> anyhow::Result<Picture> {
    Ok(Picture {
        path: path.to_owned(),
        description: png::describe(path)?,
    })
}

impl super::Description for Picture {
    fn text(&self) -> String {
        let Description {
            width,
            height,
            parameters,
            settings,
        } = &self.description;
        let mut rows = vec![
            ("picture", self.path.display().to_string()),
            ("size", format!("{width}x{height}")),
        ];
        match (settings, parameters) {
            (Some(settings), _) => rows.extend(settings_rows(settings)),
            (None, Some(parameters)) => {
                rows.extend(
                    parameters
                        .lines()
                        .map(|line| ("parameters", line.to_owned())),
                );
            }
            (None, None) => rows.push(("settings", "none in the file".to_owned())),
        }
        pairs(&rows)
    }
}

fn settings_rows(settings: &Settings) -> Vec<(&'static str, String)> {
    let file = |file: &UsedFile| format!("{} (sha256 {})", file.name, file.sha256);
    let mut rows = vec![("prompt", settings.prompt.clone())];
    rows.extend(
        settings
            .negative_prompt
            .clone()
            .map(|text| ("negative", text)),
    );
    rows.extend([
        ("seed", settings.seed.to_string()),
        ("steps", settings.steps.to_string()),
        ("guidance", settings.guidance.to_string()),
    ]);
    if settings.guidance_rescale > 0.0 {
        rows.push(("guidance rescale", settings.guidance_rescale.to_string()));
    }
    rows.extend(
        settings
            .clip_skip
            .map(|layers| ("clip skip", layers.to_string())),
    );
    if !settings.micro_conditioning.is_default() {
        let sizes = serde_json::to_string(&settings.micro_conditioning);
        rows.extend(sizes.map(|sizes| ("sizes told", sizes)));
    }
    rows.push(("scheduler", settings.scheduler.clone()));
    if settings.eta > 0.0 {
        rows.push(("eta", settings.eta.to_string()));
    }
    if let Ok(config) = serde_json::to_string(&settings.scheduler_config) {
        rows.push(("scheduler config", config));
    }
    rows.extend([
        ("number type", settings.dtype.clone()),
        ("model", file(&settings.model)),
    ]);
    rows.extend(settings.vae.as_ref().map(|used| ("VAE", file(used))));
    for adapter in &settings.adapters {
        let fused = if adapter.fused { ", fused" } else { "" };
        let text = format!("{}, weight {}{fused}", file(&adapter.file), adapter.weight);
        rows.push(("adapter", text));
    }
    if let Some(image) = &settings.init_image {
        let text = format!("{}, strength {}", file(&image.file), image.strength);
        rows.push(("initial image", text));
    }
    rows.extend(
        settings
            .init_latents
            .as_ref()
            .map(|used| ("initial latents", file(used))),
    );
    rows.extend(
        settings
            .vae_tile_size
            .map(|size| ("VAE tiles", format!("{size}x{size}"))),
    );
    rows.push(("drawn by", format!("selma {}", settings.version)));
    rows
}
