//! The kernels as an extension of the CPU backend.

mod attention;
mod autodiff;
mod conv;
mod elementwise;
mod geglu;
mod math;
mod norm;
mod simd;
mod storage;
mod sums;

use burn::backend::{Backend, Dispatch, Flex, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Device, Tensor};

use math::{Gelu, Silu};
use norm::Options;

/// What the kernels compute, for the CPU backend and its autodiff.
#[backend_extension(Flex, Autodiff)]
trait Kernels: Backend {
    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_gelu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn kernel_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self>;

    fn kernel_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    fn kernel_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: conv::Options,
    ) -> FloatTensor<Self>;

    // A function of its own, because an extension's tensors cannot be optional.
    fn kernel_conv2d_biased(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: conv::Options,
    ) -> FloatTensor<Self>;
}

impl Kernels for Flex {
    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::forward::<Silu>(x)
    }

    fn kernel_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        elementwise::forward::<Gelu>(x)
    }

    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        geglu::forward(x)
    }

    fn kernel_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        norm::forward(x, weight, bias, options)
    }

    fn kernel_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        attention::forward(query, key, value)
    }

    fn kernel_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: conv::Options,
    ) -> FloatTensor<Self> {
        conv::forward(x, weight, None, options)
    }

    fn kernel_conv2d_biased(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: conv::Options,
    ) -> FloatTensor<Self> {
        conv::forward(x, weight, Some(bias), options)
    }
}

/// Whether the kernels can take `x`: single precision on the CPU backend.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && x.device() == Device::flex()
}

pub(crate) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::kernel_silu(x.into_dispatch()))
}

pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::kernel_gelu(x.into_dispatch()))
}

pub(crate) fn geglu(x: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::kernel_geglu(x.into_dispatch()))
}

pub(crate) fn group_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    groups: usize,
    eps: f64,
    silu: bool,
) -> Tensor<4> {
    let options = Options { groups, eps, silu };
    Tensor::from_dispatch(Dispatch::kernel_group_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        options,
    ))
}

/// Whether the kernels can take the attention: single precision on the CPU backend, and nothing empty.
pub(crate) fn takes_attention(query: &Tensor<4>, key: &Tensor<4>, value: &Tensor<4>) -> bool {
    [query, key, value].into_iter().all(takes) && attention::taken(query, value)
}

pub(crate) fn attention(query: Tensor<4>, key: Tensor<4>, value: Tensor<4>) -> Tensor<4> {
    Tensor::from_dispatch(Dispatch::kernel_attention(
        query.into_dispatch(),
        key.into_dispatch(),
        value.into_dispatch(),
    ))
}

/// Whether the kernels can take the convolution: single precision on the CPU backend, and nothing empty.
pub(crate) fn takes_conv2d(
    x: &Tensor<4>,
    weight: &Tensor<4>,
    bias: Option<&Tensor<1>>,
    stride: usize,
    padding: usize,
) -> bool {
    let sizes = conv::Sizes {
        input: x.dims(),
        weight: weight.dims(),
    };
    takes(x)
        && takes(weight)
        && bias.is_none_or(takes)
        && sizes.taken(conv::Options { stride, padding })
}

pub(crate) fn conv2d(
    x: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    stride: usize,
    padding: usize,
) -> Tensor<4> {
    let options = conv::Options { stride, padding };
    let (x, weight) = (x.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        None => Dispatch::kernel_conv2d(x, weight, options),
        Some(bias) => Dispatch::kernel_conv2d_biased(x, weight, bias.into_dispatch(), options),
    })
}
