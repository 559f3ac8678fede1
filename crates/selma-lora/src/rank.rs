//! Choosing a rank: resizing adapters, and LoRAs from dense differences.

use std::{fmt, str::FromStr};

use faer::Mat;
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Adapter, LoraError, LoraModule,
    linalg::{product_norm, to_factor, truncate, truncate_dense},
    number::cast,
    truncated::Truncated,
};

/// How the rank of a truncated singular value decomposition is chosen. At least one singular value
/// is always kept, so that a module never disappears.
///
/// As text: `16`, `energy:0.95`, `threshold:0.01`, `ratio:0.02`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RankRule {
    /// This many singular values, or as many as there are.
    Number(usize),
    /// As few as hold this share of the energy (the squared Frobenius norm) of the update, in `(0, 1]`.
    Energy(f64),
    /// Those that are at least this large.
    Threshold(f64),
    /// Those that are at least this share of the largest, in `[0, 1]`.
    Ratio(f64),
}

/// What a truncation did to one update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cut {
    /// The rank kept.
    pub rank: usize,
    /// Frobenius norm of the whole update `M`.
    pub norm: f64,
    /// `||M - dW|| / ||M||`: what was cut off; 0 for an update of zero.
    pub error: f64,
}

/// What [`Adapter::resize`] did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResizeReport {
    /// How ranks were chosen.
    pub rule: RankRule,
    /// Frobenius norm of the whole update.
    pub norm: f64,
    /// Frobenius norm of what was cut off, relative to `norm`.
    pub error: f64,
    /// Every module, by path.
    pub modules: Vec<ResizedModule>,
}

/// What [`Adapter::resize`] did to one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResizedModule {
    /// The module's path.
    pub module: String,
    /// The rank before.
    pub before: usize,
    /// The rank after, and what it cost.
    #[serde(flatten)]
    pub cut: Cut,
}

impl RankRule {
    /// Refuses a rule that no rank follows.
    ///
    /// # Errors
    /// [`LoraError::ZeroRank`], [`LoraError::BadRankRule`].
    pub fn check(self) -> Result<(), LoraError> {
        let (name, value, fits, expected) = match self {
            Self::Number(0) => return Err(LoraError::ZeroRank),
            Self::Number(_) => return Ok(()),
            Self::Energy(x) => ("energy", x, x > 0.0 && x <= 1.0, "above 0 and at most 1"),
            Self::Threshold(x) => (
                "threshold",
                x,
                x >= 0.0 && x.is_finite(),
                "finite and not negative",
            ),
            Self::Ratio(x) => ("ratio", x, (0.0..=1.0).contains(&x), "from 0 to 1"),
        };
        if fits {
            return Ok(());
        }
        Err(LoraError::BadRankRule {
            name,
            value,
            expected,
        })
    }

    /// How many of the singular values (largest first) to keep.
    fn choose(self, values: &[f64]) -> usize {
        let largest = values.first().copied().unwrap_or(0.0);
        let at_least = |limit: f64| values.iter().take_while(|&&value| value >= limit).count();
        let chosen = match self {
            Self::Number(number) => number,
            Self::Threshold(limit) => at_least(limit),
            Self::Ratio(share) => at_least(share * largest),
            Self::Energy(share) => {
                // From the small end, where sums do not lose what the large ones would swallow.
                let total: f64 = values.iter().rev().map(|x| x * x).sum();
                let allowed = (1.0 - share) * total;
                let mut lost = 0.0;
                let dropped = values.iter().rev().take_while(|&&value| {
                    lost += value * value;
                    lost <= allowed
                });
                values.len() - dropped.count()
            }
        };
        chosen.clamp(1, values.len().max(1))
    }
}

impl fmt::Display for RankRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Energy(share) => write!(f, "energy:{share}"),
            Self::Threshold(limit) => write!(f, "threshold:{limit}"),
            Self::Ratio(share) => write!(f, "ratio:{share}"),
        }
    }
}

impl FromStr for RankRule {
    type Err = LoraError;

