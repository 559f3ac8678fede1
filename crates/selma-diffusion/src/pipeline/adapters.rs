//! Adapters that are in use: their strengths, and whether they are in the weights.

use selma_lora::nn::{fuse, set_weight, unfuse};

use super::StableDiffusion;
use crate::models::ClipTextModel;

impl StableDiffusion {
    /// Sets the strength of an adapter; the number of layers that it has. 0 leaves it without effect. If it was fused, call [`fuse`](Self::fuse) again.
    pub fn set_adapter_weight(&mut self, name: &str, weight: f64) -> usize {
        let of_texts = self
            .text_encoders()
            .map(|model| set_weight(model, name, weight));
        of_texts.sum::<usize>() + set_weight(&mut self.unet, name, weight)
    }

    /// Adds all adapters to the weights of the networks, where they cost no time; the number of layers that changed. The pictures are the same up to rounding.
    ///
    /// The weights of before are kept, so that [`unfuse`](Self::unfuse) and [`detach`](Self::detach) leave no trace; the layers take twice their memory.
    /// Convert with [`with_dtype`](Self::with_dtype) first.
    pub fn fuse(&mut self) -> usize {
        self.text_encoders().map(fuse).sum::<usize>() + fuse(&mut self.unet)
    }

    /// Takes all adapters out of the weights, which are then bit for bit as before; the number of layers that changed. The adapters stay in use.
    pub fn unfuse(&mut self) -> usize {
        self.text_encoders().map(unfuse).sum::<usize>() + unfuse(&mut self.unet)
    }

    fn text_encoders(&mut self) -> impl Iterator<Item = &mut ClipTextModel> {
        let encoders = std::iter::once(&mut self.text_encoder).chain(&mut self.text_encoder_2);
        encoders.map(|encoder| &mut encoder.model)
    }
}
