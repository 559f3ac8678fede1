//! A dataset on disk: pictures with captions that Hugging Face `datasets`, diffusers and kohya read.
//!
//!     cargo run --release --bin make_dataset -- dataset

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::Context;
use selma_dataset::{Dataset, DatasetWriter, Provenance};
use selma_mini::{TrainingWorld, render};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: make_dataset DIR")?;
    // Scenes of the miniature world stand for pictures that a model has drawn.
    let world = TrainingWorld {
        seed: 1,
        caption_noise: 0.0,
        mix_ups: 0.0,
    };
    let mut writer = DatasetWriter::open(&folder)?;
    for index in 0..32 {
        let name = format!("{index:06}.png");
        // What an earlier run wrote before it was stopped is there, and need not be drawn again.
        if writer.contains(&name) {
            continue;
        }
        let item = world.item(index)?;
        let provenance = Provenance {
            skill: "coco".to_owned(),
            seed: index,
            ..Provenance::default()
        };
        writer.push(&name, &render(&item.scene), &item.caption, provenance)?;
    }
    writer.finish()?;

    let dataset = Dataset::open(&folder)?;
    for sample in dataset.iter().take(3) {
        println!("{}: {}", sample.file_name, sample.text);
    }
    println!("{} pictures in {folder}", dataset.len());
    Ok(())
}
