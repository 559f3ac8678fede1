//! The section of charts by category and skill.

use std::collections::BTreeSet;

use super::{
    Metric, ModelKind, ModelRow, Report, Unit,
    chart::{self, Panel, Row},
    escape, metrics, sections, table,
};

/// Whether there is anything to draw.
pub(super) fn present(report: &Report) -> bool {
    let mut rows = report.metrics.iter().flat_map(|metric| &metric.rows);
    !report.models.is_empty() || rows.any(|row| !row.by_category.is_empty())
}

/// Faithfulness overall, by category and by skill; then the categories of each further metric.
pub(super) fn charts(report: &Report) -> String {
    let measured = !report.models.is_empty();
    let mut html = legend(report);
    if measured {
        html.push_str(&faithfulness(report));
    }
    // The first metric is that of these panels, if there are any.
    let further = report.metrics.iter().skip(usize::from(measured));
    html.extend(further.map(|metric| metric_panels(report, metric)));
    html
}

fn faithfulness(report: &Report) -> String {
    let models = metrics::models(report);
    let columns = table::columns(&report.models);
    let panels = |group| -> Vec<Panel> {
        let columns = columns.iter().filter(|column| column.group == group);
        columns
            .map(|column| panel(&models, column, Unit::Share))
            .collect()
    };
    let mut top = panels(table::Group::Overall);
    for panel in &mut top {
        "Overall".clone_into(&mut panel.title);
    }
    let share = |panels: &[Panel]| chart::panels(panels, Unit::Share.bounds(), Unit::Share.sign());
    let overall = share(&top);
    let differences = difference_panel(report).map_or_else(String::new, |panel| {
        chart::panels(&[panel], (-100.0, 100.0), "pts")
    });
    let mut html = format!("<div class=\"pair\">{overall}{differences}</div>");
    for (title, group) in [
        ("Categories of questions", table::Group::Category),
        ("Skills", table::Group::Skill),
    ] {
        let panels = panels(group);
        if !panels.is_empty() {
            html.push_str(&format!("<h3>{title}</h3>{}", share(&panels)));
        }
    }
    html
}

/// Panels of one metric's categories.
fn metric_panels(report: &Report, metric: &Metric) -> String {
    let models = metrics::models(report);
    let names = metric.rows.iter().flat_map(|row| row.by_category.keys());
    let names: BTreeSet<&String> = names.collect();
    let panels: Vec<Panel> = names
        .into_iter()
        .map(|name| {
            let estimate =
                |(model, _): &(&str, ModelKind)| metric.row(model)?.by_category.get(name);
            let estimates: Vec<_> = models.iter().map(estimate).collect();
            let column = table::column(table::Group::Category, name, &estimates);
            panel(&models, &column, metric.unit)
        })
        .collect();
    if panels.is_empty() {
        return String::new();
    }
    let panels = chart::panels(&panels, metric.unit.bounds(), metric.unit.sign());
    format!("<h3>{}</h3>{panels}", escape::html(&metric.title()))
}

fn panel(models: &[(&str, ModelKind)], column: &table::Column<'_>, unit: Unit) -> Panel {
    let cells = || models.iter().zip(&column.cells);
    let rows = cells().filter_map(|((model, kind), cell)| {
        let estimate = cell.estimate?;
        Some(Row {
            label: (*model).to_owned(),
            kind: *kind,
            mean: estimate.mean * unit.factor(),
            low: estimate.low * unit.factor(),
            high: estimate.high * unit.factor(),
            value: unit.score(estimate.mean, estimate.mean),
            best: cell.best,
        })
    });
    let base = cells()
        .filter(|((_, kind), _)| *kind == ModelKind::Base)
        .find_map(|(_, cell)| cell.estimate);
    Panel {
        title: column.name.to_owned(),
        rows: rows.collect(),
        reference: base
            .map(|e| e.mean * unit.factor())
            .filter(|mean| mean.is_finite()),
    }
}

fn difference_panel(report: &Report) -> Option<Panel> {
    let rows: Vec<Row> = report.models.iter().filter_map(difference_row).collect();
    (!rows.is_empty()).then(|| Panel {
        title: "Difference to base, paired by prompt".to_owned(),
        rows,
        reference: Some(0.0),
    })
}

fn difference_row(model: &ModelRow) -> Option<Row> {
    let paired = model.difference_to_base?;
    Some(Row {
        label: model.name.clone(),
        kind: model.kind,
        mean: paired.difference * 100.0,
        low: paired.low * 100.0,
        high: paired.high * 100.0,
        value: sections::signed(paired.difference),
        best: paired.low > 0.0,
    })
}

fn legend(report: &Report) -> String {
    let models = metrics::models(report);
    let kinds = [
        (ModelKind::Base, "base"),
        (ModelKind::Expert, "expert: one skill"),
        (ModelKind::Union, "union: one LoRA on all data"),
        (ModelKind::Merged, "merged experts"),
        (ModelKind::Other, "other models"),
    ];
    let present = kinds
        .into_iter()
        .filter(|(kind, _)| models.iter().any(|(_, of)| of == kind));
    let entries: String = present
        .map(|(kind, text)| {
            format!(
                "<span class=\"kind-{}\"><svg viewBox=\"-8 -8 16 16\" width=\"16\" height=\"16\" aria-hidden=\"true\">\
                 <path class=\"mark\" d=\"{}\"/></svg>{text}</span>",
                kind.name(),
                chart::shape(kind)
            )
        })
        .collect();
    format!("<p class=\"legend\">{entries}</p>")
}
