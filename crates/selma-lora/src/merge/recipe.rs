//! What a merge is asked for, and whether that makes sense.

use std::{collections::BTreeSet, sync::Arc};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{
    Majority, Masks, Method,
    pipeline::{Consensus, Pipeline, Sparsifier, Stacked},
    ssr::Calibration,
};
use crate::LoraError;

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
    /// TIES: what decides the sign of an entry.
    #[serde(skip_serializing_if = "is_default")]
    pub majority: Majority,
    /// mergekit: whether the result is divided by the weights; its own defaults without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    /// SSR: what is added to the diagonal before solving, 1e-4 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ridge: Option<f64>,
    /// The seed of random masks and of the start of LEGO's clusters. What is drawn depends on it, the
    /// module and the adapter's position, and on nothing else.
    #[serde(skip_serializing_if = "is_default")]
    pub seed: u64,
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

    pub(super) fn epsilon_or_default(&self) -> f64 {
        self.epsilon.unwrap_or(0.15)
    }

    pub(super) fn gamma_or_default(&self) -> f64 {
        self.gamma.unwrap_or(0.01)
    }

    pub(super) fn ridge_or_default(&self) -> f64 {
        self.ridge.unwrap_or(1e-4)
    }

    /// Checks the options against each other, the method and the number of adapters.
    pub(super) fn validate(
        &self,
        weights: impl ExactSizeIterator<Item = f64>,
    ) -> Result<(), LoraError> {
        let adapters = weights.len();
        if adapters == 0 {
            return Err(LoraError::NoAdapters);
        }
        if let Some((index, weight)) = weights.enumerate().find(|(_, w)| !w.is_finite()) {
            return Err(LoraError::BadWeight { index, weight });
        }
        if self.rank == Some(0) {
            return Err(LoraError::ZeroRank);
        }
        if matches!(self.method, Method::MkSlerp | Method::MkNuslerp) && adapters != 2 {
            return Err(LoraError::AdapterCount {
                method: self.method,
                expected: "2",
                found: adapters,
            });
        }
        self.validate_numbers()?;
        self.validate_places()
    }

    fn validate_numbers(&self) -> Result<(), LoraError> {
        let positive = |x: f64| x >= 0.0 && x.is_finite();
        self.number("density", self.density, "above 0 and at most 1", |x| {
            x > 0.0 && x <= 1.0
        })?;
        self.number("lambda", self.lambda, "a finite number", f64::is_finite)?;
        self.number("gamma", self.gamma, "from 0 up to 1", |x| {
            (0.0..1.0).contains(&x)
        })?;
        self.number("epsilon", self.epsilon, "at least 0", positive)?;
        self.number("ridge", self.ridge, "at least 0", positive)?;
        let (density, epsilon) = (self.density_or_default(), self.epsilon_or_default());
        let fits = density - epsilon > 0.0 && density + epsilon < 1.0;
        if self.knows().sparsifier == Sparsifier::Della && density < 1.0 && !fits {
            let expected = format!("density {density} -+ epsilon between 0 and 1");
            return Err(self.wrong("epsilon", expected, epsilon));
        }
        match self
            .weights_by_module
            .iter()
            .find(|r| !r.weight.is_finite())
        {
            Some(rule) => Err(self.wrong("weights_by_module", "finite weights", rule.weight)),
            None => Ok(()),
        }
    }

    fn number(
        &self,
        option: &'static str,
        value: Option<f64>,
        expected: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<(), LoraError> {
        match value {
            Some(value) if !fits(value) => Err(self.wrong(option, expected, value)),
            _ => Ok(()),
        }
    }

    /// Refuses options that the method does not know, and misses those that it needs.
    fn validate_places(&self) -> Result<(), LoraError> {
        let knows = self.knows();
        let given = [
            ("density", self.density.is_some(), knows.density),
            (
                "epsilon",
                self.epsilon.is_some(),
                knows.sparsifier == Sparsifier::Della,
            ),
            (
                "gamma",
                self.gamma.is_some(),
                knows.sparsifier == Sparsifier::Outliers,
            ),
            ("majority", self.majority != Majority::Total, knows.majority),
            ("normalize", self.normalize.is_some(), knows.normalize),
            ("masks", self.masks.is_some(), knows.random),
            ("ridge", self.ridge.is_some(), self.method == Method::Ssr),
            (
                "calibration",
                self.calibration.is_some(),
                self.method == Method::Ssr,
            ),
        ];
        if let Some((option, ..)) = given.iter().find(|(_, given, known)| *given && !known) {
            return Err(self.wrong(option, "none: the method does not know it", "given"));
        }
        if knows.density && self.density.is_none() && !self.keeps_all_by_default() {
            return Err(self.wrong("density", "above 0 and at most 1", "missing"));
        }
        if self.method == Method::Ssr && self.calibration.is_none() {
            return Err(self.wrong("calibration", "statistics of the modules", "missing"));
        }
        Ok(())
    }

    fn keeps_all_by_default(&self) -> bool {
        self.method == Method::Robust || self.method.name().starts_with("mk_")
    }

    fn wrong(
        &self,
        option: &'static str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> LoraError {
        LoraError::MergeOption {
            option,
            method: self.method,
            expected: expected.into(),
            found: found.to_string(),
        }
    }

    /// What the stages of the method make of options. The composition for many adapters: with one, a
    /// method of PEFT may know fewer, but a recipe should not depend on that.
    fn knows(&self) -> Knows {
        match Pipeline::of(self.method, usize::MAX) {
            Pipeline::Stacked(rule) => Knows {
                sparsifier: Sparsifier::All,
                density: rule == Stacked::Robust,
                majority: false,
                normalize: false,
                random: false,
            },
            Pipeline::Aligned {
                sparsifier,
                consensus,
                ..
            } => {
                let elects = matches!(consensus, Consensus::SignConsensus { .. });
                Knows {
                    sparsifier,
                    density: sparsifier != Sparsifier::All || consensus == Consensus::Sce,
                    majority: elects || consensus == Consensus::DisjointMean,
                    normalize: elects || consensus == Consensus::WeightedMean,
                    random: matches!(sparsifier, Sparsifier::Random(_) | Sparsifier::Della),
                }
            }
        }
    }

    /// The rules of [`weights_by_module`](Self::weights_by_module), ready for use. Rules that change
    /// nothing are refused: a pattern that is nowhere, an adapter that is not there.
    pub(super) fn rules(
        &self,
        adapters: usize,
        paths: &BTreeSet<&String>,
    ) -> Result<Vec<Rule>, LoraError> {
        let compiled = self.weights_by_module.iter().map(|rule| {
            let wrong =
                |expected: &str, found: &str| self.wrong("weights_by_module", expected, found);
            let pattern = Regex::new(&rule.module)
                .map_err(|error| wrong("regular expressions", &error.to_string()))?;
            if let Some(adapter) = rule.adapter.filter(|&adapter| adapter >= adapters) {
                let expected = format!("adapters below {adapters}");
                return Err(wrong(&expected, &adapter.to_string()));
            }
            if !paths.iter().any(|path| pattern.is_match(path)) {
                return Err(wrong("patterns of modules that are there", &rule.module));
            }
            Ok(Rule {
                pattern,
                adapter: rule.adapter,
                weight: rule.weight,
            })
        });
        compiled.collect()
    }
}

/// Which options the stages of a method know.
#[derive(Debug)]
struct Knows {
    sparsifier: Sparsifier,
    density: bool,
    majority: bool,
    normalize: bool,
    random: bool,
}

/// A [`ModuleWeight`] with its pattern compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pattern: Regex,
    adapter: Option<usize>,
    weight: f64,
}

/// What the rules multiply the weight of an adapter by in a module.
pub(super) fn factor(rules: &[Rule], path: &str, adapter: usize) -> f64 {
    rules
        .iter()
        .filter(|rule| rule.adapter.is_none_or(|wanted| wanted == adapter))
        .find(|rule| rule.pattern.is_match(path))
        .map_or(1.0, |rule| rule.weight)
}
