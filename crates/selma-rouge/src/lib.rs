//! ROUGE-L and an exact diversity filter for prompts.
