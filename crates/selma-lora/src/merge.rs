//! Merging adapters into one.
//!
//! | method | update of the merged adapter | rank | cost per module (`m x n` weight, ranks summing to `R`) |
//! |---|---|---|---|
//! | [`Method::Sum`] | `sum_i w_i dW_i`, exact | `R` | a copy of the factors |
//! | [`Method::Mean`] | `1/N sum_i w_i dW_i`, exact | `R` | a copy of the factors |
//! | [`Method::Svd`] | the mean, truncated to the best approximation of a chosen rank | chosen | `O((m + n) R^2 + R^3)` |
//! | [`Method::FactorMean`] | `s (1/N sum_i w_i B_i) (1/N sum_i w_i A_i)` | that of the inputs | a pass over the factors |
//!
//! `dW_i = alpha_i / r_i * B_i A_i`; `N` is the number of adapters. A module that an adapter lacks
//! counts as zero. Sums are formed in `f64` and rounded once; modules run in parallel, and the
//! result does not depend on the number of threads.

mod check;
mod combine;
mod report;

use std::{collections::BTreeSet, fmt, str::FromStr};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use report::{MergeInput, MergeReport, ModuleReport};

use crate::{Adapter, LoraError, LoraModule};
use combine::Term;

/// How the updates of several adapters become one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// The mean of the weighted updates, exact, by putting the factors side by side. What SELMA's
    /// released code does with its experts when every weight is 1.
    #[default]
    Mean,
    /// The sum of the weighted updates, exact, by putting the factors side by side: what loading
    /// all adapters at once with these weights does.
    Sum,
    /// The mean, truncated to [`Merge::rank`] (the largest rank of the inputs when there is none).
    Svd,
    /// The mean of the factors `A` and `B` themselves, as the SELMA paper writes it (section 3.4).
    /// A weight multiplies both factors, and the product has cross terms `B_i A_j`: it is close to
    /// the mean of the updates only if the adapters were trained from the same initial `A`. Needs
    /// equal ranks.
    FactorMean,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Svd => "svd",
            Self::FactorMean => "factor_mean",
        })
    }
}

impl FromStr for Method {
    type Err = LoraError;

    fn from_str(name: &str) -> Result<Self, LoraError> {
        match name {
            "mean" => Ok(Self::Mean),
            "sum" => Ok(Self::Sum),
            "svd" => Ok(Self::Svd),
            "factor_mean" => Ok(Self::FactorMean),
            _ => Err(LoraError::UnknownName {
                what: "merge method",
                found: name.to_owned(),
                expected: "mean, sum, svd, factor_mean",
            }),
        }
    }
}

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

/// A recipe for merging.
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
/// # Ok::<(), selma_lora::LoraError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Merge {
    /// The formula.
    pub method: Method,
    /// The largest rank of a merged module. Without one, [`Method::Svd`] takes the largest rank
    /// of the inputs and the others keep all of theirs. A module whose rank is already that low is
    /// left exact.
    pub rank: Option<usize>,
}

impl Merge {
    /// A merge without a rank of its own.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self { method, rank: None }
    }

    /// Limits the rank of every merged module, by truncated singular value decomposition.
    #[must_use]
    pub fn with_rank(self, rank: usize) -> Self {
        Self {
            rank: Some(rank),
            ..self
        }
    }

    /// Merges. The metadata of the result holds the recipe (`selma_merge`: method, rank, weights,
    /// and the SHA-256 of every input); the report says what it did to every module.
    ///
    /// # Errors
    /// [`LoraError::NoAdapters`], [`LoraError::BadWeight`], [`LoraError::ZeroRank`]; around the
    /// module concerned ([`LoraError::InModule`]): [`LoraError::WeightShapes`] when adapters were
    /// made for different models, [`LoraError::Ranks`] for a mean of factors of unequal rank,
    /// [`LoraError::SelfCheck`] when the result is not what the formula says, for example because
    /// it does not fit `f32`.
    pub fn run(&self, inputs: &[Weighted<'_>]) -> Result<(Adapter, MergeReport), LoraError> {
        if inputs.is_empty() {
            return Err(LoraError::NoAdapters);
        }
        if let Some((index, input)) = inputs
            .iter()
            .enumerate()
            .find(|(_, input)| !input.weight.is_finite())
        {
            return Err(LoraError::BadWeight {
                index,
                weight: input.weight,
            });
        }
        if self.rank == Some(0) {
            return Err(LoraError::ZeroRank);
        }
        let paths: BTreeSet<&String> = inputs
            .iter()
            .flat_map(|input| input.adapter.modules.keys())
            .collect();
        let merged = paths
            .into_par_iter()
            .map(|path| {
                let terms: Vec<Option<Term<'_>>> = inputs
                    .iter()
                    .map(|input| {
                        let module = input.adapter.modules.get(path)?;
                        Some(Term {
                            module,
                            weight: input.weight,
                        })
                    })
                    .collect();
                let (module, report) = self
                    .module(path, &terms)
                    .map_err(|error| error.in_module(path))?;
                Ok(((path.clone(), module), report))
            })
            .collect::<Result<Vec<_>, LoraError>>()?;
        let (modules, reports): (Vec<_>, Vec<_>) = merged.into_iter().unzip();
        let report = MergeReport::new(*self, inputs, reports);
        let mut adapter = Adapter::new(modules);
        adapter
            .metadata
            .insert("selma_merge".to_owned(), report.recipe());
        Ok((adapter, report))
    }

    fn module(
        &self,
        path: &str,
        terms: &[Option<Term<'_>>],
    ) -> Result<(LoraModule, ModuleReport), LoraError> {
        let weight_shape = combine::weight_shape(terms)?;
        let combined = match self.method {
            Method::Sum => combine::concatenate(terms, 1.0),
            Method::Mean | Method::Svd => combine::concatenate(terms, 1.0 / terms.len() as f64),
            Method::FactorMean => combine::mean_of_factors(terms)?,
        };
        let largest = || terms.iter().flatten().map(|t| t.module.rank()).max();
        let limit = match (self.rank, self.method) {
            (None, Method::Svd) => largest(),
            (rank, _) => rank,
        };
        let merged = combined.limited(limit)?;
        let module = merged.module(&weight_shape)?;
        let self_check = check::against_formula(path, self.method, terms, &module);
        // Probes see the truncation error give or take their own randomness, and rounding to f32.
        let limit = 1e-5 + 10.0 * merged.truncation_error;
        // Not `found > limit`: a NaN must not pass.
        if !matches!(self_check.partial_cmp(&limit), Some(order) if order.is_le()) {
            return Err(LoraError::SelfCheck {
                found: self_check,
                limit,
            });
        }
        let report = ModuleReport {
            module: path.to_owned(),
            weight: weight_shape,
            ranks: terms
                .iter()
                .map(|term| term.as_ref().map(|t| t.module.rank()))
                .collect(),
            rank: module.rank(),
            norm: merged.norm,
            truncation_error: merged.truncation_error,
            self_check,
        };
        Ok((module, report))
    }
}

#[cfg(test)]
mod tests;
