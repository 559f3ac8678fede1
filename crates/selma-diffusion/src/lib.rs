//! Stable Diffusion on burn: CLIP text encoder, UNet, VAE, schedulers, diffusers checkpoints and text-to-image.
