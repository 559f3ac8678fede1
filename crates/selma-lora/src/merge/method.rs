//! The names of the methods.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::LoraError;

/// How the updates of several adapters become one.
///
/// The page `docs/merging.md` says which to take when. `dW_i` is the update of adapter `i` with its
/// scale, `w_i` its weight.
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
    /// The mean, truncated to [`Merge::rank`](super::Merge::rank) (the largest rank of the inputs
    /// when there is none).
    Svd,
    /// The mean of the factors `A` and `B` themselves, as the SELMA paper writes it (section 3.4).
    /// A weight multiplies both factors, and the product has cross terms `B_i A_j`: it is close to
    /// the mean of the updates only if the adapters were trained from the same initial `A`. Needs
    /// equal ranks.
    FactorMean,

    /// PEFT's `linear`: `sum sign(w_i) v_i A_i` and `sum v_i B_i` with `v_i = sqrt(|w_i s_i|)`; has
    /// cross terms `B_i A_j`. Needs equal ranks, like the next four.
    PeftLinear,
    /// PEFT's `ties`: TIES on `A` and `B` apart, the sign elected without weights.
    PeftTies,
    /// PEFT's `dare_linear`: random entries of `A` and `B` dropped, the rest divided by the density.
    PeftDareLinear,
    /// PEFT's `dare_ties`: the same, then the sign elected.
    PeftDareTies,
    /// PEFT's `magnitude_prune`: the small entries of `A` and `B` dropped, then the sum.
    PeftMagnitudePrune,
    /// PEFT's `svd`: the sum of the weighted updates, truncated.
    PeftLinearSvd,
    /// PEFT's `ties_svd`: TIES on `dW`, truncated.
    PeftTiesSvd,
    /// PEFT's `dare_linear_svd`.
    PeftDareLinearSvd,
    /// PEFT's `dare_ties_svd`.
    PeftDareTiesSvd,
    /// PEFT's `magnitude_prune_svd`.
    PeftMagnitudePruneSvd,

    /// mergekit's `task_arithmetic` on `dW`: the sum of the weighted updates (arXiv 2212.04089).
    MkTaskArithmetic,
    /// mergekit's `ties` on `dW` (arXiv 2306.01708): the sign elected with weights, the sum divided
    /// by the weights that agree.
    MkTies,
    /// mergekit's `dare_linear` on `dW` (arXiv 2311.03099): rescaled to keep the sum of magnitudes.
    MkDareLinear,
    /// mergekit's `dare_ties` on `dW`.
    MkDareTies,
    /// mergekit's `breadcrumbs` on `dW` (arXiv 2312.06795): the largest and the smallest dropped.
    MkBreadcrumbs,
    /// mergekit's `breadcrumbs_ties` on `dW`.
    MkBreadcrumbsTies,
    /// mergekit's `della` on `dW` (arXiv 2406.11617): an entry is kept the likelier the larger it is
    /// in its row.
    MkDella,
    /// mergekit's `della_linear` on `dW`.
    MkDellaLinear,
    /// Spherical interpolation of two updates with mergekit's `slerp`, at `t = w_2 / (w_1 + w_2)`;
    /// straight where they are nearly parallel.
    MkSlerp,
    /// mergekit's `nuslerp` of two updates, flattened.
    MkNuslerp,
    /// mergekit's `model_stock` (arXiv 2403.19522): the mean, shortened by how little the updates
    /// agree. Takes `w_i dW_i` as the updates, like the next two.
    MkModelStock,
    /// mergekit's `sce` (arXiv 2408.07990): the entries that vary most, weighted by the energy of
    /// each update, without the minority sign.
    MkSce,
    /// mergekit's `karcher`: the mean of the directions on the sphere, of the mean length.
    MkKarcher,

    /// What `merge_lora.py` of sd-scripts does: the ratio multiplies both factors, so that its square
    /// counts, and the product has cross terms. Only for reproducing such merges. Needs equal ranks.
    Kohya,

    /// KnOTS (arXiv 2410.19735) with TIES: in the basis that all updates share on the output side.
    KnotsTies,
    /// KnOTS with DARE and the elected sign.
    KnotsDare,
    /// KnOTS with the plain sum: the exact sum, at the rank of the shared basis.
    KnotsSum,
    /// The Core Space of the factors (arXiv 2509.17786) with the plain sum: the exact sum.
    CoreSum,
    /// Core Space with TIES.
    CoreTies,
    /// Core Space with DARE.
    CoreDare,
    /// Core Space with TSV-M.
    CoreTsv,
    /// Core Space with Iso-C (arXiv 2502.04959): the sum with all singular values made equal.
    CoreIso,
    /// TSV-M (arXiv 2412.00081): the leading singular vectors of every update, made orthogonal.
    Tsv,
    /// LoRA-LEGO (arXiv 2409.16167): the rank-1 units of all adapters, clustered.
    Lego,
    /// RobustMerge (arXiv 2502.17159): pruned factors, each direction scaled by what pruning took
    /// from it. Needs equal ranks.
    Robust,
    /// SSR-Merge (arXiv 2606.10617): the stacked `A` routed to the adapters' own `B`, by statistics
    /// of calibration data ([`Merge::calibration`](super::Merge::calibration)).
    Ssr,
}

