//! Merging adapters into one.
//!
//! A method is a composition of stages, one module at a time:
//!
//! | stage | choices |
//! |---|---|
//! | space | the factors side by side; `A` and `B` apart; the dense `dW`; the shared output basis of KnOTS; Core Space |
//! | [sparsifier](sparsify) | all, the largest, random (DARE), without the extremes (Breadcrumbs), random by rank (DELLA) |
//! | [consensus] | sum, TIES of PEFT or mergekit, [on the sphere](spherical), [by agreement](agreement), [by directions](directions) |
//! | scale | [`Merge::lambda`] |
//! | output rank | [`Merge::rank`], by truncated singular value decomposition |
//!
//! The most used:
//!
//! | method | update of the merged adapter | rank | cost per module (`m x n` weight, ranks summing to `R`) |
//! |---|---|---|---|
//! | [`Method::Sum`] | `sum_i w_i dW_i`, exact | `R` | a copy of the factors |
//! | [`Method::Mean`] | `1/N sum_i w_i dW_i`, exact | `R` | a copy of the factors |
//! | [`Method::Svd`] | the mean, truncated to the best approximation of a chosen rank | chosen | `O((m + n) R^2 + R^3)` |
//! | [`Method::FactorMean`] | `s (1/N sum_i w_i B_i) (1/N sum_i w_i A_i)` | that of the inputs | a pass over the factors |
//! | `knots_*`, `core_*`, [`Method::Tsv`] | in a basis of the stacked factors | at most `R` | `O((m + n) R^2 + R^3)`, KnOTS `O(N R m n)` less |
//! | [`Method::MkSlerp`], [`Method::MkKarcher`], .. | `sum_i c_i dW_i`, `c` from inner products | chosen | `O((m + n) R^2 + R^3)` |
//! | `peft_*_svd`, other `mk_*` | on the dense `dW` | chosen | `O(m n min(m, n))` |
//!
//! `dW_i = alpha_i / r_i * B_i A_i`; `N` is the number of adapters. A module that an adapter lacks
//! counts as zero. Sums are formed in `f64` and rounded once; modules run in parallel, each in memory
//! of its own, and the result does not depend on the number of threads.
//!
//! A trainer that has no [`Adapter`] merges single modules with [`Merge::module`]; the stages on
//! plain slices are public as well.

pub mod agreement;
mod apply;
mod calibration;
mod check;
mod combination;
mod combine;
pub mod consensus;
pub mod directions;
mod exact;
mod files;
mod in_order;
mod lego;
mod masks;
mod method;
mod pipeline;
mod recipe;
mod report;
mod robust;
mod space;
pub mod sparsify;
pub mod spherical;
mod ssr;
mod validate;

use std::{borrow::Cow, collections::BTreeSet};

use rayon::prelude::*;

pub use calibration::{Calibration, Statistics};
pub use combine::Term;
pub use consensus::Majority;
pub use files::WeightedFile;
pub use masks::Masks;
pub use method::Method;
pub use recipe::{AdapterOptions, Merge, ModuleWeight};
pub use report::{MergeInput, MergeReport, ModuleReport};

use crate::{Adapter, AdapterReader, LoraError, LoraModule};
use check::Probes;
use exact::{ExactSum, exact_sum};
use pipeline::{Context, Formula, Pipeline, Stacked};
use validate::{Rule, factor};

/// An adapter and what its update is multiplied by.
#[derive(Debug, Clone, Copy)]
pub struct Weighted<'a> {
    /// The adapter.
    pub adapter: &'a Adapter,
    /// The weight; 1 takes the adapter as it is, a negative one subtracts it.
    pub weight: f64,
}

impl<'a> From<&'a Adapter> for Weighted<'a> {
    fn from(adapter: &'a Adapter) -> Self {
        Self {
            adapter,
            weight: 1.0,
        }
    }
}

