//! Faithfulness: asks yes/no questions about pictures (DSG) and prints the score with its 95% interval.
//!
//!     cargo run --release --bin mini_world -- world
//!     cargo run --release --bin score_images -- world world/questions.csv

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use selma_eval::dsg::Quirks;
use selma_eval::{EvalOptions, ImageFolder, QuestionSet, evaluate};
use selma_mini::OracleVqa;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [images, annotations] = args.as_slice() else {
        bail!("usage: score_images IMAGES QUESTIONS.csv");
    };
    // The CSV has the form of DSG-1k, whose own file needs Quirks::Official. Each item's picture is ITEM_ID.png.
    let questions = QuestionSet::read(Path::new(annotations), Quirks::Strict)?;
    let images = ImageFolder::new(images);
    // The oracle knows only the miniature world; anything that answers questions about an image can be a Vqa.
    let judge = OracleVqa;
    let options = EvalOptions::default();
    let result = evaluate("mine", &questions, &images, &judge, &options, |_| {
        ControlFlow::Continue(())
    })?;

    let all = [("all".to_owned(), result.overall)];
    for (name, score) in all.into_iter().chain(result.by_broad) {
        let [mean, low, high] = [score.mean, score.low, score.high].map(|share| 100.0 * share);
        println!(
            "{name:10} {mean:5.1} [{low:5.1}, {high:5.1}]  {} prompts",
            score.clusters
        );
    }
    Ok(())
}