impl Method {
    /// Every method, in the order of the documentation.
    pub const ALL: [Self; 40] = [
        Self::Mean,
        Self::Sum,
        Self::Svd,
        Self::FactorMean,
        Self::PeftLinear,
        Self::PeftTies,
        Self::PeftDareLinear,
        Self::PeftDareTies,
        Self::PeftMagnitudePrune,
        Self::PeftLinearSvd,
        Self::PeftTiesSvd,
        Self::PeftDareLinearSvd,
        Self::PeftDareTiesSvd,
        Self::PeftMagnitudePruneSvd,
        Self::MkTaskArithmetic,
        Self::MkTies,
        Self::MkDareLinear,
        Self::MkDareTies,
        Self::MkBreadcrumbs,
        Self::MkBreadcrumbsTies,
        Self::MkDella,
        Self::MkDellaLinear,
        Self::MkSlerp,
        Self::MkNuslerp,
        Self::MkModelStock,
        Self::MkSce,
        Self::MkKarcher,
        Self::Kohya,
        Self::KnotsTies,
        Self::KnotsDare,
        Self::KnotsSum,
        Self::CoreSum,
        Self::CoreTies,
        Self::CoreDare,
        Self::CoreTsv,
        Self::CoreIso,
        Self::Tsv,
        Self::Lego,
        Self::Robust,
        Self::Ssr,
    ];

    /// True for methods on stacked factors that give the rank of the inputs all the same.
    pub(super) const fn truncates(self) -> bool {
        matches!(
            self,
            Self::Svd
                | Self::PeftLinearSvd
                | Self::MkTaskArithmetic
                | Self::MkSlerp
                | Self::MkNuslerp
                | Self::MkModelStock
                | Self::MkKarcher
        )
    }

    /// The name in recipes and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Sum => "sum",
            Self::Svd => "svd",
            Self::FactorMean => "factor_mean",
            Self::PeftLinear => "peft_linear",
            Self::PeftTies => "peft_ties",
            Self::PeftDareLinear => "peft_dare_linear",
            Self::PeftDareTies => "peft_dare_ties",
            Self::PeftMagnitudePrune => "peft_magnitude_prune",
            Self::PeftLinearSvd => "peft_linear_svd",
            Self::PeftTiesSvd => "peft_ties_svd",
            Self::PeftDareLinearSvd => "peft_dare_linear_svd",
            Self::PeftDareTiesSvd => "peft_dare_ties_svd",
            Self::PeftMagnitudePruneSvd => "peft_magnitude_prune_svd",
            Self::MkTaskArithmetic => "mk_task_arithmetic",
            Self::MkTies => "mk_ties",
            Self::MkDareLinear => "mk_dare_linear",
            Self::MkDareTies => "mk_dare_ties",
            Self::MkBreadcrumbs => "mk_breadcrumbs",
            Self::MkBreadcrumbsTies => "mk_breadcrumbs_ties",
            Self::MkDella => "mk_della",
            Self::MkDellaLinear => "mk_della_linear",
            Self::MkSlerp => "mk_slerp",
            Self::MkNuslerp => "mk_nuslerp",
            Self::MkModelStock => "mk_model_stock",
            Self::MkSce => "mk_sce",
            Self::MkKarcher => "mk_karcher",
            Self::Kohya => "kohya",
            Self::KnotsTies => "knots_ties",
            Self::KnotsDare => "knots_dare",
            Self::KnotsSum => "knots_sum",
            Self::CoreSum => "core_sum",
            Self::CoreTies => "core_ties",
            Self::CoreDare => "core_dare",
            Self::CoreTsv => "core_tsv",
            Self::CoreIso => "core_iso",
            Self::Tsv => "tsv",
            Self::Lego => "lego",
            Self::Robust => "robust",
            Self::Ssr => "ssr",
        }
    }
}

/// What [`Method::from_str`] accepts, for its error.
const NAMES: &str = "mean, sum, svd, factor_mean, peft_linear, peft_ties, peft_dare_linear, \
    peft_dare_ties, peft_magnitude_prune, peft_linear_svd, peft_ties_svd, peft_dare_linear_svd, \
    peft_dare_ties_svd, peft_magnitude_prune_svd, mk_task_arithmetic, mk_ties, mk_dare_linear, \
    mk_dare_ties, mk_breadcrumbs, mk_breadcrumbs_ties, mk_della, mk_della_linear, mk_slerp, \
    mk_nuslerp, mk_model_stock, mk_sce, mk_karcher, kohya, knots_ties, knots_dare, knots_sum, \
    core_sum, core_ties, core_dare, core_tsv, core_iso, tsv, lego, robust, ssr";

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Method {
    type Err = LoraError;

    fn from_str(name: &str) -> Result<Self, LoraError> {
        Self::ALL
            .into_iter()
            .find(|method| method.name() == name)
            .ok_or_else(|| LoraError::UnknownName {
                what: "merge method",
                found: name.to_owned(),
                expected: NAMES,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_is_that_of_recipes() {
        let names: Vec<&str> = Method::ALL.iter().map(|method| method.name()).collect();
        assert_eq!(names.join(", "), NAMES);
        for method in Method::ALL {
            assert_eq!(method.to_string().parse::<Method>().unwrap(), method);
            assert_eq!(serde_json::to_value(method).unwrap(), method.name());
        }
        let error = "average".parse::<Method>().unwrap_err().to_string();
        assert!(error.contains("average") && error.contains("mk_della_linear"));
    }
}