impl Merge {
    /// Merges. The metadata of the result holds the recipe (`selma_merge`: method, rank, options,
    /// weights, and the SHA-256 of every input, of masks and calibration) and what all inputs say alike about the model
    /// (`ss_base_model_version`, `ss_v2`, `modelspec.architecture`); the report says what it did to every module.
    ///
    /// # Errors
    /// [`LoraError::NoAdapters`], [`LoraError::BadWeight`], [`LoraError::ZeroRank`],
    /// [`LoraError::AdapterCount`], [`LoraError::MergeOption`]; around the module concerned
    /// ([`LoraError::InModule`]): [`LoraError::WeightShapes`] when adapters were made for different
    /// models, [`LoraError::NonFinite`] for NaN in a factor, [`LoraError::Ranks`] for methods on factors of unequal rank, [`LoraError::Mask`],
    /// [`LoraError::DenseTooLarge`] for a layer whose dense updates would fill the memory,
    /// [`LoraError::Calibration`], [`LoraError::NoConvergence`], and [`LoraError::SelfCheck`] when
    /// the result is not what the formula says, for example because it does not fit `f32`.
    pub fn run(&self, inputs: &[Weighted<'_>]) -> Result<(Adapter, MergeReport), LoraError> {
        let plan = self.plan(sources(inputs))?;
        let described: Vec<MergeInput> = inputs.iter().map(MergeInput::from).collect();
        self.check_calibration(described.iter().map(|input| input.sha256.clone()))?;
        let (mut adapter, reports) = plan.all()?;
        adapter.metadata = report::common_notes(inputs.iter().map(|input| &input.adapter.metadata));
        let inputs = described;
        let report = MergeReport::new(self.clone(), inputs, reports);
        let recipe = report::recipe(self, &report.inputs);
        adapter.metadata.insert("selma_merge".to_owned(), recipe);
        Ok((adapter, report))
    }

    /// Merges one module after the other, by path, on this thread: no more than one merged module is
    /// in memory at a time. What [`run`](Self::run) does at once.
    ///
    /// # Errors
    /// As [`run`](Self::run); the errors of a module are in its item.
    pub fn modules<'a>(
        &'a self,
        inputs: &'a [Weighted<'a>],
    ) -> Result<impl Iterator<Item = Result<(LoraModule, ModuleReport), LoraError>> + 'a, LoraError>
    {
        let plan = self.plan(sources(inputs))?;
        self.check_calibration(inputs.iter().map(|input| input.adapter.origin_sha256()))?;
        let paths = plan.paths.clone();
        Ok(paths.into_iter().map(move |path| plan.module(path)))
    }

    /// Merges one module, of which every adapter has a term or not (and then no weight). The path keys random masks and
    /// names masks and statistics; [`weights_by_module`](Self::weights_by_module) is for whole
    /// adapters and not applied here.
    ///
    /// ```
    /// use ndarray::Array;
    /// use selma_lora::{LoraModule, merge::{Merge, Method, Term}};
    ///
    /// let module = LoraModule::new(Array::ones((2, 8)).into_dyn(), Array::ones((6, 2)).into_dyn(), 2.0)?;
    /// let term = Term { module: &module, weight: 1.0 };
    /// let (merged, report) = Merge::new(Method::Sum).module("unet.x", &[Some(term), Some(term)])?;
    /// assert_eq!(merged.delta()?, module.delta()? * 2.0);
    /// assert_eq!(report.ranks, [Some(2), Some(2)]);
    /// # Ok::<(), selma_lora::LoraError>(())
    /// ```
    ///
    /// # Errors
    /// As [`run`](Self::run), without the module around it.
    pub fn module(
        &self,
        path: &str,
        terms: &[Option<Term<'_>>],
    ) -> Result<(LoraModule, ModuleReport), LoraError> {
        self.validate(terms.iter().map(|term| term.map_or(0.0, |t| t.weight)))?;
        let total_weight = terms.iter().flatten().map(|term| term.weight).sum();
        self.merge_module(path, terms, total_weight)
    }

    fn plan<'a, M: Modules>(&'a self, inputs: Vec<(&'a M, f64)>) -> Result<Plan<'a, M>, LoraError> {
        self.validate(inputs.iter().map(|(_, weight)| *weight))?;
        let paths: BTreeSet<&String> = inputs.iter().flat_map(|(input, _)| input.paths()).collect();
        let rules = self.rules(inputs.len(), &paths)?;
        Ok(Plan {
            merge: self,
            inputs,
            paths: paths.into_iter().collect(),
            rules,
        })
    }

    /// Refuses statistics of other adapters than these, of which the SHA-256 are asked for only if need be.
    fn check_calibration(
        &self,
        adapters: impl ExactSizeIterator<Item = String>,
    ) -> Result<(), LoraError> {
        match &self.calibration {
            Some(calibration) => calibration.check_adapters(adapters),
            None => Ok(()),
        }
    }

    fn merge_module(
        &self,
        path: &str,
        terms: &[Option<Term<'_>>],
        total_weight: f64,
    ) -> Result<(LoraModule, ModuleReport), LoraError> {
        if terms.iter().all(Option::is_none) {
            return Err(LoraError::NoAdapters);
        }
        let weight_shape = combine::weight_shape(terms)?;
        let context = Context {
            merge: self,
            path,
            terms,
            total_weight,
        };
        let pipeline = Pipeline::of(self.method, terms.len());
        let bytes = pipeline.dense_bytes(&weight_shape, terms.iter().flatten().count());
        let limit = self.dense_limit_or_default();
        if bytes > limit {
            return Err(LoraError::DenseTooLarge {
                method: self.method,
                weight: weight_shape,
                bytes,
                limit,
            });
        }
        let report = |module: &LoraModule| ModuleReport {
            module: path.to_owned(),
            weight: weight_shape.clone(),
            ranks: terms
                .iter()
                .map(|term| term.as_ref().map(|t| t.module.rank()))
                .collect(),
            rank: module.rank(),
            norm: 0.0,
            truncation_error: 0.0,
            self_check: 0.0,
            rounding: 0.0,
        };
        let whole = self.rank.is_none() && !self.method.truncates();
        let share = match pipeline {
            Pipeline::Stacked(Stacked::Sum) if whole => Some(1.0),
            Pipeline::Stacked(Stacked::Mean) if whole => Some(1.0 / terms.len() as f64),
            _ => None,
        };
        if let Some(share) = share {
            let lambda = self.lambda_or_default();
            let ExactSum {
                module,
                norm,
                self_check,
            } = exact_sum(path, terms, share, lambda, &weight_shape)?;
            if let Err(error) = check::accept_exact(self_check) {
                // What is not finite has not passed, and is looked for only now.
                combine::all_finite(terms)?;
                return Err(error);
            }
            let report = ModuleReport {
                norm,
                self_check,
                ..report(&module)
            };
            return Ok((module, report));
        }
        // A sum would show NaN in its self-check, but a sign election would quietly drop it.
        combine::all_finite(terms)?;
        let formula = pipeline.formula(context)?;
        let numbers = formula.as_ref().map(Formula::numbers);
        let update = pipeline.run(context, numbers.unwrap_or_default())?;
        let lambda = self.lambda_or_default();
        let probes = Probes::new(path, &update, formula.as_ref(), lambda, terms);
        let limit = match self.rank {
            None if pipeline.is_dense() || self.method.truncates() => Some(context.rank()),
            rank => rank,
        };
        let merged = update.limited(limit)?;
        let module = merged.module(&weight_shape)?;
        let self_check = probes.check(&module, &merged)?;
        let report = ModuleReport {
            norm: merged.norm,
            truncation_error: merged.truncation_error,
            self_check,
            ..report(&module)
        };
        Ok((module, report))
    }
}

/// Where the modules of an adapter come from.
trait Modules: Sync {
    /// The paths of all modules.
    fn paths(&self) -> impl Iterator<Item = &String>;

    /// One of them.
    fn module(&self, path: &str) -> Result<Option<Cow<'_, LoraModule>>, LoraError>;
}

impl Modules for Adapter {
    fn paths(&self) -> impl Iterator<Item = &String> {
        self.modules.keys()
    }

    fn module(&self, path: &str) -> Result<Option<Cow<'_, LoraModule>>, LoraError> {
        Ok(self.modules.get(path).map(Cow::Borrowed))
    }
}

impl Modules for AdapterReader {
    fn paths(&self) -> impl Iterator<Item = &String> {
        self.paths()
    }

    fn module(&self, path: &str) -> Result<Option<Cow<'_, LoraModule>>, LoraError> {
        Ok(self.module(path)?.map(Cow::Owned))
    }
}

