//! The diversity filter: reads prompts from standard input, one a line, and prints those that differ from each other.
//!
//!     cargo run --release --bin rouge_filter < prompts.txt

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::io;

use selma_rouge::{DiversityFilter, Tokenizer, Verdict};

fn main() -> anyhow::Result<()> {
    // Rejects a prompt whose ROUGE-L F with any kept one is over 0.8, as SELMA does.
    let mut filter = DiversityFilter::new(0.8, Tokenizer::Rouge)?;
    for line in io::stdin().lines() {
        let prompt = line?;
        match filter.offer(&prompt) {
            Verdict::Kept { .. } => println!("keep  {prompt}"),
            Verdict::Rejected { nearest } => {
                let like = filter.get(nearest.id).unwrap_or_default();
                let score = nearest.score.fmeasure;
                println!("drop  {prompt}   ({score:.2} like: {like})");
            }
        }
    }
    println!("{} kept", filter.len());
    Ok(())
}
