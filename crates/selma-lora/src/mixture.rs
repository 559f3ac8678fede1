//! Several adapters at once, whose shares are learned.

mod file;

use std::collections::BTreeMap;

use ndarray::{Array2, ArrayD, ArrayView2, Axis, Ix2, concatenate};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Uniform};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::merge::ModuleWeight;
use crate::{Adapter, LoraError};

/// Where the weights of a [`Mixture`]'s experts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mixing {
    /// Every layer has a router, linear and without bias, that looks at each of the layer's inputs: the weights of the `top_k`
    /// largest logits are their softmax, those of the others zero (MoE-LoRA of SELMA, arXiv 2403.06952, appendix I).
    Router {
        /// How many experts an input is given to.
        top_k: usize,
    },
    /// Every layer has one weight for each expert, whatever its input (CAT of LoRA Soups, arXiv 2410.13025).
    Weights,
}

/// Adapters with learned weights: an input `x` of a layer gains `sum_i w_i scale_i B_i A_i x`.
///
/// With [`Mixing::Router`] the weights depend on `x`, so that no update of the layer's weight is the same, and the mixture is neither an
/// [`Adapter`] nor can it be fused. With [`Mixing::Weights`] it is a merge by weights of each module: [`weights_by_module`](Self::weights_by_module).
#[derive(Debug, Clone, PartialEq)]
pub struct Mixture {
    /// SHA-256 of the experts' files, or of their content where they were made in memory, in the order of the weights.
    pub experts: Vec<String>,
    /// Where the weights come from.
    pub mixing: Mixing,
    /// The layers, by diffusers path, component included.
    pub modules: BTreeMap<String, MixedModule>,
    /// Free-form notes that travel with the file.
    pub metadata: BTreeMap<String, String>,
}

/// The experts of one linear layer, one below the other.
#[derive(Debug, Clone, PartialEq)]
pub struct MixedModule {
    /// What each expert has of the factors, in their order.
    pub parts: Vec<MixedPart>,
    /// All `A`, `[R, in]`.
    pub down: Array2<f32>,
    /// All `B`, `[out, R]`.
    pub up: Array2<f32>,
    /// The router, `[experts, in]`; or the weights, `[experts, 1]`.
    pub gate: Array2<f32>,
}

/// What an expert has of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixedPart {
    /// Its rank: 0 where it does not adapt the layer.
    pub rank: usize,
    /// Its `alpha / rank`.
    pub scale: f64,
}

impl Mixture {
    /// Experts behind a router.
    ///
    /// Where every input is given to all experts, the router begins with zeros: all weights are equal, and the mixture is the mean of the
    /// experts. Where it is given to fewer, equal logits would choose the first ones for ever, so that the router is drawn from the seed, as torch draws
    /// linear layers: evenly from `-1/sqrt(in)` to `1/sqrt(in)`.
    ///
    /// # Errors
    /// [`LoraError::NoAdapters`]; [`LoraError::Mixture`] for a `top_k` of zero or above the number of experts, and around the module concerned
    /// ([`LoraError::InModule`]) for a convolution; [`LoraError::WeightShapes`] for experts of different models.
    pub fn router(experts: &[&Adapter], top_k: usize, seed: u64) -> Result<Self, LoraError> {
        let count = experts.len();
        if !(1..=count.max(1)).contains(&top_k) {
            return Err(LoraError::Mixture {
                what: "top_k",
                expected: format!("1 to {count}, the number of experts"),
                found: top_k.to_string(),
            });
        }
        let mixing = Mixing::Router { top_k };
        Self::of(experts, mixing, |path, inputs| match top_k == count {
            true => Array2::zeros((count, inputs)),
            false => drawn_gate(path, count, inputs, seed),
        })
    }

    /// Experts with a weight for each in every layer, all equal at the beginning: the mean of the experts.
    ///
    /// # Errors
    /// As [`router`](Self::router).
    pub fn weights(experts: &[&Adapter]) -> Result<Self, LoraError> {
        let share = 1.0 / experts.len() as f32;
        Self::of(experts, Mixing::Weights, |_, _| {
            Array2::from_elem((experts.len(), 1), share)
        })
    }

    fn of(
        experts: &[&Adapter],
        mixing: Mixing,
        gate: impl Fn(&str, usize) -> Array2<f32>,
    ) -> Result<Self, LoraError> {
        if experts.is_empty() {
            return Err(LoraError::NoAdapters);
        }
        let paths = experts.iter().flat_map(|expert| expert.modules.keys());
        let mut modules = BTreeMap::new();
        for path in paths {
            if modules.contains_key(path) {
                continue;
            }
            let module = stacked(experts, path)
                .map(|(parts, down, up)| MixedModule {
                    parts,
                    gate: gate(path, down.ncols()),
                    down,
                    up,
                })
                .map_err(|error| error.in_module(path))?;
            modules.insert(path.clone(), module);
        }
        if modules.is_empty() {
            return Err(LoraError::Empty);
        }
        Ok(Self {
            experts: experts
                .iter()
                .map(|expert| expert.origin_sha256())
                .collect(),
            mixing,
            modules,
            metadata: BTreeMap::new(),
        })
    }

