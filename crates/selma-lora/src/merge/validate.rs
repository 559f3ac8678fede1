//! Whether what a merge is asked for makes sense.

use std::{collections::BTreeSet, fmt};

use regex::Regex;

use super::{
    AdapterOptions, Majority, Merge, Method,
    combination::Combination,
    pipeline::{Consensus, Pipeline, Sparsifier, Stacked},
};
use crate::LoraError;

impl Merge {
    /// Checks the options against each other, the method and the number of adapters, of which there is a weight each. [`Merge::run`] does so first.
    ///
    /// # Errors
    /// [`LoraError::NoAdapters`], [`LoraError::BadWeight`], [`LoraError::ZeroRank`], [`LoraError::AdapterCount`], and
    /// [`LoraError::MergeOption`] for an option that is missing, without meaning, or not known by the method.
    pub fn validate(&self, weights: impl ExactSizeIterator<Item = f64>) -> Result<(), LoraError> {
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
        if !self.by_adapter.is_empty() && self.by_adapter.len() != adapters {
            let expected = format!("an entry for each of {adapters} adapters");
            return Err(self.wrong("by_adapter", expected, self.by_adapter.len()));
        }
        self.validate_numbers(adapters)?;
        self.compiled(adapters)?;
        self.validate_places()
    }

