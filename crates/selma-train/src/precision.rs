//! Number types of a training: what the frozen network is kept in, and what it computes in.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, FloatDType, Tensor};
use selma_diffusion::models::UNet2DConditionModel;
use selma_lora::Dtype;

use crate::TrainConfig;

/// What the network computes in on a device, and how its gradients are kept in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Precision {
    /// The type of everything between the layers. Factors, loss and optimizer are in `f32` all the same.
    pub(crate) computed: FloatDType,
    /// What the loss is multiplied by before the pass back, and the gradients are divided by after it.
    pub(crate) loss_scale: Option<f64>,
}

impl Precision {
    /// That of a training's settings on a device: the CPU computes in `f32`, as it is no faster in 16 bits, and others in the type of the
    /// weights. The loss is scaled where gradients are in `f16`, of which small ones would be zero.
    pub(crate) fn of(config: &TrainConfig, device: &Device) -> Self {
        let computed = match is_cpu(device) {
            true => FloatDType::F32,
            false => config.unet_dtype(),
        };
        Self {
            computed,
            loss_scale: (computed == FloatDType::F16).then_some(config.loss_scale),
        }
    }
}

/// A network with the weights of its layers in a number type. What is trained stays as it is.
pub(crate) fn kept_in(unet: UNet2DConditionModel, dtype: FloatDType) -> UNet2DConditionModel {
    unet.map(&mut Cast(dtype))
}

impl TrainConfig {
    /// The number type of the frozen UNet, to load it in: [`CheckpointOptions::unet_dtype`](selma_diffusion::CheckpointOptions::unet_dtype).
    #[must_use]
    pub fn unet_dtype(&self) -> FloatDType {
        match self.dtype {
            Dtype::F32 => FloatDType::F32,
            Dtype::F16 => FloatDType::F16,
            Dtype::BF16 => FloatDType::BF16,
        }
    }
}

#[cfg(feature = "flex")]
fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

#[cfg(not(feature = "flex"))]
fn is_cpu(_: &Device) -> bool {
    false
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| match tensor.dtype() == DType::from(self.0) {
            true => tensor,
            false => tensor.cast(self.0),
        })
    }
}
