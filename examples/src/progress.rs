//! How far a long work is: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressFinish, ProgressStyle};

use crate::memory::resident;
use crate::terminal::say;

/// Time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// The unit of trainings, whose memory is shown.
const STEPS: &str = "steps";

/// The unit that is shown as kibibytes, mebibytes and so on.
const BYTES: &str = "bytes";

/// A work of many like steps.
#[derive(Debug)]
pub struct Progress {
    label: String,
    /// Plural: `steps`, `images`.
    unit: &'static str,
    total: Option<u64>,
    /// Steps that were done before; the rate counts those after.
    before: u64,
    done: u64,
    note: String,
    start: Instant,
    display: Display,
}

#[derive(Debug)]
enum Display {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Begins a work of `total` steps, or of nobody knows how many.
    pub fn new(
        label: impl Into<String>,
        total: impl Into<Option<u64>>,
        unit: &'static str,
    ) -> Self {
        let label = label.into();
        let total = total.into();
        let start = Instant::now();
        let display = if io::stderr().is_terminal() {
            Display::Bar(bar(&label, total))
        } else {
            Display::Lines { last: start }
        };
        Self {
            label,
            unit,
            total,
            before: 0,
            done: 0,
            note: String::new(),
            start,
            display,
        }
    }

    /// Says that `done` steps were done by an earlier run.
    #[must_use]
    pub fn resumed_at(mut self, done: u64) -> Self {
        self.before = done;
        self.done = done;
        self
    }

    /// Begins a transfer of bytes.
    #[cfg(feature = "hub")]
    pub fn of_bytes(label: impl Into<String>, total: u64) -> Self {
        Self::new(label, total, BYTES)
    }

    /// Says how much of what is done was there before, where that comes out only bit by bit.
    #[cfg(feature = "hub")]
    pub fn set_before(&mut self, before: u64) {
        self.before = before;
    }

    /// Shows that `done` steps are done; `note` stands behind, for example the loss.
    pub fn set(&mut self, done: u64, note: impl Into<String>) {
        self.done = done;
        self.note = note.into();
        let text = self.text();
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(text);
            }
            Display::Lines { last } => {
                if last.elapsed() >= PAUSE {
                    *last = Instant::now();
                    say(format_args!("{}: {text}", self.label));
                }
            }
        }
    }

    /// Prints a line for people that stands above the bar.
    pub fn say(&self, text: impl std::fmt::Display) {
        match &self.display {
            Display::Bar(bar) => bar.suspend(|| say(text)),
            Display::Lines { .. } => say(text),
        }
    }

    /// Shows the last state for good, with the time it took.
    pub fn finish(mut self) {
        let spent = format!("in {}", duration(self.start.elapsed().as_secs_f64()));
        let parts = [self.counts(), self.rate().unwrap_or_default(), spent];
        let mut parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        parts.push(std::mem::take(&mut self.note));
        let text = join(&parts);
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
        say(format_args!("{}: {text}", self.label));
    }

    fn text(&self) -> String {
        let left = || {
            let left = self.total?.saturating_sub(self.done);
            let rate = self.per_second()?;
            (left > 0).then(|| format!("{} left", duration(left as f64 / rate)))
        };
        let memory = || Some(format!("{} of memory", HumanBytes(resident()?)));
        let memory = (self.unit == STEPS).then(memory).flatten();
        join(&[
            self.counts(),
            self.rate().unwrap_or_default(),
            left().unwrap_or_default(),
            memory.unwrap_or_default(),
            self.note.clone(),
        ])
    }

    fn counts(&self) -> String {
        if self.unit == BYTES {
            let total = self.total.map(|total| format!(" of {}", HumanBytes(total)));
            return format!("{}{}", HumanBytes(self.done), total.unwrap_or_default());
        }
        let total = self.total.map(|total| format!("/{}", HumanCount(total)));
        format!(
            "{}{} {}",
            HumanCount(self.done),
            total.unwrap_or_default(),
            self.unit
        )
    }

    fn per_second(&self) -> Option<f64> {
        let rate =
            self.done.saturating_sub(self.before) as f64 / self.start.elapsed().as_secs_f64();
        (rate.is_finite() && rate > 0.0).then_some(rate)
    }

    fn rate(&self) -> Option<String> {
        let rate = self.per_second()?;
        Some(if self.unit == BYTES {
            format!("{}/s", HumanBytes(rate as u64))
        } else if rate >= 1000.0 {
            format!("{}/s", HumanCount(rate as u64))
        } else if rate >= 1.0 {
            format!("{rate:.1}/s")
        } else {
            format!("{:.1} s each", 1.0 / rate)
        })
    }
}

fn bar(label: &str, total: Option<u64>) -> ProgressBar {
    let bar = match total {
        Some(total) => ProgressBar::new(total),
        None => ProgressBar::new_spinner(),
    };
    let template = match total {
        Some(_) => "{prefix} {bar:30} {msg}",
        None => "{prefix} {spinner} {msg}",
    };
    // The templates are constants; if one were wrong, the default style would show.
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    bar.set_prefix(label.to_owned());
    // After an error the bar stays where it was, as the last thing known.
    bar.with_finish(ProgressFinish::Abandon)
}

fn join(parts: &[String]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
}

/// Seconds for people: `0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`.
pub fn duration(seconds: f64) -> String {
    if seconds < 10.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [
            (0.41, "0.4 s"),
            (12.3, "12 s"),
            (185.0, "3 min 05 s"),
            (7800.0, "2 h 10 min"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn the_rate_does_not_count_what_was_done_before() {
        let mut progress = Progress::new("work", 100, "steps").resumed_at(90);
        assert_eq!(progress.per_second(), None);
        progress.start = Instant::now() - Duration::from_secs(2);
        progress.set(94, "loss 0.1");
        let rate = progress.per_second().unwrap();
        assert!((1.9..2.1).contains(&rate), "{rate}");
        let text = progress.text();
        assert!(
            text.starts_with("94/100 steps, 2.0/s, 3.0 s left"),
            "{text}"
        );
        assert!(text.ends_with(", loss 0.1"), "{text}");
    }

    #[cfg(feature = "hub")]
    #[test]
    fn bytes_have_prefixes() {
        let mut progress = Progress::of_bytes("file", 4 << 30);
        progress.start = Instant::now() - Duration::from_secs(4);
        progress.set_before(1 << 30);
        progress.set(2 << 30, "unet");
        let text = progress.text();
        assert!(text.starts_with("2.00 GiB of 4.00 GiB, "), "{text}");
        assert!(text.contains(" MiB/s, 8.0 s left, unet"), "{text}");
    }
}
