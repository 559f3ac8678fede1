//! The convolution against burn's own: sizes across every boundary, layouts, gradients, tracking, threads.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

mod common;

use burn::tensor::module::conv2d as plain;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, FloatDType, Tensor, TensorData, Tolerance};
use common::{assert_same, random};
use selma_kernels::conv2d;

fn options(stride: usize, padding: usize) -> ConvOptions<2> {
    ConvOptions::new([stride, stride], [padding, padding], [1, 1], 1)
}

/// A convolution: `[batch, inputs, height, width]`, `[outputs, kernel height, kernel width]`, stride and padding.
#[derive(Clone, Copy, Debug)]
struct Case([usize; 4], [usize; 3], usize, usize);

impl Case {
    fn operands(&self, device: &Device) -> (Tensor<4>, Tensor<4>, Tensor<1>) {
        let Self(x, [outputs, rows, columns], _, _) = *self;
        device.seed(3);
        (
            random(x, device),
            random([outputs, x[1], rows, columns], device),
            random([outputs], device),
        )
    }
}

/// The output and the gradients of a sum in which every output number has a weight of its own.
fn run(
    operands: &(Tensor<4>, Tensor<4>, Tensor<1>),
    with_bias: bool,
    f: impl Fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>) -> Tensor<4>,
) -> Vec<TensorData> {
    let (x, weight, bias) = operands.clone();
    let (x, weight, bias) = (x.require_grad(), weight.require_grad(), bias.require_grad());
    let y = f(x.clone(), weight.clone(), with_bias.then(|| bias.clone()));
    let ramp = Tensor::arange(0..y.shape().num_elements() as i64, &y.device())
        .float()
        .reshape(y.shape());
    let grads = (y.clone() * (ramp * 0.7).sin()).sum().backward();
    let mut all = vec![
        y.into_data(),
        x.grad(&grads).unwrap().into_data(),
        weight.grad(&grads).unwrap().into_data(),
    ];
    all.extend(bias.grad(&grads).map(Tensor::into_data));
    assert_eq!(all.len(), 3 + usize::from(with_bias));
    all
}

fn check(case: Case) {
    let Case(_, _, stride, padding) = case;
    for with_bias in [false, true] {
        let operands = case.operands(&Device::flex().autodiff());
        let got = run(&operands, with_bias, |x, w, b| {
            conv2d(x, w, b, stride, padding)
        });
        let expected = run(&operands, with_bias, |x, w, b| {
            plain(x, w, b, options(stride, padding))
        });
        for (name, (got, expected)) in ["y", "dx", "dw", "db"]
            .iter()
            .zip(got.iter().zip(&expected))
        {
            assert_same(&format!("{case:?} {name}"), got, expected);
        }
    }
}

#[test]
fn three_by_three_of_any_size_agrees() {
    for (batch, size) in [
        (1, [1, 1]),
        (3, [1, 5]),
        (2, [2, 2]),
        (5, [4, 4]),
        (4, [8, 8]),
        (2, [7, 13]),
        (1, [33, 17]),
        (1, [70, 67]),
    ] {
        for (inputs, outputs) in [(1, 1), (3, 5), (4, 16), (9, 13)] {
            check(Case(
                [batch, inputs, size[0], size[1]],
                [outputs, 3, 3],
                1,
                1,
            ));
        }
    }
}

#[test]
fn many_small_images_agree() {
    check(Case([37, 5, 4, 4], [20, 3, 3], 1, 1));
    check(Case([70, 2, 2, 3], [3, 3, 3], 1, 1));
    check(Case([20, 8, 4, 4], [4, 3, 3], 2, 1));
}

#[test]
fn many_channels_agree() {
    check(Case([1, 70, 9, 9], [36, 3, 3], 1, 1));
    check(Case([1, 40, 3, 3], [150, 3, 3], 1, 1));
}

