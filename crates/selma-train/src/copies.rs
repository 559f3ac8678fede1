//! The network on further devices, which compute shards of a batch.

use burn::module::Module;
use burn::tensor::Device;
use selma_diffusion::models::UNet2DConditionModel;
use selma_lora::nn::{LoraLayerMut, LoraLayers};

use crate::ValidTrainConfig;
use crate::factors::{COMPONENT, Factors};

/// A copy of the network for each further device. Frozen weights are copied once, what is trained after every step.
#[derive(Default)]
pub(crate) struct Copies(Vec<(UNet2DConditionModel, Device)>);

impl Copies {
    /// Copies of a network without a graph.
    pub(crate) fn of(
        unet: &UNet2DConditionModel,
        config: &ValidTrainConfig,
        devices: &[Device],
    ) -> Self {
        let copy = |device: &Device| {
            let mut copy = unet.clone().to_device(device);
            Factors::track(&mut copy, config);
            (copy, device.clone())
        };
        Self(devices.iter().map(copy).collect())
    }

    /// What computes a shard: the devices take turns, the first of all begins. `None` stands for the first.
    pub(crate) fn of_shard(&self, shard: usize) -> Option<(&UNet2DConditionModel, &Device)> {
        let turn = shard % (self.0.len() + 1);
        let (copy, device) = self.0.get(turn.checked_sub(1)?)?;
        Some((copy, device))
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the copies what is trained of a network without a graph.
    pub(crate) fn follow(&mut self, mut unet: UNet2DConditionModel, config: &ValidTrainConfig) {
        for (copy, device) in &mut self.0 {
            let layers = unet.lora_layers(COMPONENT).into_iter();
            for ((_, from), (_, to)) in layers.zip(copy.lora_layers(COMPONENT)) {
                match (from, to) {
                    (LoraLayerMut::Linear(from), LoraLayerMut::Linear(to)) => {
                        to.branches = from.branches.clone().to_device(device);
                        to.mixture = from.mixture.clone().to_device(device);
                    }
                    (LoraLayerMut::Conv2d(from), LoraLayerMut::Conv2d(to)) => {
                        to.branches = from.branches.clone().to_device(device);
                    }
                    // Copies have the same layers.
                    _ => {}
                }
            }
            Factors::track(copy, config);
        }
    }
}
