//! The kernels against outputs and gradients that torch computes in double precision.
#![allow(clippy::unwrap_used, reason = "the helpers of tests fail by panicking")]

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use safetensors::SafeTensors;
use selma_kernels::{attention, conv2d, geglu, gelu, group_norm, silu};

const KERNELS: &[u8] = include_bytes!("fixtures/kernels.safetensors");
const CONV2D: &[u8] = include_bytes!("fixtures/conv2d.safetensors");
const ATTENTION: &[u8] = include_bytes!("fixtures/attention.safetensors");

fn load<const D: usize>(name: &str, device: &Device) -> Tensor<D> {
    let fixture = match name.split(['.', '_']).next() {
        Some("conv2d") => CONV2D,
        Some("attention") => ATTENTION,
        _ => KERNELS,
    };
    let file = SafeTensors::deserialize(fixture).unwrap();
    let view = file.tensor(name).unwrap();
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    Tensor::from_data(TensorData::new(values, view.shape().to_vec()), device)
}

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.cast(FloatDType::F32).into_data().try_to_vec().unwrap()
}

/// Asserts `|got - expected| <= relative * |expected| + absolute`, and that NaN and infinities are in the same places.
fn assert_close(what: &str, got: &[f32], expected: &[f32], relative: f32, absolute: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let close = if e.is_finite() {
            (g - e).abs() <= relative * e.abs() + absolute
        } else {
            g.to_bits() == e.to_bits() || (g.is_nan() && e.is_nan())
        };
        assert!(close, "{what}[{i}]: got {g:e}, expected {e:e}");
    }
}

fn check_unary<const D: usize>(
    case: &str,
    function: fn(Tensor<D>) -> Tensor<D>,
    relative: f32,
    absolute: f32,
) {
    let device = Device::flex();
    let expected = values(load::<D>(&format!("{case}.y"), &device));
    let untracked = function(load(&format!("{case}.x"), &device));
    assert_close(case, &values(untracked), &expected, relative, absolute);

    let device = device.autodiff();
    let x = load::<D>(&format!("{case}.x"), &device).require_grad();
    let y = function(x.clone());
    assert_close(case, &values(y.clone()), &expected, relative, absolute);
    let grads = (y * load::<D>(&format!("{case}.dy"), &device)).backward();
    assert_close(
        &format!("{case} gradient"),
        &values(x.grad(&grads).unwrap()),
        &values(load::<D>(&format!("{case}.dx"), &device)),
        relative,
        absolute,
    );
}

#[test]
fn silu_is_that_of_torch() {
    check_unary::<1>("silu", silu, 1e-6, 2e-7);
}

#[test]
fn gelu_is_that_of_torch() {
    check_unary::<1>("gelu", gelu, 1e-6, 2e-7);
}

#[test]
fn silu_keeps_nan_and_infinities_as_torch_does() {
    check_unary::<1>("silu_special", silu, 1e-6, 1e-35);
}

#[test]
fn gelu_keeps_nan_and_infinities_as_torch_does() {
    check_unary::<1>("gelu_special", gelu, 1e-6, 1e-35);
}

#[test]
fn the_tails_keep_their_relative_precision() {
    // Where torch's own f32 kernel has rounded to zero or to a few bits.
    let device = Device::flex();
    let x = Tensor::<1>::from_floats([-5.0, -5.5, -6.0, -9.0], &device);
    // mpmath: x * ncdf(x)
    let expected = [
        -1.433_257_9e-6,
        -1.044_425_9e-7,
        -5.919_525_8e-9,
        -1.015_729_6e-18,
    ];
    assert_close("gelu tail", &values(gelu(x)), &expected, 3e-6, 0.0);
}

#[test]
fn geglu_is_that_of_torch() {
    let device = Device::flex().autodiff();
    let x = load::<3>("geglu.x", &device).require_grad();
    let y = geglu(x.clone());
    let expected = values(load::<3>("geglu.y", &device));
    assert_close("geglu", &values(y.clone()), &expected, 1e-6, 1e-6);
    let grads = (y * load::<3>("geglu.dy", &device)).backward();
    let expected = values(load::<3>("geglu.dx", &device));
    let dx = values(x.grad(&grads).unwrap());
    assert_close("geglu gradient", &dx, &expected, 1e-6, 1e-6);
}