#[test]
fn any_kernel_stride_and_padding_agree() {
    for (kernel, stride, padding) in [
        ([1, 1], 1, 0),
        ([1, 1], 2, 0),
        ([3, 3], 2, 1),
        ([3, 3], 2, 0),
        ([3, 3], 1, 0),
        ([3, 3], 1, 2),
        ([3, 3], 3, 1),
        ([2, 2], 2, 0),
        ([5, 3], 1, 2),
        ([4, 4], 2, 1),
        ([1, 3], 1, 0),
        ([1, 1], 1, 1),
    ] {
        for size in [[5, 6], [6, 5], [9, 9], [16, 16]] {
            let [rows, columns] = kernel;
            check(Case(
                [2, 3, size[0], size[1]],
                [6, rows, columns],
                stride,
                padding,
            ));
        }
    }
    check(Case([1, 5, 40, 42], [7, 3, 3], 2, 1));
}

#[test]
fn any_layout_is_taken() {
    let device = Device::flex().autodiff();
    let case = Case([2, 6, 5, 7], [8, 3, 3], 1, 1);
    let (x, weight, bias) = case.operands(&device);
    let turned = x.clone().permute([0, 1, 3, 2]);
    let part = x.slice([1..2, 0..6, 1..4, 2..7]);
    let kernel = weight.permute([0, 1, 3, 2]);
    let bias = bias.reshape([8, 1]).repeat_dim(1, 2).slice([0..8, 1..2]);
    for x in [turned, part] {
        let operands = (x, kernel.clone(), bias.clone().reshape([8]));
        let got = run(&operands, true, |x, w, b| {
            conv2d(x, w, b, 1, 1).permute([3, 1, 0, 2])
        });
        let expected = run(&operands, true, |x, w, b| {
            plain(x, w, b, options(1, 1)).permute([3, 1, 0, 2])
        });
        for (got, expected) in got.iter().zip(&expected) {
            assert_same("layout", got, expected);
        }
    }
}

#[test]
fn only_what_is_tracked_has_a_gradient() {
    let device = Device::flex().autodiff();
    let case = Case([2, 3, 6, 6], [5, 3, 3], 1, 1);
    let operands = case.operands(&device);
    let expected = run(&operands, true, |x, w, b| plain(x, w, b, options(1, 1)));
    let ramp = |y: &Tensor<4>| {
        let ramp = Tensor::arange(0..y.shape().num_elements() as i64, &y.device()).float();
        (ramp * 0.7).sin().reshape(y.shape())
    };
    for tracked in 1..8 {
        let (mut x, mut weight, mut bias) = operands.clone();
        if tracked & 1 != 0 {
            x = x.require_grad();
        }
        if tracked & 2 != 0 {
            weight = weight.require_grad();
        }
        if tracked & 4 != 0 {
            bias = bias.require_grad();
        }
        let y = conv2d(x.clone(), weight.clone(), Some(bias.clone()), 1, 1);
        let grads = (y.clone() * ramp(&y)).sum().backward();
        let found = [
            x.grad(&grads).map(Tensor::into_data),
            weight.grad(&grads).map(Tensor::into_data),
            bias.grad(&grads).map(Tensor::into_data),
        ];
        for (i, (found, expected)) in found.iter().zip(&expected[1..]).enumerate() {
            assert_eq!(found.is_some(), tracked & (1 << i) != 0, "{tracked} {i}");
            if let Some(found) = found {
                assert_same("gradient", found, expected);
            }
        }
    }

    // Frozen parameters that are not on the autodiff device at all.
    let (x, weight, bias) = operands;
    let x = x.require_grad();
    let y = conv2d(x.clone(), weight.inner(), Some(bias.inner()), 1, 1);
    let grads = (y.clone() * ramp(&y)).sum().backward();
    assert_same("frozen", &x.grad(&grads).unwrap().into_data(), &expected[1]);
}

#[test]
fn a_leaf_used_several_times_gets_all_its_gradients() {
    for device in [
        Device::flex().autodiff(),
        Device::flex().autodiff().gradient_checkpointing(),
    ] {
        let operands = Case([2, 4, 5, 5], [4, 3, 3], 1, 1).operands(&device);
        let twice = |f: &dyn Fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>) -> Tensor<4>| {
            run(&operands, true, |x, w, b| {
                let y = f(x.clone(), w.clone(), b.clone());
                f(y.clone().tanh(), w, b) + y * x
            })
        };
        let got = twice(&|x, w, b| conv2d(x, w, b, 1, 1));
        let expected = twice(&|x, w, b| plain(x, w, b, options(1, 1)));
        for (got, expected) in got.iter().zip(&expected) {
            assert_same("twice", got, expected);
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let threads = |n| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
    };
    for case in [
        Case([3, 16, 24, 24], [16, 3, 3], 1, 1),
        Case([19, 40, 4, 4], [40, 3, 3], 1, 1),
        Case([1, 40, 9, 9], [70, 3, 3], 2, 1),
    ] {
        let operands = case.operands(&Device::flex().autodiff());
        let Case(_, _, stride, padding) = case;
        let all = || run(&operands, true, |x, w, b| conv2d(x, w, b, stride, padding));
        let one = threads(1).install(all);
        for n in [2, 3] {
            let many = threads(n).install(all);
            for (one, many) in one.iter().zip(&many) {
                one.assert_eq(many, true);
            }
        }
    }
}

