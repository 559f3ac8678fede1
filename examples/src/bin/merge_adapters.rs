//! Merging: writes the exact mean of LoRA adapters' updates, and says what it did.
//!
//!     cargo run --release --bin merge_adapters -- merged.safetensors a.safetensors b.safetensors

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use anyhow::ensure;
use selma_lora::{Adapter, Dtype, Format, Merge, Method, Weighted};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let out = args.next().unwrap_or_default();
    // Any format, any ranks and alphas; the format is detected.
    let adapters = args.map(Adapter::load).collect::<Result<Vec<_>, _>>()?;
    ensure!(!adapters.is_empty(), "usage: merge_adapters OUT ADAPTER..");

    let inputs: Vec<Weighted<'_>> = adapters.iter().map(Weighted::from).collect();
    // Method::Svd with a rank would be the best approximation of the mean that is that small.
    let (merged, report) = Merge::new(Method::Mean).run(&inputs)?;
    merged.save(&out, Format::Kohya, Dtype::F16)?;

    for module in report.modules.iter().take(5) {
        println!(
            "{}: ranks {:?} -> {}",
            module.module, module.ranks, module.rank
        );
    }
    println!(
        "{} modules, off from the formula by {:.0e}",
        report.modules.len(),
        report.self_check
    );
    Ok(())
}
