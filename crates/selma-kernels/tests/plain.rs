//! The kernels against burn's own operations: sizes across every boundary, layouts, precisions, ownership, gradients.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use burn::tensor::{Device, Distribution, FloatDType, Tensor, Tolerance, activation};
use selma_kernels::{geglu, gelu, group_norm, silu};

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    device.seed(7);
    Tensor::random(shape, Distribution::Normal(0.3, 2.0), device)
}

fn assert_same<const D: usize>(got: Tensor<D>, expected: Tensor<D>) {
    let tolerance = Tolerance::<f32>::relative(1e-5).set_absolute(1e-5);
    got.into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), tolerance);
}

fn plain_geglu(x: Tensor<3>) -> Tensor<3> {
    let [_, _, width] = x.dims();
    let value = x.clone().narrow(2, 0, width / 2);
    value * activation::gelu(x.narrow(2, width / 2, width / 2))
}

fn plain_group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let [n, c, h, w] = x.dims();
    let x = x.reshape([n, groups, c / groups * h * w]);
    let x = x.clone() - x.mean_dim(2);
    let x = x.clone() / (x.square().mean_dim(2) + eps).sqrt();
    let y = x.reshape([n, c, h, w]) * weight.reshape([1, c, 1, 1]) + bias.reshape([1, c, 1, 1]);
    if silu { activation::silu(y) } else { y }
}

#[test]
fn activations_of_any_length_agree() {
    let device = Device::flex();
    for len in [0, 1, 2, 15, 16, 17, 1000, 16_385, 32_767, 32_768, 70_001] {
        let x = random([len], &device);
        assert_same(silu(x.clone()), activation::silu(x.clone()));
        assert_same(gelu(x.clone()), activation::gelu(x));
    }
}

#[test]
fn geglu_of_any_size_agrees() {
    let device = Device::flex();
    for shape in [[1, 1, 2], [2, 5, 26], [2, 100, 514], [3, 0, 8], [1, 4, 0]] {
        let x = random(shape, &device);
        let got = geglu(x.clone());
        assert_eq!(got.dims(), [shape[0], shape[1], shape[2] / 2]);
        if got.shape().num_elements() > 0 {
            assert_same(got, plain_geglu(x));
        }
    }
}

#[test]
fn group_norm_of_any_size_agrees() {
    let device = Device::flex();
    for (shape, groups) in [
        ([1, 4, 1, 1], 2),
        ([2, 6, 3, 5], 2),
        ([0, 4, 3, 3], 2),
        ([2, 4, 0, 3], 2),
        ([4, 96, 8, 8], 32),
        ([2, 64, 33, 31], 32),
    ] {
        let x = random(shape, &device);
        let weight = random([shape[1]], &device);
        let bias = random([shape[1]], &device) - 0.5;
        for silu in [false, true] {
            let got = group_norm(x.clone(), weight.clone(), bias.clone(), groups, 1e-5, silu);
            assert_eq!(got.dims(), shape);
            if got.shape().num_elements() > 0 {
                assert_same(
                    got,
                    plain_group_norm(x.clone(), weight.clone(), bias.clone(), groups, 1e-5, silu),
                );
            }
        }
    }
}

