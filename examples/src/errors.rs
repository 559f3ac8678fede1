//! Errors as the user sees them.

use std::io;

/// An error and its causes, one behind the other. A cause that the text before it ends with already is not said twice.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Parsers that show the line end with a line end.
        let cause = cause.trim_end();
        if text.is_empty() {
            text = cause.to_owned();
        } else if !text.ends_with(cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether the reader of a pipe that we write to has gone.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn causes_are_said_once() {
        let cause = || io::Error::from(io::ErrorKind::NotFound);
        let plain = Err::<(), _>(cause()).context("cannot read a.txt");
        let repeated = Err::<(), _>(cause()).context(format!("cannot read a.txt: {}", cause()));
        let expected = format!("cannot read a.txt: {}", cause());
        assert_eq!(chain(&plain.unwrap_err()), expected);
        assert_eq!(chain(&repeated.unwrap_err()), expected);
    }

    #[test]
    fn a_broken_pipe_is_found_below_its_context() {
        let broken =
            Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert!(is_broken_pipe(&broken.unwrap_err()));
        assert!(!is_broken_pipe(&anyhow::anyhow!("broken pipe")));
    }
}
