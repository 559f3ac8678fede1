//! Panics as errors: burn panics where a device fails, for example for want of memory.

use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Mutex;

use anyhow::{anyhow, bail};
use selma_diffusion::DiffusionError;

/// Where and why the first thread has panicked. Those that wait for it panic, too, and know less.
static FIRST: Mutex<Option<(String, String)>> = Mutex::new(None);

/// Runs a command; a panic becomes an error that says what it was. With `RUST_BACKTRACE` set, it is also shown as usual.
///
/// # Errors
///
/// Those of the command, and its panic.
pub fn guard(run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let usual = panic::take_hook();
    let verbose = std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0");
    panic::set_hook(Box::new(move |info| {
        remember(info);
        if verbose {
            usual(info);
        }
    }));
    match panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result,
        Err(_) => explain(FIRST.lock().ok().and_then(|mut first| first.take())),
    }
}

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let text = info
        .payload_as_str()
        .unwrap_or("no reason given")
        .to_owned();
    if let Ok(mut first) = FIRST.lock() {
        first.get_or_insert((place, text));
    }
}

fn explain(first: Option<(String, String)>) -> anyhow::Result<()> {
    let Some((place, text)) = first else {
        bail!("the program failed without a reason");
    };
    match DiffusionError::read_back(&text) {
        error @ DiffusionError::OutOfMemory { .. } => Err(error.into()),
        _ => Err(anyhow!(
            "the program failed at {place}: {}; with RUST_BACKTRACE=1 it says more",
            text.trim()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_told_from_what_is_a_fault_of_ours() {
        let of = |text: &str| {
            let first = Some(("src/x.rs:1:2".to_owned(), text.to_owned()));
            explain(first).unwrap_err().to_string()
        };
        let memory = of(
            "called `Result::unwrap()` on an `Err` value: out of device memory allocating 8 bytes\nframes",
        );
        assert!(
            memory.starts_with(
                "the device has run out of memory (out of device memory allocating 8 bytes)"
            ),
            "{memory}"
        );
        assert!(
            of("index out of bounds")
                .starts_with("the program failed at src/x.rs:1:2: index out of bounds;")
        );
        assert!(explain(None).is_err());
    }
}
