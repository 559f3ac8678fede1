//! Benchmarks, each a ratio against a named peer or limit: see the folder `benches`.
