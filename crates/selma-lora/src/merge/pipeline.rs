//! Methods as compositions: (space) x (sparsifier) x (consensus) x (scale) x (output rank).

use ndarray::Array2;

use super::{
    Merge, Method,
    agreement::sce,
    combination::Combination,
    combine::{Sum, Term, Update, factor_weights, mean_of_factors},
    consensus::{disjoint_mean, sign_consensus, weighted_mean, weighted_sum},
    directions::{isotropic, tsv},
    lego::lego,
    masks::Draw,
    robust::robust,
    space::{Part, Space, Split},
    sparsify::{Rescale, della_probabilities, magnitude, masked, outliers, rescaled, size},
    ssr::ssr,
};
use crate::LoraError;

/// How a method works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pipeline {
    /// On the factors of all adapters side by side.
    Stacked(Stacked),
    /// On tensors of one shape for all adapters.
    Aligned {
        space: Space,
        sparsifier: Sparsifier,
        consensus: Consensus,
    },
}

/// What becomes of stacked factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stacked {
    Sum,
    Mean,
    /// Every update times a number that depends on all of them.
    Combined(Combination),
    FactorMean,
    /// Of how many components each adapter keeps its share.
    Tsv(Components),
    Lego,
    Robust,
    Ssr,
}

/// What stays of the tensors of one adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sparsifier {
    All,
    /// The largest entries, at least this many.
    Magnitude(usize),
    Random(Rescale),
    Outliers,
    Della,
}

/// How the tensors of all adapters become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consensus {
    Sum,
    /// The sum, divided by the weights if asked.
    WeightedMean,
    DisjointMean,
    /// The sum without the minority sign, divided by the weights that agree: by default or not.
    Elected {
        normalize: bool,
    },
    Sce,
    Isotropic,
}

/// What is divided among the adapters of TSV-M.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Components {
    /// The singular vectors of the weight.
    Weight,
    /// Those of the core.
    Core,
}

/// One module on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) merge: &'a Merge,
    pub(super) path: &'a str,
    pub(super) terms: &'a [Option<Term<'a>>],
    /// The weights of all adapters, also of those without the module.
    pub(super) total_weight: f64,
}

/// A merge that is no more than sums of factors and their products.
#[derive(Debug)]
pub(super) enum Formula {
    /// `sum_i c_i dW_i`, a number for each term that is there.
    Sum(Vec<f64>),
    /// `scale (sum_i b_i B_i) (sum_i a_i A_i)`, `(b_i, a_i)` for each term that is there.
    Product {
        scale: f64,
        weights: Vec<(f64, f64)>,
    },
}

impl Formula {
    /// The numbers that a sum multiplies the updates by.
    pub(super) fn numbers(&self) -> &[f64] {
        match self {
            Self::Sum(numbers) => numbers,
            Self::Product { .. } => &[],
        }
    }
}

