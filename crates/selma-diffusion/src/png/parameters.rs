//! The text `parameters`: `create_infotext` of AUTOMATIC1111's web UI, which Civitai, ComfyUI's readers and image viewers understand.

use std::fmt::Write;

use super::Settings;

/// Characters of a model's hash.
const HASH: usize = 10;

/// The settings of a picture of this width and height in that form: the prompt with its adapters as `<lora:NAME:WEIGHT>`, the negative prompt, and a line of `Key: value`.
#[must_use]
pub fn parameters(settings: &Settings, (width, height): (u32, u32)) -> String {
    let mut text = settings.prompt.clone();
    for adapter in &settings.adapters {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            " <lora:{}:{}>",
            stem(&adapter.file.name),
            adapter.weight
        );
    }
    if let Some(negative) = settings
        .negative_prompt
        .as_ref()
        .filter(|text| !text.is_empty())
    {
        text += "\nNegative prompt: ";
        text += negative;
    }
    let (sampler, schedule) = sampler(settings);
    let mut pairs = vec![
        ("Steps", settings.steps.to_string()),
        ("Sampler", sampler.to_owned()),
    ];
    pairs.extend(schedule.map(|name| ("Schedule type", name.to_owned())));
    pairs.extend([
        ("CFG scale", settings.guidance.to_string()),
        ("Seed", settings.seed.to_string()),
        ("Size", format!("{width}x{height}")),
        ("Model hash", short(&settings.model.sha256)),
        ("Model", stem(&settings.model.name).to_owned()),
    ]);
    if let Some(vae) = &settings.vae {
        pairs.push(("VAE hash", short(&vae.sha256)));
        pairs.push(("VAE", stem(&vae.name).to_owned()));
    }
    if settings.guidance_rescale > 0.0 {
        pairs.push(("CFG rescale", settings.guidance_rescale.to_string()));
    }
    if settings.eta > 0.0 {
        pairs.push(("Eta DDIM", settings.eta.to_string()));
    }
    if let Some(skip) = settings.clip_skip {
        // The web UI counts the layer that is used.
        pairs.push(("Clip skip", (skip + 1).to_string()));
    }
    if let Some(image) = &settings.init_image {
        pairs.push(("Denoising strength", image.strength.to_string()));
    }
    if !settings.adapters.is_empty() {
        let hashes = settings.adapters.iter().map(|adapter| {
            let (name, hash) = (stem(&adapter.file.name), short(&adapter.file.sha256));
            format!("{name}: {hash}")
        });
        pairs.push(("Lora hashes", hashes.collect::<Vec<_>>().join(", ")));
    }
    pairs.push(("Version", format!("selma {}", settings.version)));
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("{key}: {}", quoted(value)));
    text += "\n";
    text += &pairs.collect::<Vec<_>>().join(", ");
    text
}

/// The names that the web UI has for a scheduler and the curve of its sigmas.
fn sampler(settings: &Settings) -> (&str, Option<&'static str>) {
    let config = &settings.scheduler_config;
    let schedule = if config.use_karras_sigmas == Some(true) {
        Some("Karras")
    } else if config.use_exponential_sigmas == Some(true) {
        Some("Exponential")
    } else {
        None
    };
    let name = match settings.scheduler.as_str() {
        "ddpm" => "DDPM",
        "ddim" => "DDIM",
        "pndm" => "PLMS",
        "euler" | "euler_karras" => "Euler",
        "euler_a" => "Euler a",
        "heun" => "Heun",
        "lms" => "LMS",
        "dpmpp_2m" | "dpmpp_2m_karras" => "DPM++ 2M",
        "dpmpp_2m_sde" => "DPM++ 2M SDE",
        "unipc" => "UniPC",
        "lcm" => "LCM",
        other => other,
    };
    (name, schedule)
}

/// A value that would end the pair or the line stands in quotes, as JSON has them.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// The name of a file without its ending.
fn stem(name: &str) -> &str {
    name.strip_suffix(".safetensors").unwrap_or(name)
}

fn short(hash: &str) -> String {
    hash.chars().take(HASH).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::settings;
    use super::*;

    #[test]
    fn the_text_is_that_of_the_web_ui() {
        let mut settings = settings("a red circle");
        assert_eq!(
            parameters(&settings, (512, 768)),
            "a red circle <lora:one:0.8>\n\
             Negative prompt: blurry\n\
             Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 18446744073709551615, Size: 512x768, \
             Model hash: 0123456789, Model: mini, CFG rescale: 0.7, Eta DDIM: 0.5, Clip skip: 2, Denoising strength: 0.6, \
             Lora hashes: \"one: 0123456789\", Version: selma 0.1.0"
        );
        settings.adapters.clear();
        settings.negative_prompt = None;
        settings.init_image = None;
        settings.guidance_rescale = 0.0;
        settings.eta = 0.0;
        settings.clip_skip = None;
        settings.scheduler = "euler_a".to_owned();
        settings.scheduler_config.use_karras_sigmas = None;
        settings.model.name = "a, b".to_owned();
        assert_eq!(
            parameters(&settings, (64, 64)),
            "a red circle\n\
             Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 18446744073709551615, Size: 64x64, \
             Model hash: 0123456789, Model: \"a, b\", Version: selma 0.1.0"
        );
    }
}
