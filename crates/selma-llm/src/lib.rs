//! Prompts written by a language model: skills, chat clients, tolerant parsing, a journal and the generation loop.
