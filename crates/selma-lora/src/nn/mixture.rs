//! Branches of a linear layer whose shares are learned.

use burn::module::Module;
use burn::tensor::activation::softmax;
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Tensor, TensorData};
use ndarray::{Array2, ArrayD, Ix2};

use super::attach::{host, shapes, tensor};
use super::{Attachable, LoraLayerMut, LoraLayers};
use crate::{LoadReport, LoraError, MixedModule, MixedPart, Mixing, Mixture};

/// The experts of a layer with their learned weights: it adds `sum_i w_i scale_i B_i A_i x` to the layer's output. See [`Mixture`].
///
/// The experts lie one below the other, so that any number of them costs three products.
#[derive(Module, Debug)]
pub struct LoraMixture {
    /// What the mixture is called.
    pub name: String,
    /// What each expert has of the factors.
    #[module(skip)]
    pub parts: Vec<MixedPart>,
    /// Where the weights come from.
    #[module(skip)]
    pub mixing: Mixing,
    /// All `A`, `[R, in]`.
    pub down: Tensor<2>,
    /// All `B`, `[out, R]`.
    pub up: Tensor<2>,
    /// The scale of an expert in the columns that are its own, zero in the others: `[experts, R]`.
    pub spread: Tensor<2>,
    /// The router, `[experts, in]`; or the weights, `[experts, 1]`.
    pub gate: Tensor<2>,
    /// Strength chosen by the user; 1 is the mixture as trained.
    pub weight: f64,
}

impl LoraMixture {
    /// Whether the mixture changes its layer's output at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.weight != 0.0
    }

    /// What is added to the output, `[.., out]`, for an input `[.., in]`.
    pub(super) fn forward<const D: usize>(&self, input: &Tensor<D>) -> Tensor<D> {
        let mut shape = input.dims();
        let width = shape.last().copied().unwrap_or_default();
        let count = input.shape().num_elements() / width.max(1);
        let rows: Tensor<2> = input.clone().reshape([count, width]);
        let dtype = rows.dtype();
        let own = |tensor: &Tensor<2>| tensor.clone().cast(dtype).transpose();
        let ranks = linear(rows.clone(), own(&self.down), None);
        let shares = linear(self.shares(&rows), self.spread.clone(), None).cast(dtype);
        let output = linear(ranks * shares, own(&self.up), None).mul_scalar(self.weight);
        if let Some(last) = shape.last_mut() {
            let [_, outputs] = output.dims();
            *last = outputs;
        }
        output.reshape(shape)
    }

    /// The weights of the experts for inputs `[count, in]`, in `f32`: `[count, experts]`, or `[1, experts]` where they are the same for all.
    fn shares(&self, rows: &Tensor<2>) -> Tensor<2> {
        let gate = self.gate.clone().transpose();
        let Mixing::Router { top_k } = self.mixing else {
            return gate;
        };
        let logits = linear(rows.clone(), gate.cast(rows.dtype()), None).cast(DType::F32);
        let [_, experts] = logits.dims();
        let logits = if top_k < experts {
            let dropped = dropped(logits.clone().without_autodiff(), top_k);
            logits + dropped.mul_scalar(f32::MIN)
        } else {
            logits
        };
        softmax(logits, 1)
    }
}

/// 1 for the experts that an input is not given to, and 0 for the `top_k` with the largest logits, of equal ones the first: `[count, experts]`.
fn dropped(logits: Tensor<2>, top_k: usize) -> Tensor<2> {
    let [count, experts] = logits.dims();
    let square = [count, experts, experts];
    let of_own: Tensor<3> = logits.clone().unsqueeze_dim(2);
    let of_others: Tensor<3> = logits.unsqueeze_dim(1);
    let (own, others) = (of_own.expand(square), of_others.expand(square));
    // Whether another expert comes before this one where their logits are equal.
    let earlier = (0..experts * experts).map(|index| {
        let (own, other) = (index / experts, index % experts);
        if other < own { 1.0_f32 } else { 0.0 }
    });
    let earlier = TensorData::new(earlier.collect::<Vec<_>>(), [1, experts, experts]);
    let earlier = Tensor::<3>::from_data(earlier, &own.device()).expand(square);
    let equal = others.clone().equal(own.clone()).float();
    let before = others.greater(own).float() + equal * earlier;
    let before: Tensor<2> = before.sum_dim(2).squeeze_dim(2);
    before.greater_equal_elem(top_k as f32).float()
}

