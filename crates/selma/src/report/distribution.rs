//! How the scores of single prompts are spread: one panel for each metric, one histogram for each model.

use super::{Metric, MetricRow, ModelKind, Report, Unit, chart::Axis, escape, number};

/// Bars of a histogram.
const BARS: usize = 20;

/// All metrics that have scores by prompt.
pub(super) fn distributions(report: &Report) -> String {
    let panels: String = present(report).map(panel).collect();
    format!("<div class=\"panels spread\">{panels}</div>")
}

/// The metrics with at least one model of which two prompts are scored.
pub(super) fn present(report: &Report) -> impl Iterator<Item = &Metric> {
    let spread = |row: &MetricRow| row.finite().nth(1).is_some();
    let metrics = report.metrics.iter();
    metrics.filter(move |metric| metric.rows.iter().any(spread))
}

/// Number of scores in each bar.
#[derive(Debug, PartialEq)]
struct Histogram([usize; BARS]);

impl Histogram {
    fn of(row: &MetricRow, axis: &Axis, unit: Unit) -> Self {
        let mut bars = [0; BARS];
        for value in row.finite() {
            // The last bar holds the end of the axis, too.
            let bar = (axis.position(value * unit.factor()) * BARS as f64) as usize;
            if let Some(count) = bars.get_mut(bar.min(BARS - 1)) {
                *count += 1;
            }
        }
        Self(bars)
    }

    /// Share of the scores in the fullest bar.
    fn peak(&self) -> f64 {
        let all: usize = self.0.iter().sum();
        let most = self.0.iter().max().copied().unwrap_or(0);
        most as f64 / all.max(1) as f64
    }

    /// The outline in a field of the width `BARS` and the height 1, upside down, whose top is the share `peak`.
    fn outline(&self, peak: f64) -> String {
        let all: usize = self.0.iter().sum();
        let heights = self.0.iter().map(|&count| {
            let share = count as f64 / all.max(1) as f64;
            number::svg(1.0 - (share / peak.max(1e-9)).min(1.0))
        });
        let steps: String = heights.map(|height| format!("V{height}h1")).collect();
        format!("M0 1{steps}V1")
    }
}

fn panel(metric: &Metric) -> String {
    let unit = metric.unit;
    let values = metric.rows.iter().flat_map(MetricRow::finite);
    let axis = match unit {
        Unit::Share => Axis::holding([0.0, 100.0].into_iter(), unit.bounds()),
        Unit::Plain => Axis::holding(values, unit.bounds()),
    };
    let histograms: Vec<Histogram> = metric
        .rows
        .iter()
        .map(|row| Histogram::of(row, &axis, unit))
        .collect();
    let peak = histograms.iter().map(Histogram::peak).fold(0.0, f64::max);
    let base = metric.rows.iter().zip(&histograms);
    let base = base
        .filter(|(row, _)| row.kind == ModelKind::Base)
        .map(|(_, histogram)| histogram.outline(peak))
        .next();
    let rows: String = metric
        .rows
        .iter()
        .zip(&histograms)
        .map(|(row, histogram)| {
            let behind = base.as_deref().filter(|_| row.kind != ModelKind::Base);
            histogram_row(row, unit, &axis, &histogram.outline(peak), behind)
        })
        .collect();
    let labels: String = axis
        .ticks
        .iter()
        .map(|tick| {
            let (x, text) = (position(&axis, *tick), number::short(*tick));
            format!("<text x=\"{x}\" y=\"13\" text-anchor=\"middle\">{text}</text>")
        })
        .collect();
    format!(
        "<figure class=\"panel\"><figcaption>{} <small>{}</small></figcaption><ul class=\"rows\">{rows}\
         <li class=\"row scale\" aria-hidden=\"true\"><span></span><svg class=\"plot\" width=\"100%\" height=\"18\">\
         {labels}</svg><span class=\"unit\">{}</span></li></ul></figure>\n",
        escape::html(&metric.name),
        escape::html(&metric.detail),
        unit.sign(),
    )
}

fn histogram_row(
    row: &MetricRow,
    unit: Unit,
    axis: &Axis,
    outline: &str,
    behind: Option<&str>,
) -> String {
    let label = escape::html(&row.model);
    let behind = behind.map_or_else(String::new, |outline| {
        format!("<path class=\"behind\" vector-effect=\"non-scaling-stroke\" d=\"{outline}\"/>")
    });
    let (marks, value, words) = row.quartiles().map_or_else(
        || (String::new(), "-".to_owned(), "no scores".to_owned()),
        |[low, median, high]| {
            let x = |value: f64| position(axis, value * unit.factor());
            let text = |value| unit.score(value, row.overall.mean);
            let marks = format!(
                "<line class=\"whisker\" x1=\"{}\" x2=\"{}\" y1=\"35\" y2=\"35\"/>\
                 <line class=\"median\" x1=\"{2}\" x2=\"{2}\" y1=\"31\" y2=\"39\"/>",
                x(low),
                x(high),
                x(median)
            );
            let words = format!(
                "median {}, half of the prompts from {} to {}",
                text(median),
                text(low),
                text(high)
            );
            (marks, text(median), words)
        },
    );
    format!(
        "<li class=\"row spread-row kind-{}\"><span class=\"label\" title=\"{label}\">{label}</span>\
         <svg class=\"plot\" width=\"100%\" height=\"40\" role=\"img\" aria-label=\"{words}\">\
         <svg width=\"100%\" height=\"32\" viewBox=\"0 0 {BARS} 1\" preserveAspectRatio=\"none\">\
         <path class=\"bars\" d=\"{outline}z\"/>{behind}</svg>{marks}<title>{words}</title></svg>\
         <span class=\"value\">{value}</span></li>",
        row.kind.name()
    )
}

fn position(axis: &Axis, value: f64) -> String {
    format!("{}%", number::svg(axis.position(value) * 100.0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use selma_eval::Estimate;

    use super::*;

    fn row(values: &[f64]) -> MetricRow {
        let values = values.iter().enumerate();
        MetricRow {
            model: "base".to_owned(),
            kind: ModelKind::Base,
            overall: Estimate {
                mean: 0.5,
                low: 0.4,
                high: 0.6,
                n: 4,
                clusters: 4,
            },
            difference_to_base: None,
            by_category: BTreeMap::new(),
            values: values.map(|(id, value)| (id.to_string(), *value)).collect(),
        }
    }

    #[test]
    fn every_score_is_in_one_bar() {
        let axis = Axis::holding([0.0, 100.0].into_iter(), (0.0, 100.0));
        let row = row(&[0.0, 0.049, 0.05, 1.0, f64::NAN]);
        let histogram = Histogram::of(&row, &axis, Unit::Share);
        assert_eq!(histogram.0.iter().sum::<usize>(), 4);
        assert_eq!((histogram.0[0], histogram.0[1], histogram.0[19]), (2, 1, 1));
        assert_eq!(histogram.peak(), 0.5);
        assert!(histogram.outline(0.5).starts_with("M0 1V0h1V0.5h1V1h1"));
        let quartiles = row.quartiles().unwrap();
        let expected = [0.036_75, 0.0495, 0.2875];
        let near = |(a, b): (f64, f64)| (a - b).abs() < 1e-12;
        assert!(
            quartiles.into_iter().zip(expected).all(near),
            "{quartiles:?}"
        );
    }
}