/// The gradient with respect to `x` of a sum in which every output number has a weight of its own.
fn gradient<const D: usize>(x: &Tensor<D>, f: impl Fn(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let x = x.clone().detach().require_grad();
    let y = f(x.clone());
    let ramp = Tensor::arange(0..y.shape().num_elements() as i64, &y.device())
        .float()
        .reshape(y.shape());
    let grads = (y * (ramp * 0.7).sin()).sum().backward();
    x.grad(&grads).unwrap()
}

#[test]
fn gradients_agree_with_those_of_the_plain_graph() {
    for device in [
        Device::flex().autodiff(),
        Device::flex().autodiff().gradient_checkpointing(),
    ] {
        let x = random([3, 8, 40, 40], &device);
        let weight = random([8], &device);
        let bias = random([8], &device);
        assert_same(gradient(&x, silu), gradient(&x, activation::silu));
        assert_same(gradient(&x, gelu), gradient(&x, activation::gelu));
        let rows = x.clone().reshape([3, 8, 1600]);
        assert_same(gradient(&rows, |x| geglu(x).repeat_dim(2, 2)), {
            gradient(&rows, |x| plain_geglu(x).repeat_dim(2, 2))
        });
        for silu in [false, true] {
            let got = gradient(&x, |x| {
                group_norm(x, weight.clone(), bias.clone(), 4, 1e-5, silu)
            });
            let expected = gradient(&x, |x| {
                plain_group_norm(x, weight.clone(), bias.clone(), 4, 1e-5, silu)
            });
            assert_same(got, expected);
        }
    }
}

#[test]
fn a_chain_gives_the_gradient_of_the_plain_chain_with_and_without_checkpointing() {
    for device in [
        Device::flex().autodiff(),
        Device::flex().autodiff().gradient_checkpointing(),
    ] {
        let x = random([2, 8, 5, 6], &device);
        let ones = Tensor::<1>::ones([8], &device);
        let got = gradient(&x, |x| {
            let y = silu(silu(x) * 1.5);
            let y = group_norm(
                gelu(y.clone()) + y,
                ones.clone(),
                ones.clone(),
                4,
                1e-5,
                true,
            );
            let y = geglu(y.reshape([2, 8, 30]));
            gelu(y.repeat_dim(2, 2).reshape([2, 8, 5, 6]))
        });
        let expected = gradient(&x, |x| {
            let y = activation::silu(activation::silu(x) * 1.5);
            let y = plain_group_norm(
                activation::gelu(y.clone()) + y,
                ones.clone(),
                ones.clone(),
                4,
                1e-5,
                true,
            );
            let y = plain_geglu(y.reshape([2, 8, 30]));
            activation::gelu(y.repeat_dim(2, 2).reshape([2, 8, 5, 6]))
        });
        assert_same(got, expected);
    }
}

#[test]
fn only_what_is_tracked_has_a_gradient() {
    let device = Device::flex().autodiff();
    let x = random([2, 4, 3, 3], &device);
    let weight = random([4], &device);
    let bias = random([4], &device);

    let tracked = bias.clone().require_grad();
    let y = group_norm(x.clone(), weight.clone(), tracked.clone(), 2, 1e-5, false);
    let grads = y.sum().backward();
    assert!(x.grad(&grads).is_none() && weight.grad(&grads).is_none());
    assert_same(
        tracked.grad(&grads).unwrap(),
        Tensor::full([4], 18.0, &device),
    );

    // A frozen normalisation whose parameters are not on the autodiff device at all.
    let (weight, bias) = (weight.inner(), bias.inner());
    let tracked = x.require_grad();
    let y = group_norm(tracked.clone(), weight, bias, 2, 1e-5, true);
    let grads = y.sum().backward();
    assert_eq!(tracked.grad(&grads).unwrap().dims(), [2, 4, 3, 3]);
}

#[test]
fn an_input_that_is_still_in_use_is_left_alone() {
    let device = Device::flex();
    let x = random([5000], &device);
    let before = x.to_data();
    let view = x.clone().narrow(0, 10, 10);
    let kept = view.to_data();
    let _ = silu(x.clone());
    let _ = gelu(x.clone());
    x.to_data().assert_eq(&before, true);
    let _ = silu(x);
    view.into_data().assert_eq(&kept, true);
}

#[test]
fn a_gradient_that_two_parents_share_is_left_alone() {
    let device = Device::flex().autodiff();
    let x = random([40], &device);
    // `a + b` hands the very same gradient to both.
    let got = gradient(&x, |x| silu(x.clone()) + gelu(x.clone()) + x);
    let expected = gradient(&x, |x| {
        activation::silu(x.clone()) + activation::gelu(x.clone()) + x
    });
    assert_same(got, expected);
}

#[test]
fn any_layout_is_taken() {
    let device = Device::flex().autodiff();
    let x = random([6, 8, 4, 5], &device);
    let turned = x.clone().permute([0, 1, 3, 2]);
    let part = x.clone().narrow(0, 1, 3);
    assert_same(silu(turned.clone()), activation::silu(turned.clone()));
    assert_same(gelu(part.clone()), activation::gelu(part.clone()));
    let weight = random([16], &device).narrow(0, 4, 8);
    let bias = random([8, 2], &device)
        .swap_dims(0, 1)
        .slice([0..1, 0..8])
        .reshape([8]);
    for x in [turned, part] {
        assert_same(
            group_norm(x.clone(), weight.clone(), bias.clone(), 2, 1e-5, true),
            plain_group_norm(x, weight.clone(), bias.clone(), 2, 1e-5, true),
        );
    }
    let rows = x.clone().reshape([6, 8, 20]).swap_dims(1, 2);
    assert_same(geglu(rows.clone()), plain_geglu(rows));
    assert_same(
        gradient(&x, |x| silu(x.permute([3, 1, 2, 0]))),
        gradient(&x, |x| activation::silu(x.permute([3, 1, 2, 0]))),
    );
}

#[test]
fn other_precisions_take_the_plain_operations() {
    let device = Device::flex();
    for (dtype, tolerance) in [
        (FloatDType::F64, 1e-6),
        (FloatDType::F16, 4e-3),
        (FloatDType::BF16, 3e-2),
    ] {
        let x = random([2, 4, 6, 6], &device);
        let weight = random([4], &device);
        let same = |got: Tensor<4>, expected: Tensor<4>| {
            assert_eq!(FloatDType::from(got.dtype()), dtype);
            let difference = got.cast(FloatDType::F32) - expected.clone();
            let worst: f32 = difference.abs().max().into_scalar();
            let scale: f32 = expected.abs().max().into_scalar();
            assert!(worst <= tolerance * scale, "{dtype:?}: {worst}");
        };
        let narrow = x.clone().cast(dtype);
        same(silu(narrow.clone()), silu(x.clone()));
        same(gelu(narrow.clone()), gelu(x.clone()));
        same(
            geglu(narrow.clone().reshape([2, 4, 36])).reshape([2, 4, 3, 6]),
            geglu(x.clone().reshape([2, 4, 36])).reshape([2, 4, 3, 6]),
        );
        let narrow_weight = weight.clone().cast(dtype);
        same(
            group_norm(narrow, narrow_weight.clone(), narrow_weight, 2, 1e-5, true),
            group_norm(x, weight.clone(), weight, 2, 1e-5, true),
        );
    }
}

#[test]
fn half_precision_statistics_do_not_overflow() {
    // The squares of these exceed the largest f16.
    let device = Device::flex();
    let x = (random([1, 2, 8, 8], &device) * 1000.0).cast(FloatDType::F16);
    let one = Tensor::<1>::ones([2], &device).cast(FloatDType::F16);
    let y = group_norm(x, one.clone(), one.zeros_like(), 1, 1e-5, false);
    let square: f32 = y.cast(FloatDType::F32).square().mean().into_scalar();
    assert!((square - 1.0).abs() < 1e-2, "{square}");
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let device = Device::flex();
    let x = random([2, 64, 33, 31], &device);
    let weight = random([64], &device);
    let run = || {
        let y = group_norm(x.clone(), weight.clone(), weight.clone(), 32, 1e-5, true);
        gelu(y).into_data()
    };
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let three = rayon::ThreadPoolBuilder::new()
        .num_threads(3)
        .build()
        .unwrap();
    one.install(run).assert_eq(&three.install(run), true);
}

#[test]
#[should_panic(expected = "the last dimension is 7")]
fn an_odd_geglu_is_refused() {
    let _ = geglu(Tensor::zeros([1, 2, 7], &Device::flex()));
}

#[test]
#[should_panic(expected = "6 channels are not divisible into 4 groups")]
fn groups_that_do_not_divide_are_refused() {
    let one = Tensor::<1>::ones([6], &Device::flex());
    let x = Tensor::zeros([1, 6, 2, 2], &Device::flex());
    let _ = group_norm(x, one.clone(), one, 4, 1e-5, false);
}

#[test]
#[should_panic(expected = "bias has 5 numbers")]
fn a_bias_of_another_length_is_refused() {
    let device = Device::flex();
    let x = Tensor::zeros([1, 6, 2, 2], &device);
    let _ = group_norm(
        x,
        Tensor::ones([6], &device),
        Tensor::ones([5], &device),
        2,
        1e-5,
        false,
    );
}
