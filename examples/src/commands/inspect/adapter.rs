//! What is in an adapter.

use std::path::Path;

use indicatif::HumanCount;
use selma_lora::{Adapter, Summary};

use super::Description;
use crate::table::{columns, pairs};

pub fn describe(path: &Path) -> anyhow::Result<Summary> {
    Ok(Adapter::load(path)?.summary()?)
}

impl Description for Summary {
    fn text(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let mut rows = Vec::new();
        if let Some(source) = &self.source {
            let dtypes = source
                .dtypes
                .iter()
                .map(|dtype| format!("{dtype:?}").to_lowercase());
            rows.push(("adapter", source.path.display().to_string()));
            rows.push((
                "format",
                format!("{}, {}", source.format, list(dtypes.collect())),
            ));
            rows.push(("sha256", source.sha256.clone()));
        }
        let parts = self
            .components
            .iter()
            .map(|(name, count)| format!("{name} {count}"));
        let ranks = self
            .ranks
            .iter()
            .map(|(rank, count)| format!("{rank} ({count} modules)"));
        let alphas = self.alphas().iter().map(f64::to_string).collect();
        let scale = match self.scales {
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        };
        rows.extend([
            (
                "modules",
                format!("{}: {}", self.modules.len(), list(parts.collect())),
            ),
            ("ranks", list(ranks.collect())),
            ("alphas", list(alphas)),
            ("alpha/rank", scale),
            ("parameters", HumanCount(self.parameters as u64).to_string()),
            ("norm of dW", format!("{:.6}", self.norm)),
        ]);
        for (key, value) in &self.metadata {
            rows.push(("metadata", format!("{key} = {}", shorten(value))));
        }
        let modules: Vec<[String; 5]> = self
            .modules
            .iter()
            .map(|module| {
                let shape: Vec<String> = module.weight.iter().map(usize::to_string).collect();
                [
                    module.module.clone(),
                    shape.join("x"),
                    module.rank.to_string(),
                    module.alpha.to_string(),
                    format!("{:.6}", module.norm),
                ]
            })
            .collect();
        let table = columns(
            ["module", "weight", "rank", "alpha", "norm of dW"],
            &modules,
        );
        format!("{}\n\n{table}", pairs(&rows))
    }
}

/// Trainers put whole configurations into the metadata.
fn shorten(value: &str) -> String {
    const LONGEST: usize = 120;
    let mut line: String = value
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if value.chars().count() > LONGEST {
        line += " ..";
    }
    line
}
