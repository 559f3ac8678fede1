//! Merges adapters of the sizes that people have, and says what that took.
//!
//! ```sh
//! cargo run --release -p selma-lora --example merge_full_size -- layers MODEL
//! cargo run --release -p selma-lora --example merge_full_size -- make MODEL RANK SEED DTYPE OUTPUT
//! cargo run --release -p selma-lora --example merge_full_size -- files RECIPE DTYPE OUTPUT INPUT..
//! cargo run --release -p selma-lora --example merge_full_size -- memory RECIPE REPEATS INPUT..
//! ```
//!
//! `layers` lists the layers that sd-scripts adapts by default: all linear layers and 1x1 convolutions in the transformers of the UNet. `make` writes an adapter
//! of random numbers for them. `files` merges from files to a file, by a recipe in JSON (`{"method": "svd", "rank": 128}`); `memory` merges adapters that are loaded
//! already, and makes plain copies of their factors in turn, by as many threads. `tools/merge_full_size.py` runs all of this and the peers.
//! One line of JSON is printed: seconds by the clock and of the processors, and the most memory that was held, in bytes.

#![allow(clippy::print_stdout, reason = "what it prints is its result")]

#[path = "../../selma-diffusion/examples/common/memory.rs"]
mod memory;

use std::{error::Error, hint::black_box, time::Instant};

use memory::peak_bytes;
use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rayon::prelude::*;
use selma_lora::{
    Adapter, AdapterReader, Dtype, Format, LoraModule, Merge, Model, WeightedFile, merge::Weighted,
};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let report = match words.as_slice() {
        ["layers", model] => json!(layers(model.parse()?).collect::<Vec<_>>()),
        ["make", model, rank, seed, dtype, output] => {
            let adapter = random(model.parse()?, rank.parse()?, seed.parse()?)?;
            adapter.save(output, Format::Kohya, dtype.parse()?)?;
            json!({"parameters": adapter.parameters()})
        }
        ["files", recipe, dtype, output, inputs @ ..] => files(
            &serde_json::from_str(recipe)?,
            dtype.parse()?,
            output,
            inputs,
        )?,
        ["memory", recipe, repeats, inputs @ ..] => {
            memory(&serde_json::from_str(recipe)?, repeats.parse()?, inputs)?
        }
        _ => return Err("usage: merge_full_size layers|make|files|memory ..".into()),
    };
    println!("{report}");
    Ok(())
}

fn layers(model: Model) -> impl Iterator<Item = &'static (String, Vec<usize>)> {
    let adapted = |path: &str| path.starts_with("unet.") && path.contains(".attentions.");
    model
        .modules()
        .iter()
        .filter(move |(path, _)| adapted(path))
}

/// Both factors are random.
fn random(model: Model, rank: usize, seed: u64) -> Result<Adapter, Box<dyn Error>> {
    let mut generator = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut numbers = |shape: &[usize]| {
        ndarray::ArrayD::from_shape_simple_fn(shape, || {
            let x: f32 = StandardNormal.sample(&mut generator);
            x / 16.0
        })
    };
    let mut adapter = Adapter::default();
    for (path, weight) in layers(model) {
        let (ends, kernel) = weight.split_at(2);
        let [outputs, inputs] = ends else {
            return Err(format!("{path} has the shape {weight:?}").into());
        };
        let a = numbers(&[&[rank, *inputs], kernel].concat());
        let b = numbers(&[&[*outputs, rank], kernel].concat());
        let module = LoraModule::new(a, b, rank as f64)?;
        adapter.modules.insert(path.clone(), module);
    }
    Ok(adapter)
}

fn files(
    merge: &Merge,
    dtype: Dtype,
    output: &str,
    inputs: &[&str],
) -> Result<Value, Box<dyn Error>> {
    let start = Instant::now();
    let readers = AdapterReader::open_all(inputs)?;
    let weight = 1.0;
    let weighted = readers.iter();
    let weighted: Vec<WeightedFile<'_>> = weighted
        .map(|adapter| WeightedFile { adapter, weight })
        .collect();
    let report = merge.run_files(&weighted, output, Format::Kohya, dtype)?;
    Ok(json!({
        "seconds": start.elapsed().as_secs_f64(),
        "processor_seconds": processor_seconds()?,
        "peak_bytes": peak_bytes()?,
        "truncation_error": report.truncation_error,
        "self_check": report.self_check,
    }))
}

fn memory(merge: &Merge, repeats: usize, inputs: &[&str]) -> Result<Value, Box<dyn Error>> {
    let adapters = inputs
        .iter()
        .map(Adapter::load)
        .collect::<Result<Vec<_>, _>>()?;
    let weighted: Vec<Weighted<'_>> = adapters.iter().map(Weighted::from).collect();
    let (mut copies, mut merges) = (Vec::new(), Vec::new());
    let (mut copying, mut merging) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let (start, before) = (Instant::now(), processor_seconds()?);
        let modules = adapters.iter().flat_map(|adapter| adapter.modules.values());
        let modules: Vec<&LoraModule> = modules.collect();
        let copy: Vec<LoraModule> = modules.into_par_iter().cloned().collect();
        black_box(copy);
        copies.push(start.elapsed().as_secs_f64());
        copying.push(processor_seconds()? - before);
        let (start, before) = (Instant::now(), processor_seconds()?);
        black_box(merge.run(&weighted)?);
        merges.push(start.elapsed().as_secs_f64());
        merging.push(processor_seconds()? - before);
    }
    let numbers: usize = adapters.iter().map(Adapter::parameters).sum();
    Ok(json!({
        "copy_seconds": copies,
        "merge_seconds": merges,
        "copy_processor_seconds": copying,
        "merge_processor_seconds": merging,
        "bytes": 4 * numbers,
        "peak_bytes": peak_bytes()?,
    }))
}

/// Processor time of all threads so far, in the program and in the system for it.
fn processor_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may contain spaces.
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks: Vec<&str> = fields.split_whitespace().skip(11).take(2).collect();
    let ticks = ticks.iter().map(|ticks| ticks.parse::<f64>());
    Ok(ticks.sum::<Result<f64, _>>()? / 100.0)
}
