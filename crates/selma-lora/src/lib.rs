//! LoRA adapter files, exact merging, and LoRA layers for burn.