fn sources<'a>(inputs: &'a [Weighted<'a>]) -> Vec<(&'a Adapter, f64)> {
    let inputs = inputs.iter();
    inputs.map(|input| (input.adapter, input.weight)).collect()
}

/// A checked merge of whole adapters.
#[derive(Debug)]
struct Plan<'a, M> {
    merge: &'a Merge,
    inputs: Vec<(&'a M, f64)>,
    /// The modules that any adapter has, in order.
    paths: Vec<&'a String>,
    rules: Vec<Rule>,
}

impl<M: Modules> Plan<'_, M> {
    fn module(&self, path: &str) -> Result<(LoraModule, ModuleReport), LoraError> {
        let inputs = self.inputs.iter();
        let modules = inputs
            .map(|(input, _)| input.module(path))
            .collect::<Result<Vec<_>, LoraError>>()?;
        let weights = self
            .inputs
            .iter()
            .enumerate()
            .map(|(adapter, (_, weight))| weight * factor(&self.rules, path, adapter));
        let terms: Vec<Option<Term<'_>>> = modules
            .iter()
            .zip(weights.clone())
            .map(|(module, weight)| {
                let module = module.as_deref()?;
                Some(Term { module, weight })
            })
            .collect();
        self.merge
            .merge_module(path, &terms, weights.sum())
            .map_err(|error| error.in_module(path))
    }

    /// All modules in parallel.
    fn all(&self) -> Result<(Adapter, Vec<ModuleReport>), LoraError> {
        let merged = self
            .paths
            .par_iter()
            .map(|path| self.module(path))
            .collect::<Result<Vec<_>, LoraError>>()?;
        let (modules, reports): (Vec<_>, Vec<_>) = merged
            .into_iter()
            .map(|(module, report)| ((report.module.clone(), module), report))
            .unzip();
        Ok((Adapter::new(modules), reports))
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
