//! The miniature world: prompts that say what a picture must show, pictures of them, and questions with known answers.
//!
//!     cargo run --release --bin mini_world -- world

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::path::Path;

use anyhow::Context;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma_eval::QuestionSet;
use selma_mini::{EvalSet, Partition, layout, render, see};

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: mini_world DIR")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder)?;
    // Four prompts of each of the five styles, from the part of the world that no training sees.
    let set = EvalSet::draw(Partition::Validation, 4, 7)?;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for item in set.items() {
        // A prompt leaves places and some sizes open; the layout chooses them.
        let scene = layout(&item.spec, &mut rng)?;
        let picture = render(&scene);
        picture.save(folder.join(format!("{}.png", item.id)))?;
        let seen = see(&picture)?;
        println!(
            "{}: {} ({} objects seen)",
            item.id,
            item.text,
            seen.objects.len()
        );
    }
    // In the form of DSG-1k, for `score_images` and `selma eval dsg`.
    QuestionSet::new(set.questions())?.write(&folder.join("questions.csv"))?;
    Ok(())
}