impl Attachable for Mixture {
    fn paths(&self) -> Vec<&str> {
        self.modules.keys().map(String::as_str).collect()
    }

    fn attach_to(
        &self,
        model: &mut impl LoraLayers,
        prefix: &str,
        name: &str,
        weight: f64,
    ) -> Result<LoadReport, LoraError> {
        let layers = model.lora_layers(prefix);
        let report = self.match_component(prefix, &shapes(&layers))?.strict()?;
        let refused = |path: &str, expected: &str, found: &str| {
            let error = LoraError::Mixture {
                what: "layer",
                expected: expected.to_owned(),
                found: found.to_owned(),
            };
            Err(error.in_module(path))
        };
        let mut matched = Vec::new();
        for (path, layer) in layers {
            let Some(module) = self.modules.get(&path) else {
                continue;
            };
            match layer {
                LoraLayerMut::Conv2d(_) => {
                    return refused(&path, "a linear one", "a convolution");
                }
                LoraLayerMut::Linear(layer) => match &layer.mixture {
                    Some(other) => {
                        return refused(&path, "one without a mixture", &other.name);
                    }
                    None => matched.push((layer, module)),
                },
            }
        }
        for (layer, module) in matched {
            let device = layer.weight.lazy_device();
            layer.mixture = Some(mixture(module, self.mixing, name, weight, &device));
        }
        Ok(report)
    }
}

fn mixture(
    module: &MixedModule,
    mixing: Mixing,
    name: &str,
    weight: f64,
    device: &Device,
) -> LoraMixture {
    let tensor = |matrix: Array2<f32>| tensor(&matrix.into_dyn(), device);
    LoraMixture {
        name: name.to_owned(),
        parts: module.parts.clone(),
        mixing,
        down: tensor(module.down.clone()),
        up: tensor(module.up.clone()),
        spread: tensor(module.spread()),
        gate: tensor(module.gate.clone()),
        weight,
    }
}

/// Takes the mixture called `name` out of a model, as it stands now; the model keeps it. `experts` are the hashes that the mixture was made with.
///
/// Paths start with `prefix`. The strength set with [`set_weight`](super::set_weight) is not part of the mixture.
///
/// # Errors
///
/// [`LoraError::Empty`] if no layer has such a mixture, and [`LoraError::Device`] if its factors cannot be read.
pub fn extract_mixture(
    model: &mut impl LoraLayers,
    prefix: &str,
    name: &str,
    experts: &[String],
) -> Result<Mixture, LoraError> {
    let mut found: Option<Mixture> = None;
    for (path, layer) in model.lora_layers(prefix) {
        let LoraLayerMut::Linear(layer) = layer else {
            continue;
        };
        let Some(mixture) = layer.mixture.as_ref().filter(|own| own.name == name) else {
            continue;
        };
        let module = MixedModule {
            parts: mixture.parts.clone(),
            down: matrix(&mixture.down)?,
            up: matrix(&mixture.up)?,
            gate: matrix(&mixture.gate)?,
        };
        let all = found.get_or_insert_with(|| Mixture {
            experts: experts.to_vec(),
            mixing: mixture.mixing,
            modules: Default::default(),
            metadata: Default::default(),
        });
        all.modules.insert(path, module);
    }
    found.ok_or(LoraError::Empty)
}

fn matrix(tensor: &Tensor<2>) -> Result<Array2<f32>, LoraError> {
    let values: ArrayD<f32> = host(tensor)?;
    let shape = values.shape().to_vec();
    values
        .into_dimensionality::<Ix2>()
        .map_err(|_| LoraError::Device { shape })
}

#[cfg(test)]
mod tests;
