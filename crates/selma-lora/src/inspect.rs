//! What is in an adapter, for people and programs.

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde::Serialize;

use crate::{Adapter, LoraError, LoraModule, Source, linalg::product_norm};

/// A description of an adapter, made by [`Adapter::summary`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The file it came from, with its format, number types and SHA-256.
    pub source: Option<Source>,
    /// SHA-256 of the content, see [`Adapter::sha256`].
    pub content_sha256: String,
    /// Numbers stored.
    pub parameters: usize,
    /// Frobenius norm of all updates together.
    pub norm: f64,
    /// Modules per component (`unet`, `text_encoder`..).
    pub components: BTreeMap<String, usize>,
    /// Modules per rank.
    pub ranks: BTreeMap<usize, usize>,
    /// The smallest and the largest scale `alpha / rank`.
    pub scales: (f64, f64),
    /// Every module, by path.
    pub modules: Vec<ModuleSummary>,
    /// The metadata that travels with it.
    pub metadata: BTreeMap<String, String>,
}

/// One line of a [`Summary`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleSummary {
    /// The module's path.
    pub module: String,
    /// Shape of the weight it changes, `[out, in]` or `[out, in, kh, kw]`.
    pub weight: Vec<usize>,
    /// The rank.
    pub rank: usize,
    /// The numerator of the scale.
    pub alpha: f64,
    /// Numbers stored.
    pub parameters: usize,
    /// Frobenius norm of `dW`.
    pub norm: f64,
}

impl Adapter {
    /// Describes the adapter, with the norm of every module's `dW`.
    ///
    /// # Errors
    /// [`LoraError::InModule`] for factors that do not fit each other.
    pub fn summary(&self) -> Result<Summary, LoraError> {
        let modules = self
            .modules
            .par_iter()
            .map(|(path, module)| summarise(path, module).map_err(|error| error.in_module(path)))
            .collect::<Result<Vec<_>, LoraError>>()?;
        let mut components = BTreeMap::new();
        let mut ranks = BTreeMap::new();
        let mut scales = (f64::INFINITY, f64::NEG_INFINITY);
        for (path, module) in &self.modules {
            let component = path.split('.').next().unwrap_or_default();
            *components.entry(component.to_owned()).or_default() += 1;
            *ranks.entry(module.rank()).or_default() += 1;
            scales = (scales.0.min(module.scale()), scales.1.max(module.scale()));
        }
        Ok(Summary {
            source: self.source.clone(),
            content_sha256: self.sha256(),
            parameters: self.parameters(),
            norm: modules.iter().map(|m| m.norm * m.norm).sum::<f64>().sqrt(),
            components,
            ranks,
            scales,
            modules,
            metadata: self.metadata.clone(),
        })
    }
}

impl Summary {
    /// The different alphas, in order.
    #[must_use]
    pub fn alphas(&self) -> Vec<f64> {
        // Alphas are finite, so their bits are as good as themselves for telling them apart.
        let distinct: BTreeSet<u64> = self.modules.iter().map(|m| m.alpha.to_bits()).collect();
        let mut alphas: Vec<f64> = distinct.into_iter().map(f64::from_bits).collect();
        alphas.sort_by(f64::total_cmp);
        alphas
    }
}

fn summarise(path: &str, module: &LoraModule) -> Result<ModuleSummary, LoraError> {
    module.check()?;
    Ok(ModuleSummary {
        module: path.to_owned(),
        weight: module.weight_shape(),
        rank: module.rank(),
        alpha: module.alpha,
        parameters: module.parameters(),
        norm: product_norm(&module.b_turned(), &module.a_turned()) * module.scale().abs(),
    })
}
