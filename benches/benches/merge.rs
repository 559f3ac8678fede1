//! Merging of five adapters of one Stable Diffusion block, against a plain copy of their factors.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use selma_lora::merge::{Merge, Method, Weighted};
use selma_lora::{Adapter, init};

/// Attention layers of a block with 640 channels; both factors are random.
fn adapter(seed: u64) -> Adapter {
    let modules = ["to_q", "to_k", "to_v", "to_out.0"]
        .iter()
        .filter_map(|layer| {
            let path = format!("unet.mid_block.attentions.0.transformer_blocks.0.attn1.{layer}");
            let mut module = init::gaussian(&path, &[640, 640], 64, 64.0, seed).ok()?;
            let other = init::gaussian(&format!("{path} b"), &[64, 640], 640, 640.0, seed).ok()?;
            let values = other.a.iter().copied().take(module.b.len());
            for (value, drawn) in module.b.iter_mut().zip(values) {
                *value = drawn;
            }
            Some((path, module))
        });
    Adapter::new(modules)
}

fn merge(criterion: &mut Criterion) {
    let adapters: Vec<Adapter> = (0..5).map(adapter).collect();
    let mut group = criterion.benchmark_group("merge five rank-64 adapters of one block");
    group.sample_size(10);
    group.bench_function("copy of the factors", |bencher| {
        bencher.iter(|| black_box(adapters.clone()));
    });
    for method in [Method::FactorMean, Method::Mean, Method::Svd] {
        group.bench_function(method.to_string(), |bencher| {
            bencher.iter(|| {
                let inputs = adapters.iter().map(|adapter| Weighted {
                    adapter,
                    weight: 1.0,
                });
                let inputs: Vec<Weighted<'_>> = inputs.collect();
                black_box(Merge::new(method).run(&inputs).is_ok())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
