//! A long work that survives anything: squares numbers into a journal, slowly. Stop it by Ctrl-C or kill -9 whenever you
//! like; the same command goes on behind the last number.
//!
//!     cargo run --release --bin resume_work -- squares.jsonl 100

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::time::Duration;

use anyhow::{Context, bail};
use selma_durable::Journal;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, count] = args.as_slice() else {
        bail!("usage: resume_work FILE.jsonl COUNT");
    };
    let count: u64 = count.parse().context("COUNT must be a number")?;
    // A line that a kill has torn is cut off; a second program on the same file is refused.
    let (mut journal, done) = Journal::<u64>::open(path)?;
    println!("{} done before", done.len());
    for number in done.len() as u64..count {
        std::thread::sleep(Duration::from_millis(20));
        // On the disk when the call returns.
        journal.append(&(number * number))?;
    }
    println!("{count} done");
    Ok(())
}
