//! Branches into the weights and out again.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use super::{DenseUpdate, LoraBranch, LoraLayerMut, LoraLayers};

/// What a layer was before anything was added to its weight.
#[derive(Module, Debug)]
pub struct Unfused<const D: usize> {
    /// The base's weight.
    pub weight: Tensor<D>,
    /// The branches that are in the weight now.
    pub branches: Vec<LoraBranch<D>>,
    /// The dense updates, which are always in the weight.
    pub dense: Vec<DenseUpdate<D>>,
}

impl<const D: usize> Unfused<D> {
    fn new(weight: &Param<Tensor<D>>) -> Self {
        Self {
            weight: weight.val(),
            branches: Vec::new(),
            dense: Vec::new(),
        }
    }

    /// The weight with everything that is to be in it, summed in `f32`.
    fn sum(&self) -> Tensor<D> {
        let mut sum = self.weight.clone().cast(DType::F32);
        for branch in self.branches.iter().filter(|branch| branch.is_active()) {
            sum = sum + branch.update(self.weight.dims());
        }
        for dense in self.dense.iter().filter(|dense| dense.weight != 0.0) {
            sum = sum
                + dense
                    .delta
                    .clone()
                    .cast(DType::F32)
                    .mul_scalar(dense.weight);
        }
        sum
    }

    /// Gives the layer the weight that it is to have now: the base's to the bit where nothing is added to it.
    fn store(self, weight: &mut Param<Tensor<D>>, unfused: &mut Option<Self>) {
        let nothing = self.branches.is_empty() && self.dense.is_empty();
        let sum = if nothing {
            self.weight.clone()
        } else {
            self.sum()
        };
        *weight = weight.clone().map(|before| sum.cast(before.dtype()));
        *unfused = (!nothing).then_some(self);
    }
}

/// Adds all branches of a model to the weights of their layers, so that they cost no time; the number of layers that had any.
///
/// Sums are made in `f32` and rounded to the type of the weight. The weights of before are kept for [`unfuse`], so a layer takes twice its memory. Branches that
/// are attached later stay branches until the next call. Mixtures stay beside the weights, as no weight does what they do.
pub fn fuse(model: &mut impl LoraLayers) -> usize {
    let layers = model.lora_layers("").into_iter();
    let fused = layers.filter_map(|(_, layer)| {
        let any = match layer {
            LoraLayerMut::Linear(layer) => {
                fuse_layer(&mut layer.weight, &mut layer.branches, &mut layer.unfused)
            }
            LoraLayerMut::Conv2d(layer) => {
                fuse_layer(&mut layer.weight, &mut layer.branches, &mut layer.unfused)
            }
        };
        any.then_some(())
    });
    fused.count()
}

/// Takes all branches out of the weights, which are bit for bit as before; the number of layers that had any. Dense updates stay.
pub fn unfuse(model: &mut impl LoraLayers) -> usize {
    let layers = model.lora_layers("").into_iter();
    let unfused =
        layers.filter_map(|(_, mut layer)| unfuse_where(&mut layer, |_| true).then_some(()));
    unfused.count()
}

/// Takes the branches of a layer out of its weight if one of their names is asked for.
pub(super) fn unfuse_where(layer: &mut LoraLayerMut<'_>, wanted: impl Fn(&str) -> bool) -> bool {
    match layer {
        LoraLayerMut::Linear(layer) => unfuse_layer(
            &mut layer.weight,
            &mut layer.branches,
            &mut layer.unfused,
            wanted,
        ),
        LoraLayerMut::Conv2d(layer) => unfuse_layer(
            &mut layer.weight,
            &mut layer.branches,
            &mut layer.unfused,
            wanted,
        ),
    }
}

fn fuse_layer<const D: usize>(
    weight: &mut Param<Tensor<D>>,
    branches: &mut Vec<LoraBranch<D>>,
    unfused: &mut Option<Unfused<D>>,
) -> bool {
    if branches.is_empty() {
        return false;
    }
    let mut before = unfused.take().unwrap_or_else(|| Unfused::new(weight));
    before.branches.append(branches);
    before.store(weight, unfused);
    true
}

fn unfuse_layer<const D: usize>(
    weight: &mut Param<Tensor<D>>,
    branches: &mut Vec<LoraBranch<D>>,
    unfused: &mut Option<Unfused<D>>,
    wanted: impl Fn(&str) -> bool,
) -> bool {
    let found = unfused.take_if(|before| before.branches.iter().any(|branch| wanted(&branch.name)));
    let Some(mut before) = found else {
        return false;
    };
    before.branches.append(branches);
    *branches = std::mem::take(&mut before.branches);
    before.store(weight, unfused);
    true
}

/// Adds a dense update to a layer's weight.
pub(super) fn add_dense<const D: usize>(
    weight: &mut Param<Tensor<D>>,
    unfused: &mut Option<Unfused<D>>,
    dense: DenseUpdate<D>,
) {
    let mut before = unfused.take().unwrap_or_else(|| Unfused::new(weight));
    before.dense.push(dense);
    before.store(weight, unfused);
}

