//! Beside the base or within its weight: how a branch is computed.

use burn::tensor::{DType, Tensor};

use super::LoraBranch;

/// The sizes of one call of a layer with a branch, for counting what it costs.
///
/// `B(A(x))` can be added to the base's output, or `B A` to the base's weight for this call. The results are equal but for rounding. Which
/// takes fewer multiplications depends on how many vectors pass: a small layer that sees the 4,096 positions of a picture is
/// better off with one weight, a large one that sees 77 tokens with the two thin factors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Contraction {
    /// Vectors that pass the layer.
    pub rows: usize,
    /// Their length; for a convolution that of the patch, `in * kh * kw`.
    pub inputs: usize,
    /// Length of what comes out.
    pub outputs: usize,
    /// Rank of the branch.
    pub rank: usize,
    /// Whether gradients of the factors will be asked for.
    pub factors_tracked: bool,
    /// Whether that of the input will be.
    pub input_tracked: bool,
}

impl Contraction {
    /// Whether composing the weight takes fewer multiplications than the branch, the backward pass included where there is one.
    fn composing_is_cheaper(self) -> bool {
        let [rows, inputs, outputs, rank] =
            [self.rows, self.inputs, self.outputs, self.rank].map(|size| size as f64);
        // `A x` and `B (A x)`; the gradients of `A x`, `B` and `A`; that of x.
        let mut beside = rows * rank * (inputs + outputs);
        // `B A`; the gradient of the weight, and from it those of `B` and `A`. That of x is the base's own product.
        let mut within = inputs * outputs * rank;
        if self.factors_tracked {
            beside += rows * rank * (inputs + 2.0 * outputs);
            within += inputs * outputs * (rows + 2.0 * rank);
        } else if self.input_tracked {
            beside += rows * rank * outputs;
        }
        if self.input_tracked {
            beside += rows * rank * inputs;
        }
        within < beside
    }
}

/// A layer's active branches: the weight with those in it that are cheaper there, and the others.
///
/// Only in `f32`: numbers of 16 bits would round most of a small update away within a weight.
pub(super) fn contract<const D: usize>(
    weight: Tensor<D>,
    branches: &[LoraBranch<D>],
    sizes: impl Fn(&LoraBranch<D>) -> Contraction,
) -> (Tensor<D>, Vec<&LoraBranch<D>>) {
    let (dtype, shape) = (weight.dtype(), weight.dims());
    let active = branches.iter().filter(|branch| branch.is_active());
    let (within, beside): (Vec<_>, Vec<_>) =
        active.partition(|branch| dtype == DType::F32 && sizes(branch).composing_is_cheaper());
    let updates = within.into_iter().map(|branch| branch.update(shape));
    let weight = updates.fold(weight, |weight, update| weight + update);
    (weight, beside)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution, Tolerance};

    use super::*;
    use crate::nn::{LoraConv2d, LoraConv2dConfig, LoraLinear, LoraLinearConfig};

    const SELF_ATTENTION: Contraction = Contraction {
        rows: 4096,
        inputs: 320,
        outputs: 320,
        rank: 128,
        factors_tracked: true,
        input_tracked: true,
    };

    #[test]
    fn layers_of_stable_diffusion_are_computed_the_cheaper_way() {
        let wide = Contraction {
            rows: 64,
            inputs: 1280,
            outputs: 1280,
            ..SELF_ATTENTION
        };
        let text = Contraction {
            rows: 77,
            inputs: 768,
            input_tracked: false,
            ..SELF_ATTENTION
        };
        let thin = Contraction {
            rank: 8,
            ..SELF_ATTENTION
        };
        let drawing = Contraction {
            factors_tracked: false,
            input_tracked: false,
            ..thin
        };
        let cases = [SELF_ATTENTION, wide, text, thin, drawing];
        let found = cases.map(Contraction::composing_is_cheaper);
        assert_eq!(found, [true, false, false, false, true]);
    }

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.5), &Device::flex())
    }

    fn branch<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> LoraBranch<D> {
        LoraBranch {
            name: "expert".to_owned(),
            a: a.autodiff().require_grad(),
            b: b.autodiff().require_grad(),
            scale: 0.5,
            weight: 0.7,
        }
    }

    /// Checks that all samples at once, where composing is cheaper, and one after the other, where it is not, give the same output and gradients.
    fn check<const D: usize, const F: usize>(
        branch: &LoraBranch<F>,
        input: &Tensor<D>,
        forward: impl Fn(Tensor<D>) -> Tensor<D>,
    ) {
        let outcome = |forward: &dyn Fn(Tensor<D>) -> Tensor<D>| {
            let input = input.clone().autodiff().require_grad();
            let output = forward(input.clone());
            let gradients = output.clone().square().sum().backward();
            [
                output.into_data(),
                branch.a.grad(&gradients).unwrap().into_data(),
                branch.b.grad(&gradients).unwrap().into_data(),
                input.grad(&gradients).unwrap().into_data(),
            ]
        };
        let together = outcome(&|input| forward(input));
        let one_by_one = outcome(&|input| {
            let samples = input.split(1, 0).into_iter();
            Tensor::cat(samples.map(&forward).collect(), 0)
        });
        assert_ne!(together, one_by_one, "the order of the products differs");
        for (together, one_by_one) in together.iter().zip(&one_by_one) {
            together.assert_approx_eq::<f32>(one_by_one, Tolerance::rel_abs(1e-4, 1e-4));
        }
    }

    #[test]
    fn both_ways_give_the_same_output_and_gradients() {
        let device = Device::flex();
        let mut linear: LoraLinear = LoraLinearConfig::new(6, 5).init(&device);
        linear.branches = vec![branch(random([4, 6]), random([5, 4]))];
        check(&linear.branches[0], &random([64, 6]), |input: Tensor<2>| {
            linear.forward(input)
        });

        let config = LoraConv2dConfig::new(3, 5, 3).with_stride(2);
        let mut conv: LoraConv2d = config.init(&device);
        conv.branches = vec![branch(random([12, 3, 3, 3]), random([5, 12, 1, 1]))];
        check(
            &conv.branches[0],
            &random([32, 3, 4, 4]),
            |input: Tensor<4>| conv.forward(input),
        );
    }

    #[test]
    fn numbers_of_16_bits_stay_beside_the_weight() {
        let branches = [branch(random([128, 320]), random([320, 128]))];
        let weight = |dtype| random([320, 320]).cast(dtype);
        let beside = |dtype| {
            contract(weight(dtype), &branches, |_| SELF_ATTENTION)
                .1
                .len()
        };
        assert_eq!([DType::F32, DType::BF16, DType::F16].map(beside), [0, 1, 1]);
    }
}
