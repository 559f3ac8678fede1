//! The same mathematics in plain tensor operations, for every backend and precision the kernels do not take.

use burn::tensor::ops::{AttentionModuleOptions, ConvOptions};
use burn::tensor::{DType, FloatDType, Tensor, activation, module};

pub(crate) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

pub(crate) fn geglu(x: Tensor<3>) -> Tensor<3> {
    let inner = x.dims()[2] / 2;
    let value = x.clone().narrow(2, 0, inner);
    let gate = x.narrow(2, inner, inner);
    value * gelu(gate)
}

pub(crate) fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let shape = x.dims();
    let [batch, channels, height, width] = shape;
    let dtype = x.dtype();
    // Half precision overflows in the squares and drowns in the sums.
    let x = match dtype {
        DType::F16 | DType::BF16 => x.cast(FloatDType::F32),
        _ => x,
    };
    let x = x.reshape([batch, groups, channels / groups * height * width]);
    let mean = x.clone().mean_dim(2);
    let x = x - mean;
    let variance = x.clone().square().mean_dim(2);
    let x = x / (variance + eps).sqrt();
    let y = x.reshape(shape).cast(FloatDType::from(dtype)) * weight.reshape([1, channels, 1, 1])
        + bias.reshape([1, channels, 1, 1]);
    if silu { self::silu(y) } else { y }
}

pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let options = ConvOptions::new([stride, stride], [padding, padding], [1, 1], 1);
    module::conv2d(x, weight, bias, options)
}

pub(crate) fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let options = AttentionModuleOptions::default();
    module::attention(query, key, value, None, None, options)
}
