//! Training of LoRA experts on diffusion models.