    /// The weights as [`Merge::weights_by_module`](crate::Merge::weights_by_module) takes them, with which a
    /// [`Sum`](crate::Method::Sum) of the experts, in their order, is one adapter that does the same.
    ///
    /// # Errors
    /// [`LoraError::Mixture`] where the weights depend on the input.
    pub fn weights_by_module(&self) -> Result<Vec<ModuleWeight>, LoraError> {
        if self.mixing != Mixing::Weights {
            return Err(LoraError::Mixture {
                what: "weights",
                expected: "a weight for each expert in every layer".to_owned(),
                found: "a router, whose weights depend on the input".to_owned(),
            });
        }
        let weights = self.modules.iter().flat_map(|(path, module)| {
            let rule = |(adapter, &weight): (usize, &f32)| ModuleWeight {
                module: format!("^{}$", regex::escape(path)),
                adapter: Some(adapter),
                weight: f64::from(weight),
            };
            module.gate.iter().enumerate().map(rule)
        });
        Ok(weights.collect())
    }
}

impl MixedModule {
    /// The shape of the weight that this changes, `[out, in]`.
    #[must_use]
    pub fn weight_shape(&self) -> Vec<usize> {
        vec![self.up.nrows(), self.down.ncols()]
    }

    /// `[experts, R]`: the scale of an expert in the columns that are its own, zero in the others.
    #[must_use]
    pub fn spread(&self) -> Array2<f32> {
        let mut spread = Array2::zeros((self.parts.len(), self.down.nrows()));
        let mut start = 0;
        for (part, mut row) in self.parts.iter().zip(spread.rows_mut()) {
            let own = row.iter_mut().skip(start).take(part.rank);
            own.for_each(|value| *value = part.scale as f32);
            start += part.rank;
        }
        spread
    }
}

type Stacked = (Vec<MixedPart>, Array2<f32>, Array2<f32>);

/// The factors of all experts for a module that one of them has at least.
fn stacked(experts: &[&Adapter], path: &str) -> Result<Stacked, LoraError> {
    let (mut parts, mut downs, mut ups) = (Vec::new(), Vec::new(), Vec::new());
    let mut shape: Option<Vec<usize>> = None;
    for expert in experts {
        let Some(module) = expert.modules.get(path) else {
            parts.push(MixedPart {
                rank: 0,
                scale: 0.0,
            });
            continue;
        };
        module.check()?;
        let found = module.weight_shape();
        let expected = shape.get_or_insert_with(|| found.clone());
        if *expected != found {
            return Err(LoraError::WeightShapes {
                expected: expected.clone(),
                found,
            });
        }
        let matrix = |factor: &ArrayD<f32>| factor.clone().into_dimensionality::<Ix2>();
        let (Ok(down), Ok(up)) = (matrix(&module.a), matrix(&module.b)) else {
            return Err(LoraError::Mixture {
                what: "layer",
                expected: "a linear one".to_owned(),
                found: format!("a convolution, {found:?}"),
            });
        };
        parts.push(MixedPart {
            rank: module.rank(),
            scale: module.scale(),
        });
        downs.push(down);
        ups.push(up);
    }
    let views = |all: &[Array2<f32>], axis| {
        let views: Vec<ArrayView2<'_, f32>> = all.iter().map(|matrix| matrix.view()).collect();
        // Not to be met: all weights have one shape.
        concatenate(Axis(axis), &views).map_err(|_| LoraError::Empty)
    };
    Ok((parts, views(&downs, 0)?, views(&ups, 1)?))
}

/// A router as torch draws linear layers, keyed by seed and module as initial factors are.
fn drawn_gate(module: &str, experts: usize, inputs: usize, seed: u64) -> Array2<f32> {
    let mut key = Sha256::new();
    key.update(b"selma-lora gate");
    key.update(seed.to_le_bytes());
    key.update(module.as_bytes());
    let mut generator = ChaCha8Rng::from_seed(key.finalize().into());
    let bound = 1.0 / (inputs.max(1) as f32).sqrt();
    match Uniform::new_inclusive(-bound, bound) {
        Ok(even) => Array2::from_shape_simple_fn((experts, inputs), || even.sample(&mut generator)),
        // Not to be met: the bound is a positive number.
        Err(_) => Array2::zeros((experts, inputs)),
    }
}

#[cfg(test)]
mod tests;
