//! What a merge is asked for.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Calibration, Majority, Masks, Method};

/// A recipe for merging.
///
/// Options that a method does not know are refused, so that nothing is set in vain; the page
/// `docs/merging.md` lists which method knows which.
///
/// ```
/// use selma_lora::{Adapter, init, merge::{Merge, Method, Weighted}};
///
/// let path = "unet.conv_in";
/// let mut expert = Adapter::new([(path.into(), init::gaussian(path, &[8, 4, 3, 3], 2, 2.0, 0)?)]);
/// expert.modules.get_mut(path).unwrap().b.fill(0.5);
/// let (merged, report) = Merge::new(Method::Mean).run(&[
///     Weighted { adapter: &expert, weight: 1.0 },
///     Weighted { adapter: &expert, weight: 0.5 },
/// ])?;
/// assert_eq!(merged.modules[path].rank(), 4);
/// assert!(report.modules[0].self_check < 1e-6);
///
/// let ties = Merge { density: Some(0.3), ..Merge::new(Method::CoreTies) };
/// ties.run(&[Weighted::from(&expert), Weighted::from(&expert)])?;
/// # Ok::<(), selma_lora::LoraError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Merge {
    /// The formula.
    pub method: Method,
    /// The largest rank of a merged module. Without one, [`Method::Svd`] and all methods on dense
    /// updates take the largest rank of the inputs and the others keep all of theirs. A module whose
    /// rank is already that low is left exact. For [`Method::Lego`] the number of clusters.
    pub rank: Option<usize>,
    /// The share of entries that stay, above 0 and up to 1 (1: all). Methods of PEFT, KnOTS and Core
    /// Space that drop entries need it; those of mergekit keep all without it;
    /// [`Method::Robust`] keeps 0.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
    /// What the merged update is multiplied by, 1 without it; 2 for [`Method::Robust`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// DELLA: how far the probability of staying varies around the density, 0.15 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Breadcrumbs: the share of the largest entries that are dropped, 0.01 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
    /// Density, epsilon and gamma of single adapters, in order, where they differ; one entry for each adapter, or none
    /// at all. What an entry leaves open is as above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_adapter: Vec<AdapterOptions>,
    /// mergekit: whether what stays makes up for the sum of magnitudes that was dropped; its own defaults without it, which
    /// are yes where entries are drawn and no elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rescale: Option<bool>,
    /// TIES: what decides the sign of an entry.
    #[serde(skip_serializing_if = "is_default")]
    pub majority: Majority,
    /// mergekit: whether the result is divided by the weights; its own defaults without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// SSR: what is added to the diagonal before solving, 1e-4 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ridge: Option<f64>,
    /// The seed of random masks and of the start of LEGO's clusters; only 0 for methods that draw nothing. What is drawn depends on it, the
    /// module and the adapter's position, and on nothing else.
    #[serde(skip_serializing_if = "is_default")]
    pub seed: u64,
    /// Methods on dense updates: how many bytes those of one module may take, 4 GiB without it; every thread has a
    /// module at a time. A larger module is an error, before any of it is in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_limit: Option<u64>,
    /// Weights for parts of the model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights_by_module: Vec<ModuleWeight>,
    /// Masks from outside instead of random ones.
    #[serde(skip)]
    pub masks: Option<Arc<Masks>>,
    /// The statistics of [`Method::Ssr`].
    #[serde(skip)]
    pub calibration: Option<Arc<Calibration>>,
}

/// What a sparsifier does with one adapter.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdapterOptions {
    /// See [`Merge::density`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub density: Option<f64>,
    /// See [`Merge::epsilon`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// See [`Merge::gamma`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gamma: Option<f64>,
}

