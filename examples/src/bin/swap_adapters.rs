//! Serving: loads a model and adapters once, and draws requests from standard input, each with the adapter that it names.
//!
//! ```sh
//! printf 'coco: a red star\nbase: a red star\n' | cargo run --release --bin swap_adapters -- models/mini pictures coco.safetensors
//! ```

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::io::BufRead;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::{Context, bail};
use selma_diffusion::{StableDiffusion, TextToImage, device};
use selma_lora::Adapter;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, files @ ..] = args.as_slice() else {
        bail!("usage: swap_adapters MODEL FOLDER ADAPTER.. < REQUESTS");
    };
    let mut adapters = BTreeMap::new();
    for file in files {
        let name = Path::new(file).file_stem().unwrap_or_default();
        adapters.insert(name.to_string_lossy().into_owned(), Adapter::load(file)?);
    }
    let mut pipeline = StableDiffusion::load(model, &device("flex")?)?;
    std::fs::create_dir_all(folder)?;

    for (index, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line?;
        let number = index + 1;
        let Some((name, prompt)) = line.split_once(": ") else {
            println!("{number}: expected ADAPTER: PROMPT, or base: PROMPT");
            continue;
        };
        if name != "base" {
            let Some(adapter) = adapters.get(name) else {
                println!("{number}: there is no adapter {name}");
                continue;
            };
            // The branches stand beside the weights of the model, which are never touched. For many pictures with one adapter, `fuse` would make them
            // faster, and `detach` bring the weights back all the same.
            pipeline.attach(adapter, name, 1.0)?;
        }
        let request = TextToImage {
            steps: 8,
            ..TextToImage::new(vec![prompt.to_owned()], vec![42])
        };
        let drawn = pipeline.generate(&request, &mut |_| ControlFlow::Continue(()));
        // Also after an error: the next request begins with the model as it was loaded, to the bit.
        pipeline.detach(name);
        let drawn = drawn?;
        let picture = drawn.images.first().context("no picture")?;
        let out = Path::new(folder).join(format!("{number}.png"));
        picture
            .save(&out)
            .with_context(|| format!("cannot write {}", out.display()))?;
        println!("{number}: {} by {name}", out.display());
    }
    Ok(())
}