impl Pipeline {
    /// The composition of a method that merges `adapters` of them.
    pub(super) fn of(method: Method, adapters: usize) -> Self {
        use Consensus as C;
        use Sparsifier as S;
        const AT_LEAST_ONE: S = S::Magnitude(1);
        let aligned = |space, sparsifier, consensus| Self::Aligned {
            space,
            sparsifier,
            consensus,
        };
        let factors = Space::Factors(Split::Root);
        // PEFT's rule: "if there is only one adapter, we can only use linear merging".
        let unless_alone = |space, sparsifier, consensus| {
            if adapters == 1 {
                aligned(factors, S::All, C::Sum)
            } else {
                aligned(space, sparsifier, consensus)
            }
        };
        let peft = |sparsifier, consensus| unless_alone(factors, sparsifier, consensus);
        let peft_svd = |sparsifier, consensus| unless_alone(Space::Dense, sparsifier, consensus);
        let dense = |sparsifier, consensus| aligned(Space::Dense, sparsifier, consensus);
        let combined = |by| Self::Stacked(Stacked::Combined(by));
        let (knots, core) = (Space::Knots, Space::Core);
        let by_density = S::Random(Rescale::Density);
        let by_magnitudes = S::Random(Rescale::Magnitudes);
        match method {
            Method::Sum | Method::PeftLinearSvd => Self::Stacked(Stacked::Sum),
            Method::Mean | Method::Svd => Self::Stacked(Stacked::Mean),
            Method::FactorMean => Self::Stacked(Stacked::FactorMean),
            Method::Lego => Self::Stacked(Stacked::Lego),
            Method::Robust => Self::Stacked(Stacked::Robust),
            Method::Ssr => Self::Stacked(Stacked::Ssr),
            Method::PeftLinear => peft(S::All, C::Sum),
            Method::PeftTies => peft(S::Magnitude(0), C::DisjointMean),
            Method::PeftDareLinear => peft(by_density, C::Sum),
            Method::PeftDareTies => peft(by_density, C::DisjointMean),
            Method::PeftMagnitudePrune => peft(S::Magnitude(0), C::Sum),
            Method::PeftTiesSvd => peft_svd(S::Magnitude(0), C::DisjointMean),
            Method::PeftDareLinearSvd => peft_svd(by_density, C::Sum),
            Method::PeftDareTiesSvd => peft_svd(by_density, C::DisjointMean),
            Method::PeftMagnitudePruneSvd => peft_svd(S::Magnitude(0), C::Sum),
            Method::MkTaskArithmetic => combined(Combination::Weights),
            Method::MkTies => dense(AT_LEAST_ONE, C::Elected { normalize: true }),
            Method::MkDareLinear => dense(by_magnitudes, C::WeightedMean),
            Method::MkDareTies => dense(by_magnitudes, C::Elected { normalize: false }),
            Method::MkBreadcrumbs => dense(S::Outliers, C::WeightedMean),
            Method::MkBreadcrumbsTies => dense(S::Outliers, C::Elected { normalize: false }),
            Method::MkDella => dense(S::Della, C::Elected { normalize: true }),
            Method::MkDellaLinear => dense(S::Della, C::WeightedMean),
            Method::MkSlerp => combined(Combination::Slerp),
            Method::MkNuslerp => combined(Combination::Nuslerp),
            Method::MkModelStock => combined(Combination::ModelStock),
            Method::MkSce => dense(S::All, C::Sce),
            Method::MkKarcher => combined(Combination::Karcher),
            Method::Kohya => aligned(Space::Factors(Split::Kohya), S::All, C::Sum),
            Method::KnotsTies => aligned(knots, AT_LEAST_ONE, C::DisjointMean),
            Method::KnotsDare => aligned(knots, by_density, C::DisjointMean),
            Method::KnotsSum => aligned(knots, S::All, C::Sum),
            Method::CoreSum => aligned(core, S::All, C::Sum),
            Method::CoreTies => aligned(core, AT_LEAST_ONE, C::DisjointMean),
            Method::CoreDare => aligned(core, by_density, C::Sum),
            Method::CoreTsv => Self::Stacked(Stacked::Tsv(Components::Core)),
            Method::CoreIso => aligned(core, S::All, C::Isotropic),
            Method::Tsv => Self::Stacked(Stacked::Tsv(Components::Weight)),
        }
    }

