//! Means with their intervals: one panel for each category, one row for each model.
//!
//! A row is HTML text with a small SVG that is as wide as there is room and whose positions are percentages, so that
//! the text keeps its size on a telephone.

use super::{ModelKind, escape, number};

/// Ticks on an axis aim for this number of steps.
const STEPS: f64 = 5.0;

/// Height of a row in pixels.
const HEIGHT: f64 = 22.0;

/// One mean with its interval, in the unit of the axis.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) label: String,
    pub(super) kind: ModelKind,
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// The mean as text.
    pub(super) value: String,
    pub(super) best: bool,
}

/// Rows below a title, with a dashed line at the reference.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
    pub(super) reference: Option<f64>,
}

/// A linear axis with round ticks.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    /// The smallest axis between round ticks that holds all finite values and lies within `bounds`.
    pub(super) fn holding(values: impl Iterator<Item = f64>, bounds: (f64, f64)) -> Self {
        let (low, high) = range(values, bounds);
        let step = round_step((high - low) / STEPS);
        let (first, count) = steps(low, high, step, bounds);
        Self::new(first, count, step)
    }

    /// Ticks at `count` steps from the one numbered `first`.
    fn new(first: f64, count: f64, step: f64) -> Self {
        // Bounded, whatever rounding does.
        let count = count.clamp(1.0, 4.0 * STEPS) as u32;
        let ticks: Vec<f64> = (0..=count).map(|i| (first + f64::from(i)) * step).collect();
        Self {
            low: first * step,
            high: (first + f64::from(count)) * step,
            ticks,
        }
    }

    /// Position of a value between 0 and 1.
    pub(super) fn position(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn percent(&self, value: f64) -> String {
        format!("{}%", number::svg(self.position(value) * 100.0))
    }
}

/// The next of 1, 2, 5, 10, … times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= step * (1.0 - 1e-9));
    factor.unwrap_or(10.0) * power
}

/// Lowest and highest of the finite values within `bounds`, apart.
fn range(values: impl Iterator<Item = f64>, bounds: (f64, f64)) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .map(|value| value.clamp(bounds.0, bounds.1))
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        (0.0, 1.0)
    } else if high - low > 1e-9 {
        (low, high)
    } else {
        ((low - 0.5).max(bounds.0), (low + 0.5).min(bounds.1))
    }
}

/// Number of the first step and number of steps from `low` to `high`.
fn steps(low: f64, high: f64, step: f64, bounds: (f64, f64)) -> (f64, f64) {
    let first = (low / step).floor().max((bounds.0 / step).ceil());
    let last = (high / step).ceil().min((bounds.1 / step).floor());
    (first, last - first)
}

/// An axis for each panel: all as long as the longest, so that a distance means the same in each of them, but each
/// where its own values are.
fn aligned_axes(panels: &[Panel], bounds: (f64, f64)) -> Vec<Axis> {
    let ranges: Vec<(f64, f64)> = panels.iter().map(|p| range(values(p), bounds)).collect();
    let longest = ranges
        .iter()
        .map(|(low, high)| high - low)
        .fold(0.0, f64::max);
    let step = round_step(longest / STEPS);
    let own = |(low, high): &(f64, f64)| steps(*low, *high, step, bounds);
    let count = ranges.iter().map(|range| own(range).1).fold(1.0, f64::max);
    let lowest = (bounds.0 / step).ceil();
    let highest = (bounds.1 / step).floor() - count;
    let axis = |range| {
        let (first, used) = own(range);
        let middle = first - ((count - used) / 2.0).floor();
        Axis::new(middle.min(highest).max(lowest), count, step)
    };
    ranges.iter().map(axis).collect()
}

fn values(panel: &Panel) -> impl Iterator<Item = f64> {
    let rows = panel
        .rows
        .iter()
        .flat_map(|row| [row.mean, row.low, row.high]);
    rows.chain(panel.reference)
}

/// Panels beside one another, as many as fit; what they show lies within `bounds`.
pub(super) fn panels(panels: &[Panel], bounds: (f64, f64), unit: &str) -> String {
    let axes = aligned_axes(panels, bounds);
    let panels: String = (panels.iter().zip(&axes))
        .map(|(p, axis)| panel(p, axis, unit))
        .collect();
    format!("<div class=\"panels\">{panels}</div>")
}

fn panel(panel: &Panel, axis: &Axis, unit: &str) -> String {
    let title = escape::html(&panel.title);
    let rows: String = panel
        .rows
        .iter()
        .map(|r| row(r, axis, panel.reference))
        .collect();
    format!(
        "<figure class=\"panel\"><figcaption>{title}</figcaption><ul class=\"rows\">{rows}{}</ul></figure>\n",
        scale(axis, unit)
    )
}

