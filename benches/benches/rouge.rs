//! ROUGE-L of one pair against the crate `rougers`, and the diversity filter against comparing every pair.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use selma_rouge::{DiversityFilter, Tokenizer, rouge_l};

/// Prompts of 8 to 16 words from a vocabulary of 2,000.
fn prompts(count: usize) -> Vec<String> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut prompt = || {
        let words = rng.random_range(8..=16);
        let words: Vec<String> = (0..words)
            .map(|_| format!("w{}", rng.random_range(0..2000)))
            .collect();
        words.join(" ")
    };
    (0..count).map(|_| prompt()).collect()
}

fn pair(criterion: &mut Criterion) {
    let prompts = prompts(200);
    let mut group = criterion.benchmark_group("rouge-l of 199 pairs");
    group.bench_function("selma-rouge", |bencher| {
        bencher.iter(|| {
            for pair in prompts.windows(2) {
                if let [target, prediction] = pair {
                    black_box(rouge_l(target, prediction, Tokenizer::Rouge));
                }
            }
        });
    });
    group.bench_function("rougers", |bencher| {
        let Ok(scorer) = rougers::RougeScorer::new(["rougeL"], false) else {
            return;
        };
        bencher.iter(|| {
            for pair in prompts.windows(2) {
                if let [target, prediction] = pair {
                    black_box(scorer.score(target, prediction));
                }
            }
        });
    });
    group.finish();
}

fn filter(criterion: &mut Criterion) {
    let prompts = prompts(1000);
    let mut group = criterion.benchmark_group("filter 1,000 prompts");
    group.sample_size(10);
    group.bench_function("DiversityFilter", |bencher| {
        bencher.iter(|| {
            let Ok(mut filter) = DiversityFilter::new(0.8, Tokenizer::Rouge) else {
                return;
            };
            for prompt in &prompts {
                black_box(filter.offer(prompt));
            }
        });
    });
    group.bench_function("rouge_l with every kept prompt", |bencher| {
        bencher.iter(|| {
            let mut kept: Vec<&String> = Vec::new();
            for prompt in &prompts {
                let near =
                    |other: &&String| rouge_l(other, prompt, Tokenizer::Rouge).fmeasure > 0.8;
                if !kept.iter().any(near) {
                    kept.push(prompt);
                }
            }
            black_box(kept.len())
        });
    });
    group.finish();
}

criterion_group!(benches, pair, filter);
criterion_main!(benches);
