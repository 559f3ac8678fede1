//! Adapters that are in use: their strengths, and whether they are in the weights.

use selma_lora::lora_layers;
use selma_lora::nn::{fuse, set_weight, unfuse};

use super::StableDiffusion;

lora_layers!(StableDiffusion {
    text_encoder,
    text_encoder_2,
    unet,
});

impl StableDiffusion {
    /// Sets the strength of an adapter; the number of layers that it has. 0 leaves it without effect. If it was fused, call [`fuse`](Self::fuse) again.
    pub fn set_adapter_weight(&mut self, name: &str, weight: f64) -> usize {
        set_weight(self, name, weight)
    }

    /// Adds all adapters to the weights of the networks, where they cost no time; the number of layers that changed. The pictures are the same up to rounding.
    ///
    /// The weights of before are kept, so that [`unfuse`](Self::unfuse) and [`detach`](Self::detach) leave no trace; the layers take twice their memory.
    /// Convert with [`with_dtype`](Self::with_dtype) first.
    pub fn fuse(&mut self) -> usize {
        fuse(self)
    }

    /// Takes all adapters out of the weights, which are then bit for bit as before; the number of layers that changed. The adapters stay in use.
    pub fn unfuse(&mut self) -> usize {
        unfuse(self)
    }
}
