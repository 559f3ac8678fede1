//! Language models behind servers, as several sub-commands are told of them.

use std::path::Path;

use anyhow::Context;
use selma_llm::OpenAiConfig;

/// Everything about a server, from a TOML file.
pub fn load(path: &Path) -> anyhow::Result<OpenAiConfig> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {name}"))?;
    toml::from_str(&text).with_context(|| format!("{name} is no description of a server"))
}
