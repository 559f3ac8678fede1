//! What is in a mixture of adapters.

use std::collections::BTreeMap;
use std::path::Path;

use selma_lora::{MixedModule, Mixing, Mixture};
use serde::Serialize;

use super::Description;
use super::adapter::{metadata_rows, shape};
use crate::table::{columns, pairs};

/// A mixture with its experts and layers.
#[derive(Debug, Serialize)]
pub struct MixtureSummary {
    path: String,
    mixing: Mixing,
    /// Hashes of the experts' files.
    experts: Vec<String>,
    metadata: BTreeMap<String, String>,
    modules: Vec<Module>,
}

#[derive(Debug, Serialize)]
struct Module {
    module: String,
    weight: Vec<usize>,
    /// Of each expert.
    ranks: Vec<usize>,
    /// Of each expert, where it does not depend on the input.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<Vec<f32>>,
}

impl MixtureSummary {
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let mixture = Mixture::load(path)?;
        let fixed = mixture.mixing == Mixing::Weights;
        let weights = |module: &MixedModule| module.gate.iter().copied().collect();
        let modules = mixture.modules.iter().map(|(path, module)| Module {
            module: path.clone(),
            weight: module.weight_shape(),
            ranks: module.parts.iter().map(|part| part.rank).collect(),
            weights: fixed.then(|| weights(module)),
        });
        Ok(Self {
            path: path.display().to_string(),
            modules: modules.collect(),
            mixing: mixture.mixing,
            experts: mixture.experts,
            metadata: mixture.metadata,
        })
    }
}

impl Description for MixtureSummary {
    fn text(&self) -> String {
        let mixing = match self.mixing {
            Mixing::Router { top_k } => format!("a router, which gives an input to {top_k}"),
            Mixing::Weights => "weights of the layers".to_owned(),
        };
        let mut rows = vec![("mixture", self.path.clone()), ("mixing", mixing)];
        let experts = self.experts.iter();
        rows.extend(experts.map(|hash| ("expert", format!("sha256 {hash}"))));
        rows.push(("modules", self.modules.len().to_string()));
        rows.extend(metadata_rows(&self.metadata));
        let modules = self.modules.iter().map(|module| {
            let ranks: Vec<String> = module.ranks.iter().map(usize::to_string).collect();
            let weights = module.weights.iter().flatten();
            let weights: Vec<String> = weights.map(|weight| format!("{weight:.3}")).collect();
            [
                module.module.clone(),
                shape(&module.weight),
                ranks.join(", "),
                weights.join(", "),
            ]
        });
        let modules: Vec<[String; 4]> = modules.collect();
        let table = columns(["module", "weight", "ranks", "weights"], &modules);
        format!("{}\n\n{table}", pairs(&rows))
    }
}
