//! What a run tells, as progress bars.

use std::ops::ControlFlow;

use selma::RunEvent;

use crate::interrupt;
use crate::progress::Progress;
use crate::terminal::say;

/// The bar of the task that is going on.
#[derive(Debug, Default)]
pub struct Events {
    current: Option<(String, Progress)>,
}

impl Events {
    /// Shows an event, and answers whether to go on.
    pub fn receive(&mut self, event: RunEvent<'_>) -> ControlFlow<()> {
        match event {
            RunEvent::Stage(stage) => {
                self.finish();
                say(format_args!("== {stage}"));
            }
            RunEvent::Progress {
                task,
                done,
                total,
                unit,
                note,
            } => {
                let label = format!("{task} {unit}");
                if self
                    .current
                    .as_ref()
                    .is_none_or(|(shown, _)| *shown != label)
                {
                    self.finish();
                    let bar = Progress::new(task, total as u64, unit);
                    // What is done at the first sight of a task, an earlier run has done.
                    let before = done.saturating_sub(1) as u64;
                    self.current = Some((label, bar.resumed_at(before)));
                }
                if let Some((_, bar)) = &mut self.current {
                    let note = note.map(|(name, value)| match value.fract() {
                        0.0 => format!("{name} {value}"),
                        _ => format!("{name} {value:.4}"),
                    });
                    bar.set(done as u64, note.unwrap_or_default());
                }
            }
            RunEvent::Truncated { cut, dropped, .. } => tell_truncated(cut, dropped),
            RunEvent::Repaired { path, bytes } => say(format_args!(
                "{}: a torn last line of {bytes} bytes was dropped",
                path.display()
            )),
            RunEvent::Encoded {
                task,
                encoded,
                found,
            } => {
                self.finish();
                say(format_args!(
                    "{task}: {encoded} pictures and texts encoded, {found} found in the cache"
                ));
            }
            RunEvent::Remade { path } => {
                say(format_args!("{}: damaged, and made anew", path.display()))
            }
            RunEvent::Waited {
                task,
                waited,
                whole,
            } => {
                self.finish();
                let share = 100.0 * waited.as_secs_f64() / whole.as_secs_f64().max(f64::EPSILON);
                say(format_args!(
                    "{task}: {share:.1}% of the steps' time was waiting for data"
                ));
            }
            RunEvent::Finished { task, before } => {
                self.finish();
                if before {
                    say(format_args!("{task}: finished before"));
                }
            }
            _ => {}
        }
        interrupt::flow()
    }

    /// Shows the last state of the task for good.
    pub fn finish(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.finish();
        }
    }
}

/// Says that a prompt is longer than the text encoder's window.
pub fn tell_truncated(cut: &str, dropped: usize) {
    say(format_args!(
        "warning: {dropped} tokens of a prompt are more than the text encoder takes; cut off: {}",
        cut.trim()
    ));
}