#[test]
fn a_sample_has_the_same_bits_alone_and_in_a_batch() {
    let device = Device::flex();
    let (x, weight, bias) = Case([17, 6, 4, 4], [10, 3, 3], 1, 1).operands(&device);
    let together = conv2d(x.clone(), weight.clone(), Some(bias.clone()), 1, 1);
    for i in [0, 7, 16] {
        let alone = conv2d(
            x.clone().narrow(0, i, 1),
            weight.clone(),
            Some(bias.clone()),
            1,
            1,
        );
        let part = together.clone().narrow(0, i, 1).into_data();
        alone.into_data().assert_eq(&part, true);
    }
}

#[test]
fn other_precisions_and_wide_padding_take_the_plain_operation() {
    let device = Device::flex();
    let (x, weight, _) = Case([2, 4, 6, 6], [5, 3, 3], 1, 1).operands(&device);
    let expected = plain(x.clone(), weight.clone(), None, options(1, 1));
    let wide = |t: Tensor<4>| t.cast(FloatDType::F64);
    let y = conv2d(wide(x.clone()), wide(weight.clone()), None, 1, 1);
    assert_eq!(FloatDType::from(y.dtype()), FloatDType::F64);
    let tolerance = Tolerance::<f32>::relative(1e-4).set_absolute(1e-4);
    y.cast(FloatDType::F32)
        .into_data()
        .assert_approx_eq::<f32>(&expected.into_data(), tolerance);

    let y = conv2d(x.clone(), weight.clone(), None, 1, 4);
    let expected = plain(x, weight, None, options(1, 4));
    assert_same("padding", &y.into_data(), &expected.into_data());
}

#[test]
fn a_nan_reaches_its_neighbours_alone() {
    let device = Device::flex();
    let x = Tensor::<4>::ones([1, 1, 6, 6], &device);
    let mut data: Vec<f32> = x.into_data().try_to_vec().unwrap();
    data[2 * 6 + 5] = f32::NAN;
    let x = Tensor::from_data(TensorData::new(data, [1, 1, 6, 6]), &device);
    let y = conv2d(x, Tensor::ones([1, 1, 3, 3], &device), None, 1, 1);
    let y: Vec<f32> = y.into_data().try_to_vec().unwrap();
    let bad: Vec<_> = (0..36).filter(|&i| y[i].is_nan()).collect();
    assert_eq!(bad, [10, 11, 16, 17, 22, 23]);
}

#[test]
#[should_panic(expected = "the input has 3 channels, the weight 4")]
fn other_channels_are_refused() {
    let device = Device::flex();
    let weight = Tensor::zeros([1, 4, 3, 3], &device);
    let _ = conv2d(Tensor::zeros([1, 3, 4, 4], &device), weight, None, 1, 1);
}

#[test]
#[should_panic(expected = "bias has 2 numbers")]
fn a_bias_of_another_length_is_refused() {
    let device = Device::flex();
    let (weight, bias) = (
        Tensor::zeros([1, 3, 3, 3], &device),
        Tensor::zeros([2], &device),
    );
    let _ = conv2d(
        Tensor::zeros([1, 3, 4, 4], &device),
        weight,
        Some(bias),
        1,
        1,
    );
}

#[test]
#[should_panic(expected = "a kernel of 3x3 does not fit into 2x4 with padding 0")]
fn a_kernel_that_does_not_fit_is_refused() {
    let device = Device::flex();
    let weight = Tensor::zeros([1, 3, 3, 3], &device);
    let _ = conv2d(Tensor::zeros([1, 3, 2, 4], &device), weight, None, 1, 0);
}