    /// Merges one module, before its rank is limited. `numbers` are those of a [`Stacked::Combined`], for each
    /// term that is there.
    pub(super) fn run<'a>(
        self,
        context: Context<'a>,
        numbers: &[f64],
    ) -> Result<Update<'a>, LoraError> {
        let Context {
            merge, path, terms, ..
        } = context;
        let update = match self {
            Self::Stacked(Stacked::Sum) => Update::Sum(Sum::new(terms, 1.0)),
            Self::Stacked(Stacked::Mean) => Update::Sum(Sum::new(terms, 1.0 / terms.len() as f64)),
            Self::Stacked(Stacked::Combined(_)) => {
                let present = terms.iter().flatten().zip(numbers);
                let terms: Vec<_> = present
                    .map(|(term, &weight)| Some(Term { weight, ..*term }))
                    .collect();
                Update::Sum(Sum::new(&terms, 1.0))
            }
            Self::Stacked(Stacked::FactorMean) => Update::Factors(mean_of_factors(terms)?),
            Self::Stacked(Stacked::Tsv(of)) => Update::Factors(tsv(terms, context.share_of(of))?),
            Self::Stacked(Stacked::Lego) => {
                Update::Factors(lego(terms, context.rank(), context.draw(0, "units")))
            }
            Self::Stacked(Stacked::Robust) => {
                Update::Factors(robust(terms, merge.density_or_default())?)
            }
            Self::Stacked(Stacked::Ssr) => {
                let calibration = merge.calibration.as_ref();
                let statistics = calibration.and_then(|all| all.modules.get(path));
                Update::Factors(ssr(terms, statistics, merge.ridge_or_default())?)
            }
            Self::Aligned {
                space,
                sparsifier,
                consensus,
            } => {
                let (parts, frame) = space.enter(terms)?;
                let merged = parts
                    .into_iter()
                    .map(|mut part| {
                        context.sparsify(sparsifier, &mut part)?;
                        context.agree(consensus, &part)
                    })
                    .collect::<Result<Vec<_>, LoraError>>()?;
                frame.leave(&merged)
            }
        };
        match merge.lambda_or_default() {
            1.0 => Ok(update),
            lambda => Ok(update.scaled(lambda)),
        }
    }

    /// The method as a formula on the inputs' factors, where it is one; without [`Merge::lambda`].
    ///
    /// # Errors
    /// Those of [`Split::weights`].
    pub(super) fn formula(self, context: Context<'_>) -> Result<Option<Formula>, LoraError> {
        let Context { merge, terms, .. } = context;
        let present = || terms.iter().flatten();
        let weights = |by: f64| Formula::Sum(present().map(|term| by * term.weight).collect());
        Ok(Some(match self {
            Self::Stacked(Stacked::Sum)
            | Self::Aligned {
                space: Space::Dense | Space::Knots | Space::Core,
                sparsifier: Sparsifier::All,
                consensus: Consensus::Sum,
            } => weights(1.0),
            Self::Stacked(Stacked::Mean) => weights(1.0 / terms.len() as f64),
            Self::Stacked(Stacked::Combined(combination)) => {
                let divided =
                    merge.normalize.unwrap_or(false) && context.total_weight.abs() >= 1e-8;
                let divisor = if divided { context.total_weight } else { 1.0 };
                let terms: Vec<&Term<'_>> = present().collect();
                Formula::Sum(combination.weights(&terms, divisor))
            }
            Self::Stacked(Stacked::FactorMean) => Formula::Product {
                scale: 1.0,
                weights: present()
                    .map(|term| factor_weights(term, terms.len(), false))
                    .collect(),
            },
            Self::Aligned {
                space: Space::Factors(split),
                sparsifier: Sparsifier::All,
                consensus: Consensus::Sum,
            } => {
                let (weights, scale) = split.weights(terms)?;
                Formula::Product { scale, weights }
            }
            _ => return Ok(None),
        }))
    }

    /// True when the result has the rank of the inputs, whatever their number.
    pub(super) fn keeps_rank(self) -> bool {
        matches!(
            self,
            Self::Stacked(Stacked::FactorMean)
                | Self::Aligned {
                    space: Space::Factors(_),
                    ..
                }
        )
    }

    /// What the dense updates of a module take in memory at once, in bytes; 0 for methods that form none.
    pub(super) fn dense_bytes(self, weight: &[usize], adapters: usize) -> u64 {
        let copies = match self {
            Self::Aligned {
                space: Space::Dense,
                consensus,
                ..
            } => {
                // SCE has them weighted beside themselves.
                let weighted = if consensus == Consensus::Sce {
                    adapters
                } else {
                    0
                };
                // What they become, and that as faer has it.
                adapters + weighted + 2
            }
            _ => 0,
        };
        let numbers = weight.iter().map(|&size| size as u64);
        let bytes = numbers.fold(8, |bytes: u64, size| bytes.saturating_mul(size));
        bytes.saturating_mul(copies as u64)
    }

    /// True when the update has no low rank of its own.
    pub(super) fn is_dense(self) -> bool {
        matches!(
            self,
            Self::Aligned {
                space: Space::Dense,
                ..
            }
        )
    }
}

