//! What is in an adapter.

use std::collections::BTreeMap;
use std::path::Path;

use indicatif::HumanCount;
use selma_lora::{Adapter, AdapterFile, Kind, LeftOut, LoraError, Source, Summary};
use serde::Serialize;

use super::mixture::MixtureSummary;
use super::{Description, show};
use crate::commands::values::cause;
use crate::table::{columns, pairs};

/// Shows a LoRA with all its figures, and of other kinds and mixtures what they are.
pub fn describe(path: &Path, json: bool) -> anyhow::Result<()> {
    match Adapter::load(path) {
        Ok(adapter) => show(&adapter.summary()?, json),
        Err(error) => match cause(&error) {
            LoraError::OtherKind { .. } | LoraError::Unsupported { .. } => {
                let (file, left_out) = AdapterFile::load_without(path, None)?;
                show(&OtherKinds::of(file, left_out), json)
            }
            LoraError::IsMixture => show(&MixtureSummary::load(path)?, json),
            _ => Err(error.into()),
        },
    }
}

/// An adapter with updates that are no LoRAs, or with what is no update of a weight.
#[derive(Debug, Serialize)]
struct OtherKinds {
    source: Source,
    kinds: BTreeMap<Kind, usize>,
    metadata: BTreeMap<String, String>,
    modules: Vec<Module>,
    /// Tensors that no LoRA can stand for.
    unsupported: Vec<LeftOut>,
}

#[derive(Debug, Serialize)]
struct Module {
    module: String,
    kind: Kind,
    /// With the kernel multiplied in where the file does not say how it is shaped.
    weight: Vec<usize>,
}

impl OtherKinds {
    fn of(file: AdapterFile, unsupported: Vec<LeftOut>) -> Self {
        let modules = file.updates.iter().map(|(module, update)| Module {
            module: module.clone(),
            kind: update.kind(),
            weight: update.weight_shape(),
        });
        Self {
            modules: modules.collect(),
            kinds: file.kinds(),
            source: file.source,
            metadata: file.metadata,
            unsupported,
        }
    }
}

impl Description for OtherKinds {
    fn text(&self) -> String {
        let mut rows = source_rows(&self.source);
        let kinds = self
            .kinds
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        rows.push(("modules", format!("{}: {kinds}", self.modules.len())));
        let unsupported = self.unsupported.iter();
        rows.extend(unsupported.map(|x| ("unsupported", format!("{}: {}", x.key, x.kind))));
        rows.extend(metadata_rows(&self.metadata));
        let modules: Vec<[String; 3]> = self
            .modules
            .iter()
            .map(|module| {
                [
                    module.module.clone(),
                    shape(&module.weight),
                    module.kind.to_string(),
                ]
            })
            .collect();
        let table = columns(["module", "weight", "kind"], &modules);
        format!("{}\n\n{table}", pairs(&rows))
    }
}

fn source_rows(source: &Source) -> Vec<(&'static str, String)> {
    let dtypes = source.dtypes.iter().map(ToString::to_string);
    let dtypes = dtypes.collect::<Vec<_>>().join(", ");
    vec![
        ("adapter", source.path.display().to_string()),
        ("format", format!("{}, {dtypes}", source.format)),
        ("sha256", source.sha256.clone()),
    ]
}

pub fn metadata_rows(metadata: &BTreeMap<String, String>) -> Vec<(&'static str, String)> {
    let rows = metadata.iter();
    rows.map(|(key, value)| ("metadata", format!("{key} = {}", shorten(value))))
        .collect()
}

pub fn shape(weight: &[usize]) -> String {
    let sizes: Vec<String> = weight.iter().map(usize::to_string).collect();
    sizes.join("x")
}

impl Description for Summary {
    fn text(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        let mut rows = Vec::new();
        if let Some(source) = &self.source {
            rows.extend(source_rows(source));
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
        rows.extend(metadata_rows(&self.metadata));
        let modules: Vec<[String; 5]> = self
            .modules
            .iter()
            .map(|module| {
                [
                    module.module.clone(),
                    shape(&module.weight),
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
