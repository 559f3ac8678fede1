//! The table of models and metrics.

use selma_eval::{Estimate, Paired};

use super::{
    Metric, ModelKind, Report, Unit, escape, markdown, number, sections,
    table::{self, Cell, Column, Group},
};

/// Whether there is more to compare than the one metric of the table of faithfulness.
pub(super) fn present(report: &Report) -> bool {
    report.metrics.len() > 1 || (report.models.is_empty() && !report.metrics.is_empty())
}

/// Every model with its kind, in the order of the tables.
pub(super) fn models(report: &Report) -> Vec<(&str, ModelKind)> {
    let mut models: Vec<(&str, ModelKind)> = (report.models.iter())
        .map(|model| (model.name.as_str(), model.kind))
        .collect();
    for row in report.metrics.iter().flat_map(|metric| &metric.rows) {
        if !models.iter().any(|(name, _)| *name == row.model) {
            models.push((&row.model, row.kind));
        }
    }
    models
}

/// One column for each metric, one cell for each of [`models`].
pub(super) fn columns<'a>(report: &'a Report) -> Vec<(&'a Metric, Column<'a>)> {
    let models = models(report);
    let column = |metric: &'a Metric| {
        let overall = |(name, _): &(&str, ModelKind)| metric.row(name).map(|row| &row.overall);
        let estimates: Vec<Option<&Estimate>> = models.iter().map(overall).collect();
        (
            metric,
            table::column(Group::Overall, &metric.name, &estimates),
        )
    };
    report.metrics.iter().map(column).collect()
}

fn compared(metric: &Metric) -> bool {
    let mut rows = metric.rows.iter();
    rows.any(|row| row.difference_to_base.is_some())
}

/// Mean, lower and upper end.
fn interval(unit: Unit, e: &Estimate) -> [String; 3] {
    [e.mean, e.low, e.high].map(|value| unit.score(value, e.mean))
}

/// Difference, lower and upper end, with the digits of the score that it is a difference of.
pub(super) fn difference(unit: Unit, d: &Paired, score: f64) -> [String; 3] {
    [d.difference, d.low, d.high].map(|value| unit.difference(value, score))
}

pub(super) fn html(report: &Report) -> String {
    let columns = columns(report);
    let heads: String = columns
        .iter()
        .map(|(metric, _)| {
            let span = if compared(metric) { 2 } else { 1 };
            let (name, detail) = (escape::html(&metric.name), escape::name(&metric.detail));
            format!("<th scope=\"colgroup\" colspan=\"{span}\" class=\"metric start\">{name}<small>{detail}</small></th>")
        })
        .collect();
    let names: String = columns
        .iter()
        .map(|(metric, _)| {
            let vs_base = if compared(metric) {
                "<th scope=\"col\">vs base</th>"
            } else {
                ""
            };
            let name = match metric.unit {
                Unit::Share => "percent",
                Unit::Plain => "mean",
            };
            format!("<th scope=\"col\" class=\"start\">{name}</th>{vs_base}")
        })
        .collect();
    let rows: String = models(report)
        .into_iter()
        .enumerate()
        .map(|(index, (name, kind))| {
            let cells: String = columns
                .iter()
                .map(|(metric, column)| cells(metric, column.cells.get(index), name))
                .collect();
            format!(
                "<tr class=\"kind-{}\"><th scope=\"row\"><span class=\"name\">{}</span></th>{cells}</tr>\n",
                kind.name(),
                escape::name(name)
            )
        })
        .collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Metrics\"><table class=\"scores metrics\"><thead><tr>\
         <th scope=\"col\" rowspan=\"2\">Model</th>{heads}</tr><tr>{names}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn cells(metric: &Metric, cell: Option<&Cell<'_>>, model: &str) -> String {
    let unit = metric.unit;
    let best = cell.is_some_and(|cell| cell.best);
    let class = if best { "start best" } else { "start" };
    let star = if best { sections::STAR } else { "" };
    let score = cell.and_then(|cell| cell.estimate).map_or_else(
        || format!("<td class=\"{class}\">\u{2013}</td>"),
        |e| {
            let [mean, low, high] = interval(unit, e);
            format!(
                "<td class=\"{class}\" title=\"{} prompts\"><span class=\"mean\">{mean}{star}</span><small>{low}\u{2013}{high}</small></td>",
                number::count(e.clusters)
            )
        },
    );
    if !compared(metric) {
        return score;
    }
    let paired = metric
        .row(model)
        .and_then(|row| Some((row.difference_to_base?, row.overall)));
    let difference = paired.map_or_else(
        || "<td>\u{2013}</td>".to_owned(),
        |(d, overall)| sections::change(&difference(unit, &d, overall.mean), &d),
    );
    score + &difference
}

pub(super) fn document(report: &Report) -> String {
    let columns = columns(report);
    let mut head = vec!["model".to_owned()];
    for (metric, _) in &columns {
        head.push(escape::markdown(&metric.title()));
        if compared(metric) {
            head.push("vs base".to_owned());
        }
    }
    let rows = models(report).into_iter().enumerate();
    let rows = rows.map(|(index, (name, _))| {
        let mut cells = vec![escape::markdown(name)];
        for (metric, column) in &columns {
            let cell = column.cells.get(index);
            cells.push(score(metric.unit, cell));
            if compared(metric) {
                cells.push(metric.row(name).map_or_else(String::new, |row| {
                    let d = row.difference_to_base.as_ref();
                    d.map_or_else(String::new, |d| {
                        let [mean, low, high] = difference(metric.unit, d, row.overall.mean);
                        let p = escape::markdown(&number::p_value(d.p));
                        format!("{mean} ({low} to {high}, {p})")
                    })
                }));
            }
        }
        cells
    });
    markdown::rows_of(&head, rows)
}

fn score(unit: Unit, cell: Option<&Cell<'_>>) -> String {
    let Some((estimate, best)) = cell.and_then(|cell| Some((cell.estimate?, cell.best))) else {
        return "-".to_owned();
    };
    let [mean, low, high] = interval(unit, estimate);
    match best {
        true => format!("**{mean}** ({low} to {high})"),
        false => format!("{mean} ({low} to {high})"),
    }
}

/// The cells of one metric for the terminal: score and interval of each model.
pub(super) fn lines(report: &Report, metric: &Metric, column: &Column<'_>) -> Vec<[String; 2]> {
    let cells = models(report).len();
    (0..cells)
        .map(|index| {
            let cell = column.cells.get(index);
            let Some(estimate) = cell.and_then(|cell| cell.estimate) else {
                return ["-".to_owned(), String::new()];
            };
            let [mean, low, high] = interval(metric.unit, estimate);
            let mark = if cell.is_some_and(|cell| cell.best) {
                "*"
            } else {
                ""
            };
            [format!("{mark}{mean}"), format!("{low}..{high}")]
        })
        .collect()
}