impl Context<'_> {
    /// The rank asked for, or the largest of the inputs.
    pub(super) fn rank(&self) -> usize {
        let ranks = self.terms.iter().flatten().map(|t| t.module.rank());
        self.merge.rank.or_else(|| ranks.max()).unwrap_or(1)
    }

    fn draw<'b>(&'b self, adapter: usize, part: &'b str) -> Draw<'b> {
        Draw {
            masks: self.merge.masks.as_deref(),
            seed: self.merge.seed,
            module: self.path,
            adapter,
            part,
        }
    }

    fn sparsify(&self, sparsifier: Sparsifier, part: &mut Part) -> Result<(), LoraError> {
        if sparsifier == Sparsifier::All {
            return Ok(());
        }
        let adapters = self.terms.iter().enumerate();
        let present = adapters.filter(|(_, term)| term.is_some());
        for ((adapter, _), tensor) in present.zip(&mut part.tensors) {
            let density = self.merge.density_of(adapter);
            let columns = tensor.ncols();
            let draw = self.draw(adapter, part.name);
            // Everything stays, whatever the masks say: mergekit and PEFT draw none here.
            let Some(values) = tensor.as_slice_mut().filter(|_| density < 1.0) else {
                continue;
            };
            let before = size(values);
            let or_default = |default| match self.merge.rescale {
                Some(true) => Rescale::Magnitudes,
                Some(false) => Rescale::None,
                None => default,
            };
            match sparsifier {
                Sparsifier::All => {}
                Sparsifier::Magnitude(least) => {
                    magnitude(values, density, least);
                    rescaled(values, before, density, or_default(Rescale::None));
                }
                Sparsifier::Outliers => {
                    outliers(values, density, self.merge.gamma_of(adapter));
                    rescaled(values, before, density, or_default(Rescale::None));
                }
                Sparsifier::Random(rescale) => {
                    let mask = draw.bernoulli(std::iter::repeat_n(density, values.len()))?;
                    masked(values, &mask, density, or_default(rescale));
                }
                Sparsifier::Della => {
                    let epsilon = self.merge.epsilon_of(adapter);
                    let rows = values.chunks(columns.max(1));
                    let probabilities: Vec<f64> = rows
                        .flat_map(|row| della_probabilities(row, density, epsilon))
                        .collect();
                    let mask = draw.bernoulli(probabilities.into_iter())?;
                    masked(values, &mask, density, or_default(Rescale::Magnitudes));
                }
            }
        }
        Ok(())
    }

    fn agree(&self, consensus: Consensus, part: &Part) -> Result<Array2<f64>, LoraError> {
        let weighted = || -> Vec<Array2<f64>> {
            let tensors = part.tensors.iter().zip(&part.weights);
            tensors.map(|(tensor, &weight)| tensor * weight).collect()
        };
        let weights = &part.weights;
        let majority = self.merge.majority;
        let normalize = |default| self.merge.normalize.unwrap_or(default);
        let tensors = slices(&part.tensors);
        let values = match consensus {
            Consensus::Sum => weighted_sum(&tensors, weights),
            Consensus::WeightedMean if !normalize(false) => weighted_sum(&tensors, weights),
            // An adapter without the module counts as a model without a difference.
            Consensus::WeightedMean => weighted_mean(&tensors, weights, self.total_weight),
            Consensus::DisjointMean => disjoint_mean(&tensors, weights, majority),
            Consensus::Elected { normalize: default } => {
                sign_consensus(&tensors, weights, majority, normalize(default))
            }
            Consensus::Sce => sce(&slices(&weighted()), self.merge.density_or_default()),
            Consensus::Isotropic => {
                let sum = shaped(part, weighted_sum(&tensors, weights))?;
                return isotropic(&sum);
            }
        };
        shaped(part, values)
    }

    /// How many components each adapter keeps: the published code takes an equal share each, at least
    /// one here.
    fn share_of(&self, components: Components) -> usize {
        let present = || self.terms.iter().flatten().map(|term| term.module);
        let size = present().next().map(|m| m.outputs().min(m.inputs()));
        let total: usize = present().map(|module| module.rank()).sum();
        let all = match components {
            Components::Weight => size.unwrap_or(0),
            Components::Core => size.unwrap_or(0).min(total),
        };
        (all / present().count().max(1)).max(1)
    }
}

fn slices(tensors: &[Array2<f64>]) -> Vec<&[f64]> {
    tensors.iter().filter_map(|x| x.as_slice()).collect()
}

/// The values in the shape of the tensors they come from.
fn shaped(part: &Part, values: Vec<f64>) -> Result<Array2<f64>, LoraError> {
    let (rows, columns) = part.tensors.first().map_or((0, 0), Array2::dim);
    let found = vec![values.len()];
    Array2::from_shape_vec((rows, columns), values).map_err(|_| LoraError::WeightShapes {
        expected: vec![rows, columns],
        found,
    })
}
