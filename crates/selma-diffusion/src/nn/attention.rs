//! Scaled dot-product attention.

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, FloatDType, Tensor, module};

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionOptions {
    /// Whether a position attends to itself and those before it only.
    pub causal: bool,
    /// Whether half-precision inputs are taken to `f32` first. Otherwise the backend decides in what logits and softmax
    /// are computed, which in `f16` may overflow.
    pub upcast: bool,
}

/// `softmax(Q K^T / sqrt(d)) V`.
///
/// # Shapes
///
/// - query: `[batch, heads, length, d]`
/// - key, value: `[batch, heads, context length, d]`
/// - output: as the query
#[must_use]
pub fn attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    options: AttentionOptions,
) -> Tensor<4> {
    let dtype = query.dtype();
    let upcast = options.upcast && matches!(dtype, DType::F16 | DType::BF16);
    let convert = |tensor: Tensor<4>| match upcast {
        true => tensor.cast(FloatDType::F32),
        false => tensor,
    };
    let (query, key, value) = (convert(query), convert(key), convert(value));
    let attended = if options.causal {
        let options = AttentionModuleOptions {
            is_causal: true,
            ..AttentionModuleOptions::default()
        };
        module::attention(query, key, value, None, None, options)
    } else {
        selma_kernels::attention(query, key, value)
    };
    match upcast {
        true => attended.cast(FloatDType::from(dtype)),
        false => attended,
    }
}

/// `softmax(Q K^T / sqrt(d) + bias) V`.
///
/// # Shapes
///
/// - query: `[batch, heads, length, d]`
/// - key, value: `[batch, heads, context length, d]`
/// - bias: `[batch, heads, length, context length]`, where batch and heads may be 1
/// - output: as the query
#[must_use]
pub fn biased_attention(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    bias: Tensor<4>,
) -> Tensor<4> {
    let options = AttentionModuleOptions::default();
    module::attention(query, key, value, None, Some(bias), options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// The logits are 90000 and 0, of which the first is no number of `f16`.
    #[test]
    fn logits_beyond_the_range_of_f16_do_no_harm_where_they_are_upcast() {
        // Under autodiff the backend's attention is made of separate operations, in the type of their inputs.
        let device = Device::flex().autodiff();
        let tensor = |rows: [[f32; 1]; 2]| {
            Tensor::<2>::from_floats(rows, &device)
                .reshape([1, 1, 2, 1])
                .cast(FloatDType::F16)
        };
        let attend = |upcast| {
            let options = AttentionOptions {
                causal: false,
                upcast,
            };
            let values = tensor([[5.0], [7.0]]);
            attention(
                tensor([[300.0], [300.0]]),
                tensor([[300.0], [0.0]]),
                values,
                options,
            )
            .into_data()
            .convert::<f32>()
            .try_to_vec::<f32>()
            .unwrap()
        };
        assert_eq!(attend(true), [5.0, 5.0]);
        assert_ne!(attend(false), [5.0, 5.0]);
    }
}
