//! Score by guidance: one small line chart for each model, with the base's line behind it.

use selma_eval::Estimate;

use super::{GuidanceCurve, ModelKind, Report, chart::Axis, chart::shape, escape, number};

/// Size of a chart and its plot in the units of its `viewBox`.
const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 176.0;
const LEFT: f64 = 30.0;
const RIGHT: f64 = 270.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 142.0;

/// All curves on common axes; empty without any.
pub(super) fn curves(report: &Report) -> String {
    let points = || report.curves.iter().flat_map(|curve| curve.points.iter());
    let scores = points().flat_map(|(_, e)| [e.mean, e.low, e.high].map(|share| share * 100.0));
    let axes = Axes {
        guidance: Axis::holding(points().map(|(guidance, _)| *guidance), (0.0, 1e3)),
        score: Axis::holding(scores, (0.0, 100.0)),
    };
    let base = report
        .curves
        .iter()
        .find(|curve| report.kind_of(&curve.model) == ModelKind::Base);
    let charts = report.curves.iter().map(|curve| {
        let behind = base.filter(|base| base.model != curve.model);
        axes.chart(curve, report.kind_of(&curve.model), behind)
    });
    charts.collect()
}

struct Axes {
    guidance: Axis,
    score: Axis,
}

impl Axes {
    fn x(&self, guidance: f64) -> f64 {
        LEFT + self.guidance.position(guidance) * (RIGHT - LEFT)
    }

    fn y(&self, share: f64) -> f64 {
        BOTTOM - self.score.position(share * 100.0) * (BOTTOM - TOP)
    }

    fn chart(
        &self,
        curve: &GuidanceCurve,
        kind: ModelKind,
        behind: Option<&GuidanceCurve>,
    ) -> String {
        let points = drawable(curve);
        let name = escape::html(&curve.model);
        let best = points
            .iter()
            .max_by(|(_, a), (_, b)| a.mean.total_cmp(&b.mean))
            .map_or_else(String::new, |(guidance, estimate)| {
                let (score, guidance) = (number::percent(estimate.mean), number::plain(*guidance));
                format!("highest {score} at guidance {guidance}")
            });
        let behind = behind.map_or_else(String::new, |base| {
            format!(
                "<polyline class=\"behind\" points=\"{}\"/>",
                self.line(&drawable(base))
            )
        });
        let whiskers: String = points.iter().map(|(g, e)| self.whisker(*g, e)).collect();
        let marks: String = points
            .iter()
            .map(|(g, e)| self.mark(*g, e, kind, curve.chosen == Some(*g)))
            .collect();
        format!(
            "<figure class=\"panel curve kind-{}\"><figcaption>{name} <small>{best}</small></figcaption>\
             <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Score of {name} by guidance: {}\">\
             {}{behind}{whiskers}<polyline class=\"line\" points=\"{}\"/>{marks}</svg></figure>\n",
            kind.name(),
            in_words(&points),
            self.frame(),
            self.line(&points),
        )
    }

    fn frame(&self) -> String {
        let rows = self.score.ticks.iter().map(|tick| {
            let y = number::svg(self.y(tick / 100.0));
            let text = number::plain(*tick);
            let x = LEFT - 7.0;
            format!(
                "<line class=\"tick\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text x=\"{x}\" y=\"{y}\" dy=\"3.5\" text-anchor=\"end\">{text}</text>"
            )
        });
        let columns = self.guidance.ticks.iter().map(|tick| {
            let (x, text) = (number::svg(self.x(*tick)), number::plain(*tick));
            let y = BOTTOM + 15.0;
            format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>")
        });
        let (middle, bottom) = ((LEFT + RIGHT) / 2.0, HEIGHT - 3.0);
        rows.chain(columns).collect::<String>()
            + &format!("<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">guidance</text>")
    }

    fn line(&self, points: &[(f64, Estimate)]) -> String {
        let points: Vec<String> = points
            .iter()
            .map(|(g, e)| {
                format!(
                    "{},{}",
                    number::svg(self.x(*g)),
                    number::svg(self.y(e.mean))
                )
            })
            .collect();
        points.join(" ")
    }

    fn whisker(&self, guidance: f64, estimate: &Estimate) -> String {
        let x = number::svg(self.x(guidance));
        let (y1, y2) = (
            number::svg(self.y(estimate.low)),
            number::svg(self.y(estimate.high)),
        );
        format!("<line class=\"whisker\" x1=\"{x}\" x2=\"{x}\" y1=\"{y1}\" y2=\"{y2}\"/>")
    }

    fn mark(&self, guidance: f64, estimate: &Estimate, kind: ModelKind, chosen: bool) -> String {
        let (x, y) = (
            number::svg(self.x(guidance)),
            number::svg(self.y(estimate.mean)),
        );
        let ring = if chosen {
            "<circle class=\"ring\" r=\"9\"/>"
        } else {
            ""
        };
        let title = format!(
            "guidance {}: {} ({} to {})",
            number::plain(guidance),
            number::percent(estimate.mean),
            number::percent(estimate.low),
            number::percent(estimate.high)
        );
        format!(
            "<g transform=\"translate({x} {y})\">{ring}<path class=\"mark\" d=\"{}\"><title>{title}</title></path></g>",
            shape(kind)
        )
    }
}

/// The points that have a place on the plane, by guidance.
fn drawable(curve: &GuidanceCurve) -> Vec<(f64, Estimate)> {
    let mut points: Vec<(f64, Estimate)> = curve
        .points
        .iter()
        .copied()
        .filter(|(guidance, e)| {
            [*guidance, e.mean, e.low, e.high]
                .iter()
                .all(|v| v.is_finite())
        })
        .collect();
    points.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    points
}

fn in_words(points: &[(f64, Estimate)]) -> String {
    let points: Vec<String> = points
        .iter()
        .map(|(g, e)| format!("{} at {}", number::percent(e.mean), number::plain(*g)))
        .collect();
    points.join(", ")
}
