//! Times the diversity filter, the same filter as a loop over `rougers`, and single pairs, on prompts from a file, one a line.
//!
//!     cargo run --release -p selma-benches --example rouge_filter -- offer|batch|rougers|pairs prompts.txt COUNT
//!
//! Prints a line of JSON. `tools/rouge_filter_bench.py` calls it.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use selma_rouge::{DiversityFilter, Tokenizer, rouge_l};

/// Numbers of /proc/self/{stat,statm} that are zero where there is no such file: CPU seconds, and resident bytes.
fn used() -> (f64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    // Fields 14 and 15 of the page of proc, in hundredths of a second.
    let seconds = (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) / 100.0;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    (seconds, pages.unwrap_or(0) * 4096)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || {
        arguments
            .next()
            .ok_or("expected: offer|batch|rougers|pairs FILE COUNT")
    };
    let (way, file, count) = (next()?, next()?, next()?.parse::<usize>()?);
    let content = fs::read_to_string(&file)?;
    let prompts: Vec<&str> = content.lines().take(count).collect();
    // The program's own pages, which do not grow with the prompts, are in memory before anything is measured.
    let mut warm = DiversityFilter::new(0.8, Tokenizer::Rouge)?;
    for prompt in prompts.iter().take(1000) {
        warm.offer(prompt);
    }
    let before = used();
    let start = Instant::now();
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge)?;
    match way.as_str() {
        "offer" => {
            for prompt in &prompts {
                filter.offer(prompt);
            }
        }
        "batch" => drop(filter.offer_batch(&prompts)),
        "rougers" => {
            for prompt in by_rougers(&prompts)? {
                filter.insert(prompt);
            }
        }
        "pairs" => return pairs(&prompts),
        _ => return Err(format!("unknown way `{way}`").into()),
    }
    let seconds = start.elapsed().as_secs_f64();
    let after = used();
    drop(warm);
    let text: usize = filter.iter().map(str::len).sum();
    let bytes = (after.1 - before.1).saturating_sub(text as u64) / filter.len().max(1) as u64;
    println!(
        "{{\"kept\": {}, \"seconds\": {seconds:.3}, \"cpu_seconds\": {:.2}, \"bytes\": {bytes}}}",
        filter.len(),
        after.0 - before.0,
    );
    Ok(())
}

/// The texts that the loop of SELMA keeps: the scores with all, then their maximum.
fn by_rougers<'a>(prompts: &[&'a str]) -> Result<Vec<&'a str>, Box<dyn Error>> {
    let scorer = rougers::RougeScorer::new(["rougeL"], false)?;
    let mut kept: Vec<&str> = Vec::new();
    for prompt in prompts {
        let scores = kept.iter().map(|target| {
            let scores = scorer.score(target, prompt);
            scores
                .iter()
                .next()
                .map_or(0.0, |(_, score)| score.fmeasure)
        });
        if scores.fold(0.0, f64::max) <= 0.8 {
            kept.push(prompt);
        }
    }
    Ok(kept)
}

/// Each prompt against the next, by both crates in turn; the shortest of many rounds, so that other work on the machine
/// matters little.
fn pairs(prompts: &[&str]) -> Result<(), Box<dyn Error>> {
    let scorer = rougers::RougeScorer::new(["rougeL"], false)?;
    let mut shortest = [Duration::MAX; 2];
    for _ in 0..100 {
        let start = Instant::now();
        for (target, prediction) in prompts.iter().zip(prompts.iter().skip(1)) {
            black_box(rouge_l(target, prediction, Tokenizer::Rouge));
        }
        let middle = Instant::now();
        for (target, prediction) in prompts.iter().zip(prompts.iter().skip(1)) {
            black_box(scorer.score(target, prediction));
        }
        let times = [middle - start, middle.elapsed()];
        for (shortest, time) in shortest.iter_mut().zip(times) {
            *shortest = time.min(*shortest);
        }
    }
    let pairs = prompts.len().saturating_sub(1).max(1) as f64;
    let [ours, rougers] = shortest.map(|time| time.as_secs_f64() * 1e9 / pairs);
    println!("{{\"rouge_l\": {ours:.0}, \"rougers\": {rougers:.0}}}");
    Ok(())
}
