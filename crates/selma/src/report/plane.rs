//! The plane of a small line chart: two axes with their ticks.

use super::{chart::Axis, number};

/// Size of a chart and its plot in the units of its `viewBox`.
const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 176.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = 270.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 142.0;

/// Two axes.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) x: Axis,
    pub(super) y: Axis,
}

impl Plane {
    pub(super) fn x(&self, value: f64) -> f64 {
        LEFT + self.x.position(value) * (RIGHT - LEFT)
    }

    pub(super) fn y(&self, value: f64) -> f64 {
        BOTTOM - self.y.position(value) * (BOTTOM - TOP)
    }

    /// Points for a polyline or a polygon.
    pub(super) fn points(&self, points: impl Iterator<Item = (f64, f64)>) -> String {
        let points: Vec<String> = points
            .map(|(x, y)| format!("{},{}", number::svg(self.x(x)), number::svg(self.y(y))))
            .collect();
        points.join(" ")
    }

    /// The chart: the ticks and what is drawn over them. `label` is HTML for those who cannot see it.
    pub(super) fn svg(&self, label: &str, name_of_x: &str, drawn: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">{}{drawn}</svg>",
            self.frame(name_of_x)
        )
    }

    fn frame(&self, name_of_x: &str) -> String {
        let rows = self.y.ticks.iter().map(|tick| {
            let y = number::svg(self.y(*tick));
            let text = number::short(*tick);
            let x = LEFT - 7.0;
            format!(
                "<line class=\"tick\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text x=\"{x}\" y=\"{y}\" dy=\"3.5\" text-anchor=\"end\">{text}</text>"
            )
        });
        let columns = self.x.ticks.iter().map(|tick| {
            let (x, text) = (number::svg(self.x(*tick)), number::plain(*tick));
            let y = BOTTOM + 15.0;
            format!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>")
        });
        let (middle, bottom) = ((LEFT + RIGHT) / 2.0, HEIGHT - 3.0);
        rows.chain(columns).collect::<String>()
            + &format!(
                "<text x=\"{middle}\" y=\"{bottom}\" text-anchor=\"middle\">{name_of_x}</text>"
            )
    }
}
