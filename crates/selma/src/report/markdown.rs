//! The report as Markdown.

use super::{Report, escape, number, preferences, sections, table};

pub(super) fn document(report: &Report) -> String {
    let mut parts = vec![format!("# {}", escape::markdown(&report.title))];
    if !report.summary.is_empty() {
        parts.push(escape::markdown(&report.summary));
    }
    parts.extend(sections::verdict(report).map(|verdict| escape::markdown(&verdict.sentence)));
    if !report.models.is_empty() {
        parts.push("## Faithfulness".to_owned());
        parts.push(scores(report));
        if let Some(skills) = skills(report) {
            parts.push("By skill:".to_owned());
            parts.push(skills);
        }
        parts.push(format!(
            "Percent, with the {} interval over prompts. Bold: best of its column.",
            table::level(report)
        ));
    }
    if preferences::any(report) {
        parts.push("## Preferences".to_owned());
        parts.push(preferences::document(report));
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

/// Overall and by category.
fn scores(report: &Report) -> String {
    let differences = report.models.iter().map(|model| {
        let difference = model.difference_to_base.as_ref();
        difference.map_or_else(String::new, |paired| {
            escape::markdown(&number::difference(paired))
        })
    });
    let guidance = report.models.iter().map(|m| number::plain(m.guidance));
    let columns = table::columns(&report.models);
    let mut all = vec![("guidance".to_owned(), guidance.collect())];
    all.extend(score_columns(&columns, table::Group::Overall));
    all.push(("vs base".to_owned(), differences.collect()));
    all.extend(score_columns(&columns, table::Group::Category));
    by_model(report, &all)
}

/// By skill; `None` without skills.
fn skills(report: &Report) -> Option<String> {
    let columns = table::columns(&report.models);
    let skills = score_columns(&columns, table::Group::Skill);
    (!skills.is_empty()).then(|| by_model(report, &skills))
}

/// A name and one cell for each model.
type MarkdownColumn = (String, Vec<String>);

fn score_columns(columns: &[table::Column<'_>], group: table::Group) -> Vec<MarkdownColumn> {
    let of_group = columns.iter().filter(|column| column.group == group);
    let column = |column: &table::Column<'_>| {
        let cells = column.cells.iter().map(|cell| score(*cell)).collect();
        (escape::markdown(column.name), cells)
    };
    of_group.map(column).collect()
}

fn by_model(report: &Report, columns: &[MarkdownColumn]) -> String {
    let head: Vec<String> = std::iter::once("model".to_owned())
        .chain(columns.iter().map(|(name, _)| name.clone()))
        .collect();
    let rows = report.models.iter().enumerate().map(|(index, model)| {
        let cells = columns
            .iter()
            .map(|(_, cells)| cells.get(index).cloned().unwrap_or_default());
        std::iter::once(escape::markdown(&model.name))
            .chain(cells)
            .collect()
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

/// A table with names in the first column and figures in the others.
pub(super) fn rows_of(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    // Figures to the right, names to the left.
    let rule: Vec<String> = (0..head.len())
        .map(|index| if index == 0 { "---" } else { "---:" }.to_owned())
        .collect();
    let mut lines = vec![line(head), line(&rule)];
    lines.extend(rows.map(|row| line(&row)));
    lines.join("\n")
}
