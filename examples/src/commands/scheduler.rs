//! Fields of the scheduler's configuration, set on the command line.

use anyhow::ensure;
use clap::builder::{StringValueParser, TypedValueParser};
use selma_diffusion::StableDiffusion;
use selma_diffusion::schedulers::SchedulerKind;
use serde_json::Value;

/// A field and its value.
pub type Override = (String, Value);

/// Reads `KEY=VALUE`. What is no JSON is a name, such as `trailing`.
pub fn override_of() -> impl TypedValueParser<Value = Override> {
    StringValueParser::new().try_map(|text| {
        let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        Ok::<_, &str>((key.to_owned(), value))
    })
}

/// Sets the fields in the model's configuration, from which its scheduler or the one that was asked for is built.
pub fn configure(
    pipeline: &mut StableDiffusion,
    overrides: &[Override],
    asked: Option<SchedulerKind>,
) -> anyhow::Result<()> {
    if overrides.is_empty() {
        return Ok(());
    }
    let mut config = pipeline.scheduler_config.clone();
    for (field, value) in overrides {
        config = config.with(field, value)?;
    }
    let kind = match asked {
        Some(kind) => kind,
        None => config.kind()?,
    };
    let (set, built) = (
        serde_json::to_value(&config)?,
        serde_json::to_value(kind.applied_to(&config))?,
    );
    for (field, value) in overrides {
        ensure!(
            set.get(field) == built.get(field),
            "{field}={value} contradicts the scheduler's name {kind}"
        );
    }
    pipeline.scheduler = Some(kind);
    pipeline.scheduler_config = config;
    Ok(())
}
