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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init;

    #[test]
    fn norms_are_those_of_the_updates() {
        let shapes: [(&str, &[usize], f64); 2] = [
            ("unet.conv_in", &[6, 4, 3, 3], -3.0),
            ("text_encoder.x", &[7, 5], 2.0),
        ];
        let adapter = Adapter::new(shapes.map(|(path, shape, alpha)| {
            let mut module = init::gaussian(path, shape, 2, alpha, 0).unwrap();
            module.b.fill(0.5);
            (path.to_owned(), module)
        }));
        let summary = adapter.summary().unwrap();
        let mut squares = 0.0;
        for line in &summary.modules {
            let delta = adapter.modules[&line.module].delta_f64().unwrap();
            let expected = delta.mapv(|x| x * x).sum();
            assert!((line.norm.powi(2) / expected - 1.0).abs() < 1e-12);
            squares += expected;
        }
        assert!((summary.norm.powi(2) / squares - 1.0).abs() < 1e-12);
        assert_eq!(summary.alphas(), [-3.0, 2.0]);
        assert_eq!(summary.scales, (-1.5, 1.0));
        assert_eq!(summary.parameters, 2 * 36 + 6 * 2 + 2 * 5 + 7 * 2);
        assert_eq!(
            serde_json::to_value(&summary).unwrap()["components"]["unet"],
            1
        );
    }

    #[test]
    fn broken_factors_are_named() {
        let mut module = init::gaussian("unet.x", &[4, 4], 2, 2.0, 0).unwrap();
        module.alpha = f64::NAN;
        let error = Adapter::new([("unet.x".to_owned(), module)])
            .summary()
            .unwrap_err();
        assert!(error.to_string().contains("unet.x"), "{error}");
    }
}
