//! What the kernels are compared with burn's operations by.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "the helpers of tests fail by panicking, and a test program is a crate of its own"
)]

use burn::tensor::{Device, Distribution, Tensor, TensorData};

/// Normal numbers about 0.1, from the device's generator.
pub fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.1, 1.0), device)
}

/// Within 1e-5 of the largest number, or of 1.
pub fn assert_same(what: &str, got: &TensorData, expected: &TensorData) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let (got, expected): (Vec<f32>, Vec<f32>) = (
        got.clone().try_to_vec().unwrap(),
        expected.clone().try_to_vec().unwrap(),
    );
    let scale = expected.iter().fold(1.0_f32, |m, v| m.max(v.abs()));
    for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
        assert!((g - e).abs() <= 1e-5 * scale, "{what}[{i}]: {g} and {e}");
    }
}