fn check_group_norm(case: &str, groups: usize, eps: f64, tolerance: f32) {
    for (case, activation) in [(case.to_owned(), false), (format!("{case}_silu"), true)] {
        let device = Device::flex().autodiff();
        let x = load::<4>(&format!("{case}.x"), &device).require_grad();
        let weight = load::<1>(&format!("{case}.weight"), &device).require_grad();
        let bias = load::<1>(&format!("{case}.bias"), &device).require_grad();
        let y = group_norm(
            x.clone(),
            weight.clone(),
            bias.clone(),
            groups,
            eps,
            activation,
        );
        let expected = |name: &str| values(load::<4>(&format!("{case}.{name}"), &device));
        let expected_1 = |name: &str| values(load::<1>(&format!("{case}.{name}"), &device));
        assert_close(
            &case,
            &values(y.clone()),
            &expected("y"),
            tolerance,
            tolerance,
        );
        let grads = (y * load::<4>(&format!("{case}.dy"), &device)).backward();
        for (name, got, expected) in [
            ("dx", values(x.grad(&grads).unwrap()), expected("dx")),
            (
                "dweight",
                values(weight.grad(&grads).unwrap()),
                expected_1("dweight"),
            ),
            (
                "dbias",
                values(bias.grad(&grads).unwrap()),
                expected_1("dbias"),
            ),
        ] {
            let scale = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
            let what = format!("{case} {name}");
            assert_close(&what, &got, &expected, tolerance, tolerance * scale);
        }
    }
}

#[test]
fn group_norm_is_that_of_torch() {
    check_group_norm("group_norm", 3, 1e-5, 2e-6);
}

#[test]
fn group_norm_of_one_group_is_that_of_torch() {
    check_group_norm("group_norm_one_group", 1, 1e-6, 2e-6);
}

#[test]
fn group_norm_of_a_group_per_channel_is_that_of_torch() {
    check_group_norm("group_norm_instance", 3, 1e-6, 2e-6);
}

#[test]
fn group_norm_survives_a_mean_far_from_zero() {
    // The inputs themselves have a resolution of 3e-5.
    check_group_norm("group_norm_far_mean", 2, 1e-5, 3e-5);
}

#[test]
fn group_norm_of_a_constant_is_its_bias() {
    check_group_norm("group_norm_constant", 2, 1e-5, 2e-6);
}

#[test]
fn convolutions_are_those_of_torch() {
    for (case, stride, padding) in [
        ("conv2d", 1, 1),
        ("conv2d_small", 1, 1),
        ("conv2d_strided", 2, 1),
        ("conv2d_pointwise", 1, 0),
    ] {
        let device = Device::flex().autodiff();
        let x = load::<4>(&format!("{case}.x"), &device).require_grad();
        let weight = load::<4>(&format!("{case}.weight"), &device).require_grad();
        let bias = load::<1>(&format!("{case}.bias"), &device).require_grad();
        let y = conv2d(
            x.clone(),
            weight.clone(),
            Some(bias.clone()),
            stride,
            padding,
        );
        let grads = (y.clone() * load::<4>(&format!("{case}.dy"), &device)).backward();
        let expected = |name: &str| values(load::<4>(&format!("{case}.{name}"), &device));
        let dbias = values(load::<1>(&format!("{case}.dbias"), &device));
        for (name, got, expected) in [
            ("y", values(y), expected("y")),
            ("dx", values(x.grad(&grads).unwrap()), expected("dx")),
            (
                "dweight",
                values(weight.grad(&grads).unwrap()),
                expected("dweight"),
            ),
            ("dbias", values(bias.grad(&grads).unwrap()), dbias),
        ] {
            let scale = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
            assert_close(
                &format!("{case} {name}"),
                &got,
                &expected,
                0.0,
                1e-6 * scale,
            );
        }
    }
}

#[test]
fn attention_is_that_of_torch() {
    // A score of six times six is known to 2e-6, and so is the exponential of it.
    for (case, tolerance) in [
        ("attention", 1e-6),
        ("attention_long", 1e-6),
        ("attention_peaked", 2e-5),
    ] {
        let device = Device::flex().autodiff();
        let names = ["x", "key", "value"];
        let operands =
            names.map(|name| load::<4>(&format!("{case}.{name}"), &device).require_grad());
        let [query, key, value] = operands.clone();
        let y = attention(query, key, value);
        let expected = values(load::<4>(&format!("{case}.y"), &device));
        assert_close(case, &values(y.clone()), &expected, tolerance, tolerance);
        let grads = (y * load::<4>(&format!("{case}.dy"), &device)).backward();
        for (name, operand) in names.iter().zip(operands) {
            let expected = values(load::<4>(&format!("{case}.d{name}"), &device));
            let found = values(operand.grad(&grads).unwrap());
            assert_close(
                &format!("{case} d{name}"),
                &found,
                &expected,
                tolerance,
                tolerance,
            );
        }
    }
}
