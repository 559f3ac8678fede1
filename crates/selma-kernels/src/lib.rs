#![doc = include_str!("../README.md")]

#[cfg(feature = "flex")]
mod flex;
mod plain;

use burn::tensor::Tensor;

/// SiLU of each number: `x / (1 + exp(-x))` (Elfwing et al., arXiv 1702.03118), as `torch.nn.functional.silu`.
///
/// Any shape and precision.
#[must_use]
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if flex::takes(&x) {
        return flex::silu(x);
    }
    plain::silu(x)
}

/// GELU of each number, exact: `x Φ(x)`, with `Φ` the distribution function of the standard normal distribution
/// (Hendrycks and Gimpel, arXiv 1606.08415), as `torch.nn.functional.gelu`.
///
/// Any shape and precision.
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if flex::takes(&x) {
        return flex::gelu(x);
    }
    plain::gelu(x)
}

/// GEGLU (Shazeer, arXiv 2002.05202): `value * gelu(gate)` with `value` the first half of each row and `gate` the
/// second, as diffusers' `GEGLU` after its projection.
///
/// `[batch, length, 2 * inner]` to `[batch, length, inner]`.
///
/// # Panics
///
/// If the last dimension of `x` is odd.
#[must_use]
pub fn geglu(x: Tensor<3>) -> Tensor<3> {
    let [_, _, width] = x.dims();
    assert!(
        width.is_multiple_of(2),
        "geglu: the last dimension is {width}, expected an even number"
    );
    #[cfg(feature = "flex")]
    if flex::takes(&x) {
        return flex::geglu(x);
    }
    plain::geglu(x)
}

/// Group normalisation (Wu and He, arXiv 1803.08494), as `torch.nn.functional.group_norm`: each group of consecutive
/// channels of each sample is brought to mean 0 and variance 1 (`eps` is added to the biased variance), then each
/// channel is scaled by `weight` and shifted by `bias`. With `activation`, [`silu`] follows.
///
/// `x` is `[batch, channels, height, width]` and so is the result; `weight` and `bias` are `[channels]`. The
/// statistics of half-precision tensors are in single precision. Gradients reach `x`, `weight` and `bias`, each only
/// where it is tracked.
///
/// # Panics
///
/// If `groups` does not divide the number of channels, or `weight` or `bias` is not one number per channel.
#[must_use]
pub fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    activation: bool,
) -> Tensor<4> {
    let [_, channels, _, _] = x.dims();
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "group_norm: {channels} channels are not divisible into {groups} groups"
    );
    for (name, parameter) in [("weight", &weight), ("bias", &bias)] {
        let [found] = parameter.dims();
        assert_eq!(
            found, channels,
            "group_norm: {name} has {found} numbers, expected one for each of {channels} channels"
        );
    }
    #[cfg(feature = "flex")]
    if flex::takes(&x) && flex::takes(&weight) && flex::takes(&bias) {
        return flex::group_norm(x, weight, bias, groups, eps, activation);
    }
    plain::group_norm(x, weight, bias, groups, eps, activation)
}

/// 2-D convolution, as `torch.nn.functional.conv2d`: `stride` in both directions, `padding` zeros on all four sides.
///
/// `x` is `[batch, inputs, height, width]`, `weight` `[outputs, inputs, kernel height, kernel width]`, `bias`
/// `[outputs]`; the result is `[batch, outputs, height', width']`. Gradients reach `x`, `weight` and `bias`, each only
/// where it is tracked.
///
/// # Panics
///
/// If the channels of `x` are not `inputs`, `bias` is not one number per output, the kernel is larger than the padded
/// input, or `stride` is zero.
#[must_use]
pub fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let ([_, channels, height, width], [outputs, inputs, rows, columns]) =
        (x.dims(), weight.dims());
    assert_eq!(
        channels, inputs,
        "conv2d: the input has {channels} channels, the weight {inputs}"
    );
    if let Some(bias) = &bias {
        let [found] = bias.dims();
        assert_eq!(
            found, outputs,
            "conv2d: bias has {found} numbers, expected one for each of {outputs} outputs"
        );
    }
    assert!(stride > 0, "conv2d: the stride is zero");
    assert!(
        rows <= height + 2 * padding && columns <= width + 2 * padding,
        "conv2d: a kernel of {rows}x{columns} does not fit into {height}x{width} with padding {padding}"
    );
    #[cfg(feature = "flex")]
    if flex::takes_conv2d(&x, &weight, bias.as_ref(), stride, padding) {
        return flex::conv2d(x, weight, bias, stride, padding);
    }
    plain::conv2d(x, weight, bias, stride, padding)
}

/// Scaled dot-product attention (Vaswani et al., arXiv 1706.03762), as `torch.nn.functional.scaled_dot_product_attention`
/// without a mask: `softmax(query keyᵀ / √width) value` for each head of each batch.
///
/// `query` is `[batch, heads, queries, width]`, `key` `[batch, heads, keys, width]`, `value` `[batch, heads, keys, value
/// width]`; the result is `[batch, heads, queries, value width]`. Gradients reach all three, each only where it is tracked.
///
/// No matrix of scores is made, forward or backward. The operands are read as they lie: heads that were split off a projection
/// by `reshape` and `swap_dims` are not copied, and the result lies so that the same two operations backwards are free.
///
/// # Panics
///
/// If the sizes do not fit each other.
#[must_use]
pub fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    let ([batch, heads, _, width], [_, _, keys, _]) = (query.dims(), value.dims());
    let [value_batch, value_heads, _, _] = value.dims();
    assert_eq!(
        (key.dims(), [value_batch, value_heads]),
        ([batch, heads, keys, width], [batch, heads]),
        "attention: keys and values do not fit the queries {:?}",
        query.dims()
    );
    #[cfg(feature = "flex")]
    if flex::takes_attention(&query, &key, &value) {
        return flex::attention(query, key, value);
    }
    plain::attention(query, key, value)
}