    fn validate_numbers(&self, adapters: usize) -> Result<(), LoraError> {
        let positive = |x: f64| x >= 0.0 && x.is_finite();
        self.number("lambda", self.lambda, "a finite number", f64::is_finite)?;
        self.number("ridge", self.ridge, "at least 0", positive)?;
        let common = AdapterOptions {
            density: self.density,
            epsilon: self.epsilon,
            gamma: self.gamma,
        };
        for options in [&common].into_iter().chain(&self.by_adapter) {
            self.number("density", options.density, "above 0 and at most 1", |x| {
                x > 0.0 && x <= 1.0
            })?;
            self.number("gamma", options.gamma, "from 0 up to 1", |x| {
                (0.0..1.0).contains(&x)
            })?;
            self.number("epsilon", options.epsilon, "at least 0", positive)?;
        }
        for adapter in 0..adapters {
            let (density, epsilon) = (self.density_of(adapter), self.epsilon_of(adapter));
            let fits = density - epsilon > 0.0 && density + epsilon < 1.0;
            if self.knows().sparsifier == Sparsifier::Della && density < 1.0 && !fits {
                let expected = format!("density {density} -+ epsilon between 0 and 1");
                return Err(self.wrong("epsilon", expected, epsilon));
            }
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
        let mut own = self.by_adapter.iter();
        let sparsifies = knows.sparsifier != Sparsifier::All;
        let by_density = self.by_adapter.iter().any(|own| own.density.is_some());
        let epsilon = self.epsilon.is_some() || own.clone().any(|own| own.epsilon.is_some());
        let gamma = self.gamma.is_some() || own.any(|own| own.gamma.is_some());
        let given = [
            ("density", self.density.is_some(), knows.density),
            ("by_adapter", !self.by_adapter.is_empty(), sparsifies),
            ("epsilon", epsilon, knows.sparsifier == Sparsifier::Della),
            ("gamma", gamma, knows.sparsifier == Sparsifier::Outliers),
            (
                "rescale",
                self.rescale.is_some(),
                sparsifies && self.is_of_mergekit(),
            ),
            (
                "seed",
                self.seed != 0,
                knows.random || self.method == Method::Lego,
            ),
            ("majority", self.majority != Majority::Total, knows.majority),
            ("normalize", self.normalize.is_some(), knows.normalize),
            ("masks", self.masks.is_some(), knows.random),
            ("ridge", self.ridge.is_some(), self.method == Method::Ssr),
            (
                "dense_limit",
                self.dense_limit.is_some(),
                Pipeline::of(self.method, usize::MAX).is_dense(),
            ),
            (
                "calibration",
                self.calibration.is_some(),
                self.method == Method::Ssr,
            ),
        ];
        if let Some((option, ..)) = given.iter().find(|(_, given, known)| *given && !known) {
            return Err(self.wrong(option, "none: the method does not know it", "given"));
        }
        let all_given = by_density && self.by_adapter.iter().all(|own| own.density.is_some());
        let missing = self.density.is_none() && !all_given;
        if knows.density && missing && !self.keeps_all_by_default() {
            return Err(self.wrong("density", "above 0 and at most 1", "missing"));
        }
        let densities = (0..self.by_adapter.len().max(1)).map(|at| self.density_of(at));
        let largest = densities.fold(0.0, f64::max);
        if self.masks.is_some() && largest >= 1.0 {
            return Err(self.wrong("density", "below 1 where masks are given", largest));
        }
        if self.method == Method::Ssr && self.calibration.is_none() {
            return Err(self.wrong("calibration", "statistics of the modules", "missing"));
        }
        Ok(())
    }

    fn keeps_all_by_default(&self) -> bool {
        self.method == Method::Robust || self.is_of_mergekit()
    }

    fn is_of_mergekit(&self) -> bool {
        self.method.name().starts_with("mk_")
    }

    fn wrong(
        &self,
        option: &'static str,
        expected: impl Into<String>,
        found: impl fmt::Display,
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
                normalize: rule == Stacked::Combined(Combination::Weights),
                random: false,
            },
            Pipeline::Aligned {
                sparsifier,
                consensus,
                ..
            } => {
                let elects = matches!(consensus, Consensus::Elected { .. });
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
        let rules = self.compiled(adapters)?;
        let mut nowhere = rules
            .iter()
            .filter(|rule| !paths.iter().any(|path| rule.pattern.is_match(path)));
        match nowhere.next() {
            Some(rule) => {
                let expected = "patterns of modules that are there";
                Err(self.wrong("weights_by_module", expected, &rule.pattern))
            }
            None => Ok(rules),
        }
    }

    /// The rules as far as they can be checked without the adapters' modules.
    fn compiled(&self, adapters: usize) -> Result<Vec<Rule>, LoraError> {
        let compiled = self.weights_by_module.iter().map(|rule| {
            let wrong =
                |expected: &str, found: &str| self.wrong("weights_by_module", expected, found);
            let pattern = Regex::new(&rule.module)
                .map_err(|error| wrong("regular expressions", &error.to_string()))?;
            if let Some(adapter) = rule.adapter.filter(|&adapter| adapter >= adapters) {
                let expected = format!("adapters below {adapters}");
                return Err(wrong(&expected, &adapter.to_string()));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn refused(merge: &Merge) -> String {
        merge
            .validate([1.0, 1.0].into_iter())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn values_out_of_range_name_their_field() {
        let ties = Merge {
            density: Some(0.5),
            ..Merge::new(Method::MkDella)
        };
        let breadcrumbs = Merge::new(Method::MkBreadcrumbs);
        for (merge, field) in [
            (
                Merge {
                    density: Some(0.0),
                    ..ties.clone()
                },
                "density",
            ),
            (
                Merge {
                    density: Some(1.5),
                    ..ties.clone()
                },
                "density",
            ),
            (
                Merge {
                    density: Some(f64::NAN),
                    ..ties.clone()
                },
                "density",
            ),
            (
                Merge {
                    lambda: Some(f64::INFINITY),
                    ..ties.clone()
                },
                "lambda",
            ),
            (
                Merge {
                    epsilon: Some(0.5),
                    ..ties.clone()
                },
                "epsilon",
            ),
            (
                Merge {
                    density: Some(0.9),
                    ..ties
                },
                "epsilon",
            ),
            (
                Merge {
                    gamma: Some(1.0),
                    ..breadcrumbs
                },
                "gamma",
            ),
        ] {
            let error = refused(&merge);
            assert!(error.contains(&format!("option {field} ")), "{error}");
        }
    }

    #[test]
    fn options_of_single_adapters_are_checked_like_those_of_all() {
        let each = |options: &[AdapterOptions]| Merge {
            by_adapter: options.to_vec(),
            ..Merge::new(Method::MkDella)
        };
        let density = |density| AdapterOptions {
            density: Some(density),
            ..AdapterOptions::default()
        };
        let none = AdapterOptions::default();
        let both = [density(0.3), density(0.6)];
        each(&both).validate([1.0, 1.0].into_iter()).unwrap();
        let needs = |options: &[AdapterOptions]| Merge {
            method: Method::PeftTies,
            ..each(options)
        };
        needs(&both).validate([1.0, 1.0].into_iter()).unwrap();
        for (merge, field) in [
            (each(&[none]), "by_adapter"),
            (each(&[density(0.3), density(1.5)]), "density"),
            (each(&[density(0.3), density(0.1)]), "epsilon"),
            (needs(&[density(0.3), none]), "density"),
            (
                each(&[
                    AdapterOptions {
                        gamma: Some(0.1),
                        ..none
                    },
                    none,
                ]),
                "gamma",
            ),
            (
                Merge {
                    method: Method::Sum,
                    ..each(&both)
                },
                "by_adapter",
            ),
            (
                Merge {
                    rescale: Some(true),
                    ..needs(&both)
                },
                "rescale",
            ),
            (
                Merge {
                    seed: 1,
                    ..needs(&both)
                },
                "seed",
            ),
        ] {
            let error = refused(&merge);
            assert!(error.contains(&format!("option {field} ")), "{error}");
        }
    }

    #[test]
    fn options_in_vain_and_missing_ones_name_their_field() {
        let plain = Merge::default();
        let ssr = Merge::new(Method::Ssr);
        for (merge, field) in [
            (
                Merge {
                    density: Some(0.5),
                    ..plain.clone()
                },
                "density",
            ),
            (
                Merge {
                    gamma: Some(0.1),
                    ..plain.clone()
                },
                "gamma",
            ),
            (
                Merge {
                    epsilon: Some(0.1),
                    ..plain.clone()
                },
                "epsilon",
            ),
            (
                Merge {
                    ridge: Some(0.1),
                    ..plain.clone()
                },
                "ridge",
            ),
            (
                Merge {
                    dense_limit: Some(1 << 40),
                    ..plain.clone()
                },
                "dense_limit",
            ),
            (
                Merge {
                    normalize: Some(true),
                    ..plain.clone()
                },
                "normalize",
            ),
            (
                Merge {
                    majority: Majority::Frequency,
                    ..plain.clone()
                },
                "majority",
            ),
            (
                Merge {
                    masks: Some(Arc::default()),
                    ..plain.clone()
                },
                "masks",
            ),
            (
                Merge {
                    calibration: Some(Arc::default()),
                    ..plain
                },
                "calibration",
            ),
            (Merge::new(Method::PeftTies), "density"),
            (Merge::new(Method::CoreDare), "density"),
            (ssr, "calibration"),
        ] {
            let error = refused(&merge);
            assert!(error.contains(&format!("option {field} ")), "{error}");
        }
        // Masks are drawn for a density, which is what the rest is divided by.
        let masks = Merge {
            masks: Some(Arc::default()),
            ..Merge::new(Method::MkDareTies)
        };
        assert!(refused(&masks).contains("option density "));
        // mergekit keeps everything without a density.
        let merge = Merge::new(Method::MkTies);
        merge.validate([1.0].into_iter()).unwrap();
        let slerp = Merge::new(Method::MkSlerp).validate([1.0].into_iter());
        assert!(matches!(
            slerp,
            Err(LoraError::AdapterCount { found: 1, .. })
        ));
    }
}