fn row(row: &Row, axis: &Axis, reference: Option<f64>) -> String {
    let kind = row.kind.name();
    let best = if row.best { " best" } else { "" };
    let (label, value) = (escape::html(&row.label), escape::html(&row.value));
    let ticks: String = axis
        .ticks
        .iter()
        .map(|tick| vertical("tick", &axis.percent(*tick)))
        .chain(reference.map(|value| vertical("reference", &axis.percent(value))))
        .collect();
    let drawn = [row.mean, row.low, row.high]
        .into_iter()
        .all(f64::is_finite);
    let mark = if drawn {
        mark(row, axis)
    } else {
        String::new()
    };
    format!(
        "<li class=\"row kind-{kind}{best}\"><span class=\"label\" title=\"{label}\">{label}</span>\
         <svg class=\"plot\" width=\"100%\" height=\"{HEIGHT}\" aria-hidden=\"true\">{ticks}{mark}</svg>\
         <span class=\"value\">{value}</span></li>"
    )
}

fn vertical(class: &str, x: &str) -> String {
    format!("<line class=\"{class}\" x1=\"{x}\" x2=\"{x}\" y1=\"0\" y2=\"{HEIGHT}\"/>")
}

fn mark(row: &Row, axis: &Axis) -> String {
    let middle = HEIGHT / 2.0;
    let (low, mean, high) = (
        axis.percent(row.low),
        axis.percent(row.mean),
        axis.percent(row.high),
    );
    let shape = shape(row.kind);
    format!(
        "<line class=\"whisker\" x1=\"{low}\" x2=\"{high}\" y1=\"{middle}\" y2=\"{middle}\"/>\
         <svg x=\"{mean}\" y=\"{middle}\" overflow=\"visible\"><path class=\"mark\" d=\"{shape}\"/></svg>"
    )
}

/// Each kind has its own shape, for those who cannot tell the colours apart.
pub(super) fn shape(kind: ModelKind) -> &'static str {
    match kind {
        // Circle, diamond, square, larger circle, triangle.
        ModelKind::Base => "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
        ModelKind::Expert => "M0-5 5 0 0 5-5 0z",
        ModelKind::Union => "M-4-4H4V4H-4z",
        ModelKind::Merged => "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0-11 0z",
        ModelKind::Other => "M0-5 5 4H-5z",
    }
}

fn scale(axis: &Axis, unit: &str) -> String {
    let labels: String = axis
        .ticks
        .iter()
        .map(|tick| {
            let (x, text) = (axis.percent(*tick), number::plain(*tick));
            format!("<text x=\"{x}\" y=\"13\" text-anchor=\"middle\">{text}</text>")
        })
        .collect();
    let unit = escape::html(unit);
    format!(
        "<li class=\"row scale\" aria-hidden=\"true\"><span></span><svg class=\"plot\" width=\"100%\" height=\"18\">\
         {labels}</svg><span class=\"unit\">{unit}</span></li>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(values: &[f64], bounds: (f64, f64)) -> Vec<f64> {
        Axis::holding(values.iter().copied(), bounds).ticks
    }

    #[test]
    fn ticks_are_round_and_hold_the_values() {
        assert_eq!(
            ticks(&[61.2, 84.9], (0.0, 100.0)),
            [60.0, 65.0, 70.0, 75.0, 80.0, 85.0]
        );
        assert_eq!(
            ticks(&[-1.2, 5.6], (-100.0, 100.0)),
            [-2.0, 0.0, 2.0, 4.0, 6.0]
        );
        assert_eq!(
            ticks(&[97.0, 100.0], (0.0, 100.0)),
            [97.0, 98.0, 99.0, 100.0]
        );
    }

    #[test]
    fn aligned_axes_have_one_length_and_hold_their_values() {
        let panel = |values: &[f64]| {
            Panel {
                title: String::new(),
                rows: Vec::new(),
                reference: None,
            }
            .with(values)
        };
        let panels = [
            panel(&[55.0, 68.0]),
            panel(&[90.0, 98.5]),
            panel(&[1.0, 2.0]),
        ];
        let axes = aligned_axes(&panels, (0.0, 100.0));
        for (axis, panel) in axes.iter().zip(&panels) {
            assert_eq!(axis.high - axis.low, axes[0].high - axes[0].low);
            assert!(
                (0.0..=100.0).contains(&axis.low) && axis.high <= 100.0,
                "{axis:?}"
            );
            assert!(
                values(panel).all(|v| axis.low <= v && v <= axis.high),
                "{axis:?}"
            );
        }
    }

    impl Panel {
        fn with(mut self, means: &[f64]) -> Self {
            let row = |mean: &f64| Row {
                label: String::new(),
                kind: ModelKind::Base,
                mean: *mean,
                low: *mean,
                high: *mean,
                value: String::new(),
                best: false,
            };
            self.rows = means.iter().map(row).collect();
            self
        }
    }

    #[test]
    fn an_axis_exists_for_any_values() {
        for values in [
            &[][..],
            &[50.0],
            &[100.0],
            &[0.0, 0.0],
            &[f64::NAN, f64::INFINITY],
            &[-1e300, 1e300],
            &[1e-15, 2e-15],
        ] {
            let axis = Axis::holding(values.iter().copied(), (0.0, 100.0));
            assert!(axis.low < axis.high, "{values:?} {axis:?}");
            assert!(
                axis.ticks.len() >= 2 && axis.ticks.len() <= 22,
                "{values:?} {axis:?}"
            );
            for value in values {
                let position = axis.position(*value);
                assert!(position.is_nan() == value.is_nan());
                assert!(position.is_nan() || (0.0..=1.0).contains(&position));
            }
        }
    }
}
