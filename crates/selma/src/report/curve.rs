//! Score by guidance: one small line chart for each model, with the base's line behind it.

use selma_eval::Estimate;

use super::{
    GuidanceCurve, ModelKind, Report, chart::Axis, chart::shape, escape, number, plane::Plane,
};

/// All curves on common axes; empty without any.
pub(super) fn curves(report: &Report) -> String {
    let points = || report.curves.iter().flat_map(|curve| curve.points.iter());
    let scores = points().flat_map(|(_, e)| [e.mean, e.low, e.high].map(|share| share * 100.0));
    let plane = Plane {
        x: Axis::holding(points().map(|(guidance, _)| *guidance), (0.0, 1e3)),
        y: Axis::holding(scores, (0.0, 100.0)),
    };
    let base = report
        .curves
        .iter()
        .find(|curve| report.kind_of(&curve.model) == ModelKind::Base);
    let charts = report.curves.iter().map(|curve| {
        let behind = base.filter(|base| base.model != curve.model);
        chart(&plane, curve, report.kind_of(&curve.model), behind)
    });
    charts.collect()
}

fn chart(
    plane: &Plane,
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
            line(plane, &drawable(base))
        )
    });
    let whiskers: String = points.iter().map(|(g, e)| whisker(plane, *g, e)).collect();
    let marks: String = points
        .iter()
        .map(|(g, e)| mark(plane, *g, e, kind, curve.chosen == Some(*g)))
        .collect();
    let label = format!("Score of {name} by guidance: {}", in_words(&points));
    let drawn = format!(
        "{behind}{whiskers}<polyline class=\"line\" points=\"{}\"/>{marks}",
        line(plane, &points)
    );
    format!(
        "<figure class=\"panel curve kind-{}\"><figcaption>{name} <small>{best}</small></figcaption>{}</figure>\n",
        kind.name(),
        plane.svg(&label, "guidance", &drawn),
    )
}

fn line(plane: &Plane, points: &[(f64, Estimate)]) -> String {
    plane.points(points.iter().map(|(g, e)| (*g, e.mean * 100.0)))
}

fn whisker(plane: &Plane, guidance: f64, estimate: &Estimate) -> String {
    let x = number::svg(plane.x(guidance));
    let (y1, y2) = (
        number::svg(plane.y(estimate.low * 100.0)),
        number::svg(plane.y(estimate.high * 100.0)),
    );
    format!("<line class=\"whisker\" x1=\"{x}\" x2=\"{x}\" y1=\"{y1}\" y2=\"{y2}\"/>")
}

fn mark(
    plane: &Plane,
    guidance: f64,
    estimate: &Estimate,
    kind: ModelKind,
    chosen: bool,
) -> String {
    let (x, y) = (
        number::svg(plane.x(guidance)),
        number::svg(plane.y(estimate.mean * 100.0)),
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