    fn from_str(text: &str) -> Result<Self, LoraError> {
        let parsed = match text.split_once(':') {
            None => text.parse().ok().map(Self::Number),
            Some(("energy", share)) => share.parse().ok().map(Self::Energy),
            Some(("threshold", limit)) => limit.parse().ok().map(Self::Threshold),
            Some(("ratio", share)) => share.parse().ok().map(Self::Ratio),
            Some(_) => None,
        };
        let rule = parsed.ok_or_else(|| LoraError::UnknownName {
            what: "rule for ranks",
            found: text.to_owned(),
            expected: "a number, energy:SHARE, threshold:SIZE, ratio:SHARE",
        })?;
        rule.check()?;
        Ok(rule)
    }
}

impl Cut {
    /// Nothing cut off.
    pub(crate) fn none(module: &LoraModule) -> Self {
        Self {
            rank: module.rank(),
            norm: product_norm(&module.b_turned(), &module.a_turned()) * module.scale().abs(),
            error: 0.0,
        }
    }
}

impl LoraModule {
    /// The same update at the rank that `rule` chooses, by truncated singular value decomposition;
    /// alpha becomes the rank. A module whose rank is already that low stays as it is, to the bit.
    ///
    /// `dW` is not formed while its factors are smaller.
    ///
    /// # Errors
    /// [`LoraError::FactorShapes`], [`LoraError::ZeroRank`], [`LoraError::BadRankRule`],
    /// [`LoraError::NoConvergence`] also for factors that are not finite.
    ///
    /// ```
    /// use selma_lora::{RankRule, init};
    ///
    /// let mut module = init::gaussian("unet.conv_in", &[320, 4, 3, 3], 8, 8.0, 0)?;
    /// module.b.fill(0.5); // all columns alike: an update of rank 1
    /// let (small, cut) = module.resize(RankRule::Energy(0.999))?;
    /// assert_eq!(small.rank(), 1);
    /// assert!(cut.error < 1e-6);
    /// # Ok::<(), selma_lora::LoraError>(())
    /// ```
    pub fn resize(&self, rule: RankRule) -> Result<(Self, Cut), LoraError> {
        rule.check()?;
        self.check()?;
        if matches!(rule, RankRule::Number(number) if number >= self.rank()) {
            return Ok((self.clone(), Cut::none(self)));
        }
        let scaled = faer::Scale(self.scale()) * self.b_turned();
        let a_turned = self.a_turned();
        finite(&scaled)?;
        finite(&a_turned)?;
        let size = self.rank().min(self.outputs()).min(self.inputs());
        let shape = self.weight_shape();
        let (module, cut) = cut(&shape, rule, size, |most| {
            truncate(&scaled, &a_turned, most)
        })?;
        if cut.rank >= self.rank() {
            return Ok((self.clone(), Cut::none(self)));
        }
        Ok((module, cut))
    }

    /// The best approximation of a dense update `delta [out, in * kh * kw]` of a weight of the shape
    /// `[out, in]` or `[out, in, kh, kw]`; alpha is the rank.
    ///
    /// # Errors
    /// [`LoraError::DeltaShape`] when the shapes do not agree or a dimension is zero,
    /// [`LoraError::ZeroRank`], [`LoraError::BadRankRule`], [`LoraError::NoConvergence`] also for
    /// values that are not finite.
    pub fn from_delta(
        delta: &Array2<f64>,
        weight: &[usize],
        rule: RankRule,
    ) -> Result<(Self, Cut), LoraError> {
        rule.check()?;
        let (rows, columns) = delta.dim();
        let fits = match weight {
            [out, rest @ ..] => {
                *out == rows && !rest.is_empty() && rest.iter().product::<usize>() == columns
            }
            [] => false,
        };
        if !fits || delta.is_empty() {
            return Err(LoraError::DeltaShape {
                shape: weight.to_vec(),
            });
        }
        let turned = Mat::from_fn(columns, rows, |column, row| {
            delta.get((row, column)).copied().unwrap_or(0.0)
        });
        finite(&turned)?;
        cut(weight, rule, rows.min(columns), |most| {
            truncate_dense(turned.transpose(), most)
        })
    }
}