/// A factor on the weights in some modules.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModuleWeight {
    /// A regular expression that is found somewhere in the module's path, for example
    /// `^unet\.up_blocks\.1\.`.
    pub module: String,
    /// The position of the adapter, from 0; all of them without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<usize>,
    /// What the weight is multiplied by. When several rules match, the first one counts.
    pub weight: f64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Merge {
    /// A merge without options.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self {
            method,
            ..Self::default()
        }
    }

    /// Limits the rank of every merged module, by truncated singular value decomposition.
    #[must_use]
    pub fn with_rank(self, rank: usize) -> Self {
        Self {
            rank: Some(rank),
            ..self
        }
    }

    pub(super) fn density_or_default(&self) -> f64 {
        let default = if self.method == Method::Robust {
            0.2
        } else {
            1.0
        };
        self.density.unwrap_or(default)
    }

    pub(super) fn lambda_or_default(&self) -> f64 {
        let default = if self.method == Method::Robust {
            2.0
        } else {
            1.0
        };
        self.lambda.unwrap_or(default)
    }

    pub(super) fn density_of(&self, adapter: usize) -> f64 {
        let own = self.by_adapter.get(adapter).and_then(|own| own.density);
        own.unwrap_or_else(|| self.density_or_default())
    }

    pub(super) fn epsilon_of(&self, adapter: usize) -> f64 {
        let own = self.by_adapter.get(adapter).and_then(|own| own.epsilon);
        own.or(self.epsilon).unwrap_or(0.15)
    }

    pub(super) fn gamma_of(&self, adapter: usize) -> f64 {
        let own = self.by_adapter.get(adapter).and_then(|own| own.gamma);
        own.or(self.gamma).unwrap_or(0.01)
    }

    pub(super) fn dense_limit_or_default(&self) -> u64 {
        self.dense_limit.unwrap_or(4 << 30)
    }

    pub(super) fn ridge_or_default(&self) -> f64 {
        self.ridge.unwrap_or(1e-4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_without_options_is_as_short_as_ever() {
        let merge = Merge::new(Method::Svd).with_rank(4);
        let text = serde_json::to_string(&merge).unwrap();
        assert_eq!(text, r#"{"method":"svd","rank":4}"#);
        assert_eq!(serde_json::from_str::<Merge>(&text).unwrap(), merge);
        assert_eq!(
            serde_json::from_str::<Merge>("{}").unwrap(),
            Merge::default()
        );
    }

    #[test]
    fn options_are_read_by_name_and_others_refused() {
        let merge: Merge = serde_json::from_str(
            r#"{"method": "mk_della", "density": 0.4, "lambda": 0.8, "epsilon": 0.1, "seed": 7,
                "majority": "frequency", "normalize": false,
                "weights_by_module": [{"module": "up_blocks", "weight": 0.5}]}"#,
        )
        .unwrap();
        merge.validate([1.0, 1.0].into_iter()).unwrap();
        assert_eq!((merge.density, merge.seed), (Some(0.4), 7));
        let again = serde_json::to_string(&merge).unwrap();
        assert_eq!(serde_json::from_str::<Merge>(&again).unwrap(), merge);
        for text in [
            r#"{"densty": 0.4}"#,
            r#"{"masks": {}}"#,
            r#"{"weights_by_module": [{"modul": "x", "weight": 1.0}]}"#,
            r#"{"majority": "loudest"}"#,
        ] {
            assert!(serde_json::from_str::<Merge>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn options_of_an_adapter_hold_for_its_position() {
        let module = super::super::tests::module("unet.x", &[12, 10], 4, 2.0, 1);
        let term = Some(super::super::Term {
            module: &module,
            weight: 0.8,
        });
        let density = |density| AdapterOptions {
            density: Some(density),
            ..AdapterOptions::default()
        };
        let alone = Merge {
            density: Some(0.3),
            ..Merge::new(Method::MkTies).with_rank(10)
        };
        let second = Merge {
            by_adapter: vec![density(0.9), density(0.3)],
            density: None,
            ..alone.clone()
        };
        let (expected, _) = alone.module("unet.x", &[term]).unwrap();
        let (found, _) = second.module("unet.x", &[None, term]).unwrap();
        assert_eq!(found, expected);
        let (first, _) = second.module("unet.x", &[term, None]).unwrap();
        assert_ne!(first, expected);
    }

    #[test]
    fn rescaling_restores_the_sum_of_magnitudes() {
        let module = super::super::tests::module("unet.x", &[12, 10], 4, 2.0, 1);
        let term = Some(super::super::Term {
            module: &module,
            weight: 1.0,
        });
        let size = |module: &crate::LoraModule| module.delta_f64().unwrap().mapv(f64::abs).sum();
        let merged = |method, rescale| {
            let merge = Merge {
                density: Some(0.5),
                rescale,
                ..Merge::new(method).with_rank(10)
            };
            size(&merge.module("unet.x", &[term]).unwrap().0) / size(&module)
        };
        for (method, by_default) in [
            (Method::MkTies, false),
            (Method::MkBreadcrumbs, false),
            (Method::MkDareLinear, true),
            (Method::MkDella, true),
        ] {
            for rescale in [None, Some(true), Some(false)] {
                let restored = (merged(method, rescale) - 1.0).abs() < 1e-5;
                assert_eq!(
                    restored,
                    rescale.unwrap_or(by_default),
                    "{method} {rescale:?}"
                );
            }
        }
    }
}
