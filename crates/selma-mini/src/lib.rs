//! A miniature world whose truth can be computed: scenes, captions, a renderer, a grammar that acts as a language model, and an exact oracle.