impl Adapter {
    /// Every module at the rank that `rule` chooses for it; see [`LoraModule::resize`]. The metadata
    /// stays and gets the entry `selma_resize`: the rule, and the SHA-256 of this adapter's file (of
    /// its content when it was made in memory).
    ///
    /// # Errors
    /// As [`LoraModule::resize`], around the module concerned ([`LoraError::InModule`]).
    pub fn resize(&self, rule: RankRule) -> Result<(Self, ResizeReport), LoraError> {
        rule.check()?;
        let resized = self
            .modules
            .par_iter()
            .map(|(path, module)| {
                let (small, cut) = module.resize(rule).map_err(|e| e.in_module(path))?;
                let report = ResizedModule {
                    module: path.clone(),
                    before: module.rank(),
                    cut,
                };
                Ok(((path.clone(), small), report))
            })
            .collect::<Result<Vec<_>, LoraError>>()?;
        let (modules, reports): (Vec<_>, Vec<_>) = resized.into_iter().unzip();
        let mut adapter = Self::new(modules);
        adapter.metadata.clone_from(&self.metadata);
        let recipe = json!({"rule": rule, "input": self.origin_sha256()});
        adapter
            .metadata
            .insert("selma_resize".to_owned(), recipe.to_string());
        let (norm, error) = total(reports.iter().map(|report| report.cut));
        Ok((
            adapter,
            ResizeReport {
                rule,
                norm,
                error,
                modules: reports,
            },
        ))
    }
}

/// Norm and relative error of several updates together.
pub(crate) fn total(cuts: impl Iterator<Item = Cut>) -> (f64, f64) {
    let (norm, lost) = cuts.fold((0.0, 0.0), |(norm, lost), cut| {
        let lost_here = cut.norm * cut.error;
        (norm + cut.norm * cut.norm, lost + lost_here * lost_here)
    });
    let error = if norm > 0.0 {
        (lost / norm).sqrt()
    } else {
        0.0
    };
    (norm.sqrt(), error)
}

/// Infinity and NaN would not come out of a decomposition, or only as garbage.
fn finite(factor: &Mat<f64>) -> Result<(), LoraError> {
    if factor.norm_max().is_finite() && !factor.has_nan() {
        Ok(())
    } else {
        Err(LoraError::NoConvergence)
    }
}

/// An update with `size` singular values at the rank that `rule` chooses, given how it is decomposed into so many of the
/// largest: all, where the rule looks at them, and no more than are kept where it does not.
fn cut(
    weight: &[usize],
    rule: RankRule,
    size: usize,
    decompose: impl FnOnce(usize) -> Result<Truncated, LoraError>,
) -> Result<(LoraModule, Cut), LoraError> {
    let most = match rule {
        RankRule::Number(number) => number.min(size),
        _ => size,
    };
    let Truncated {
        b_turned,
        a_turned,
        norm,
        error,
    } = decompose(most)?;
    // Each factor has the roots of the singular values.
    let values: Vec<f64> = a_turned.col_iter().map(|x| x.squared_norm_l2()).collect();
    let rank = rule.choose(&values);
    let beyond = norm * error;
    let lost: f64 = values.iter().skip(rank).map(|x| x * x).sum::<f64>() + beyond * beyond;
    let kernel = weight.get(2..).unwrap_or_default();
    let mut a_shape = vec![rank];
    a_shape.extend(weight.iter().skip(1));
    let mut b_shape = vec![b_turned.ncols(), rank];
    b_shape.extend(kernel.iter().map(|_| 1));
    let module = LoraModule::new(
        to_factor(&cast(a_turned.subcols(0, rank)), &a_shape)?,
        to_factor(&cast(b_turned.subrows(0, rank)), &b_shape)?,
        rank as f64,
    )?;
    Ok((
        module,
        Cut {
            rank,
            norm,
            error: if norm > 0.0 { lost.sqrt() / norm } else { 0.0 },
        },
    ))
}

#[cfg(test)]
mod tests;
