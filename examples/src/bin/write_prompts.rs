//! Prompts by a language model: writes 20 captions in the style of COCO to a file, and can be stopped at any time.
//!
//!     cargo run --release --bin write_prompts -- prompts.jsonl

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::ops::ControlFlow;
use std::path::PathBuf;

use anyhow::Context;
use selma_llm::{Journal, PromptConfig, PromptEvent, PromptGenerator, write_prompts};
use selma_mini::{GrammarModel, Style, skill};

fn main() -> anyhow::Result<()> {
    let out = PathBuf::from(
        std::env::args()
            .nth(1)
            .context("usage: write_prompts FILE.jsonl")?,
    );

    // This model needs no server. For a real one:
    //     let config = OpenAiConfig::new("http://localhost:8000/v1", "my-model");
    //     let model = OpenAiClient::new(config)?;
    // and Skill::builtin("coco") or Skill::load("my-skill.toml") for the skill.
    let model = GrammarModel;
    let skill = skill(Style::Coco)?;

    let config = PromptConfig {
        count: 20,
        ..PromptConfig::default()
    };
    // Every answer is on disk before it is read, so that no request is made twice.
    let mut journal = Journal::open(&out.with_extension("journal"))?;
    let generator = PromptGenerator::new(skill, config)?;
    let made = generator.run(&model, Some(&mut journal), &mut |event| {
        if let PromptEvent::Kept(prompt) = event {
            println!("{}", prompt.text);
        }
        // Break stops the work; run the program again to go on.
        ControlFlow::Continue(())
    })?;
    write_prompts(&out, &made.prompts)?;
    println!(
        "{} prompts from {} requests",
        made.report.kept, made.report.requests
    );
    Ok(())
}
