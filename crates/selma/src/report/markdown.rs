//! The report as Markdown.

use super::{Report, escape, number, sections, table};

pub(super) fn document(report: &Report) -> String {
    let mut parts = vec![format!("# {}", escape::markdown(&report.title))];
    if !report.summary.is_empty() {
        parts.push(escape::markdown(&report.summary));
    }
    parts.extend(sections::verdict(report).map(|verdict| escape::markdown(&verdict.sentence)));
    if !report.models.is_empty() {
        parts.push("## Faithfulness".to_owned());
        parts.push(scores(report));
        parts.push(format!(
            "Percent, with the {} interval over prompts. Bold: best of its column.",
            table::level(report)
        ));
    }
    if !report.curves.is_empty() {
        parts.push("## Guidance".to_owned());
        parts.push(curves(report));
    }
    if !report.funnel.is_empty() {
        parts.push("## Data".to_owned());
        parts.push(funnel(report));
    }
    if !report.notes.is_empty() {
        parts.push("## Notes".to_owned());
        let notes = report.notes.iter();
        let notes: Vec<String> = notes
            .map(|note| format!("- {}", escape::markdown(note)))
            .collect();
        parts.push(notes.join("\n"));
    }
    if !report.settings.is_empty() {
        parts.push("## Settings".to_owned());
        let rows = report.settings.iter();
        let rows = rows.map(|(name, value)| vec![escape::markdown(name), escape::markdown(value)]);
        parts.push(rows_of(&["setting".to_owned(), "value".to_owned()], rows));
    }
    parts.push(String::new());
    parts.join("\n\n").trim_end().to_owned() + "\n"
}

fn scores(report: &Report) -> String {
    let columns = table::columns(&report.models);
    let mut head = vec!["model".to_owned(), "guidance".to_owned()];
    head.extend(columns.iter().map(|column| escape::markdown(column.name)));
    head.push("vs base".to_owned());
    let rows = report.models.iter().enumerate().map(|(index, model)| {
        let mut row = vec![escape::markdown(&model.name), number::plain(model.guidance)];
        row.extend(columns.iter().map(|column| {
            let cell = column.cells.get(index);
            cell.map_or_else(String::new, |cell| score(*cell))
        }));
        row.push(model.difference_to_base.map_or_else(String::new, |paired| {
            format!(
                "{} ({} to {}, {})",
                number::points(paired.difference),
                number::points(paired.low),
                number::points(paired.high),
                escape::markdown(&number::p_value(paired.p))
            )
        }));
        row
    });
    rows_of(&head, rows)
}

fn score(cell: table::Cell<'_>) -> String {
    let Some(estimate) = cell.estimate else {
        return "-".to_owned();
    };
    let mean = number::percent(estimate.mean);
    let mean = if cell.best {
        format!("**{mean}**")
    } else {
        mean
    };
    format!(
        "{mean} ({} to {})",
        number::percent(estimate.low),
        number::percent(estimate.high)
    )
}

fn curves(report: &Report) -> String {
    let head = ["model", "score by guidance", "chosen"].map(str::to_owned);
    let rows = report.curves.iter().map(|curve| {
        let points: Vec<String> = curve
            .points
            .iter()
            .map(|(guidance, estimate)| {
                format!(
                    "{}: {}",
                    number::plain(*guidance),
                    number::percent(estimate.mean)
                )
            })
            .collect();
        vec![
            escape::markdown(&curve.model),
            points.join(", "),
            curve.chosen.map_or_else(String::new, number::plain),
        ]
    });
    rows_of(&head, rows)
}

fn funnel(report: &Report) -> String {
    let head = ["skill", "requests", "parsed", "kept", "images"].map(str::to_owned);
    let rows = report.funnel.iter().map(|row| {
        let counts = [row.requests, row.parsed, row.kept, row.images];
        std::iter::once(escape::markdown(&row.skill))
            .chain(counts.iter().map(usize::to_string))
            .collect()
    });
    rows_of(&head, rows)
}

fn rows_of(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    // Figures to the right, names to the left.
    let rule: Vec<String> = (0..head.len())
        .map(|index| if index == 0 { "---" } else { "---:" }.to_owned())
        .collect();
    let mut lines = vec![line(head), line(&rule)];
    lines.extend(rows.map(|row| line(&row)));
    lines.join("\n")
}