/// Changes the strength of the dense updates of a layer that are called `name`, or with `None` takes them out; how many there are.
pub(super) fn change_dense<const D: usize>(
    weight: &mut Param<Tensor<D>>,
    unfused: &mut Option<Unfused<D>>,
    name: &str,
    strength: Option<f64>,
) -> usize {
    let named = |before: &Unfused<D>| {
        before
            .dense
            .iter()
            .filter(|dense| dense.name == name)
            .count()
    };
    let count = unfused.as_ref().map_or(0, named);
    if count > 0
        && let Some(mut before) = unfused.take()
    {
        match strength {
            None => before.dense.retain(|dense| dense.name != name),
            Some(strength) => {
                let named = before.dense.iter_mut().filter(|dense| dense.name == name);
                named.for_each(|dense| dense.weight = strength);
            }
        }
        before.store(weight, unfused);
    }
    count
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::nn::{
        LoraConv2d, LoraConv2dConfig, LoraLinear, LoraLinearConfig, detach, set_weight,
    };

    struct Net {
        conv: LoraConv2d,
        linear: LoraLinear,
    }
    crate::lora_layers!(Net { conv, linear });

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.5), &Device::flex())
    }

    /// A convolution and a linear layer, with branches `a` and `b` on both.
    fn net() -> Net {
        let device = Device::flex();
        let mut net = Net {
            conv: LoraConv2dConfig::new(3, 5, 3).init(&device),
            linear: LoraLinearConfig::new(5, 4).init(&device),
        };
        for (name, weight) in [("a", 0.7), ("b", -1.3)] {
            net.conv.branches.push(LoraBranch {
                name: name.to_owned(),
                a: random([2, 3, 3, 3]),
                b: random([5, 2, 1, 1]),
                scale: 0.5,
                weight,
            });
            net.linear.branches.push(LoraBranch {
                name: name.to_owned(),
                a: random([2, 5]),
                b: random([4, 2]),
                scale: 2.0,
                weight,
            });
        }
        net
    }

    fn forward(net: &Net, input: &Tensor<4>) -> Tensor<4> {
        let hidden = net.conv.forward(input.clone());
        net.linear.forward(hidden.permute([0, 2, 3, 1]))
    }

    fn assert_close(found: Tensor<4>, expected: Tensor<4>) {
        let tolerance = Tolerance::absolute(1e-4);
        found
            .into_data()
            .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
    }

    #[test]
    fn fused_branches_do_what_they_did_beside_the_weights() {
        let (mut net, input) = (net(), random([1, 3, 6, 6]));
        let beside = forward(&net, &input);
        assert_eq!(fuse(&mut net), 2);
        assert!(net.conv.branches.is_empty() && net.linear.branches.is_empty());
        assert_close(forward(&net, &input), beside);
        assert_eq!(fuse(&mut net), 0);
    }

    #[test]
    fn the_weights_are_the_same_to_the_bit_when_the_branches_are_out_again() {
        let (mut net, input) = (net(), random([1, 3, 6, 6]));
        let weights = |net: &Net| {
            (
                net.conv.weight.val().to_data(),
                net.linear.weight.val().to_data(),
            )
        };
        let (before, beside) = (weights(&net), forward(&net, &input).to_data());
        fuse(&mut net);
        assert_ne!(weights(&net), before);
        assert_eq!(unfuse(&mut net), 2);
        assert_eq!(weights(&net), before);
        assert_eq!(forward(&net, &input).to_data(), beside);
        assert_eq!(unfuse(&mut net), 0);
    }

    #[test]
    fn a_fused_branch_is_found_by_its_name() {
        let (mut net, input) = (net(), random([1, 3, 6, 6]));
        fuse(&mut net);
        assert_eq!(set_weight(&mut net, "a", 0.2), 2);
        let beside = forward(&net, &input);
        fuse(&mut net);
        assert_close(forward(&net, &input), beside);
        let base = net.linear.unfused.as_ref().unwrap().weight.to_data();
        assert_eq!((detach(&mut net, "a"), detach(&mut net, "b")), (2, 2));
        assert_eq!(net.linear.weight.val().to_data(), base);
    }

    #[test]
    fn branches_that_come_later_are_fused_with_those_that_are() {
        let (mut net, input) = (net(), random([1, 3, 6, 6]));
        let late = net.linear.branches.pop().unwrap();
        fuse(&mut net);
        let base = net.linear.unfused.as_ref().unwrap().weight.to_data();
        net.linear.branches.push(late);
        let beside = forward(&net, &input);
        assert_eq!(fuse(&mut net), 1);
        assert_close(forward(&net, &input), beside);
        unfuse(&mut net);
        assert_eq!(net.linear.branches.len(), 2);
        assert_eq!(net.linear.weight.val().to_data(), base);
    }
}
