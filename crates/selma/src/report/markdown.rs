//! The report as Markdown.

use super::{
    Report, distribution, escape, funnel, metrics, number, people, sections, table, training,
};

pub(super) fn document(report: &Report) -> String {
    let mut parts = vec![format!("# {}", escape::markdown(&report.title))];
    if !report.summary.is_empty() {
        parts.push(escape::markdown(&report.summary));
    }
    parts.extend(sections::verdict(report).map(|verdict| escape::markdown(&verdict.sentence)));
    if metrics::present(report) {
        parts.push("## Metrics".to_owned());
        parts.push(metrics::document(report));
    }
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
    if distribution::present(report).next().is_some() {
        parts.push("## Spread over prompts".to_owned());
        parts.push(quartiles(report));
    }
    if !report.curves.is_empty() {
        parts.push("## Guidance".to_owned());
        parts.push(curves(report));
    }
    if !report.ratings.is_empty() {
        parts.push("## People".to_owned());
        parts.push(people::document(report));
    }
    if funnel::present(report) {
        parts.push("## Data".to_owned());
        parts.push(funnel::document(report));
    }
    if !report.training.is_empty() {
        parts.push("## Training".to_owned());
        parts.push(trainings(report));
    }
    if !report.merges.is_empty() {
        parts.push("## Merges".to_owned());
        parts.push(merges(report));
    }
    if !report.notes.is_empty() {
        parts.push("## Notes".to_owned());
        let notes = report.notes.iter();
        let notes: Vec<String> = notes
            .map(|note| format!("- {}", escape::markdown(note)))
            .collect();
        parts.push(notes.join("\n"));
    }
    for (heading, name, values) in [
        ("## Settings", "setting", &report.settings),
        ("## Hashes", "SHA-256 of", &report.hashes),
    ] {
        if values.is_empty() {
            continue;
        }
        parts.push(heading.to_owned());
        let rows = values.iter();
        let rows = rows.map(|(name, value)| vec![escape::markdown(name), escape::markdown(value)]);
        parts.push(rows_of(&[name.to_owned(), "value".to_owned()], rows));
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
    let mut all = Vec::new();
    if table::guided(report) {
        all.push(("guidance".to_owned(), guidance.collect()));
    }
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

/// Median and quartiles of the prompts' scores.
fn quartiles(report: &Report) -> String {
    let head = ["model", "metric", "median", "half of the prompts"].map(str::to_owned);
    let rows = distribution::present(report).flat_map(|metric| {
        metric.rows.iter().filter_map(|row| {
            let [low, median, high] = row
                .quartiles()?
                .map(|value| metric.unit.score(value, row.overall.mean));
            Some(vec![
                escape::markdown(&row.model),
                escape::markdown(&metric.title()),
                median,
                format!("{low} to {high}"),
            ])
        })
    });
    rows_of(&head, rows)
}

fn trainings(report: &Report) -> String {
    let head = ["training", "first to last tenth", "steps", "settings"].map(str::to_owned);
    let rows = report.training.iter().map(|training| {
        vec![
            escape::markdown(&training.name),
            escape::markdown(&training::in_words(training)),
            training.steps.len().to_string(),
            escape::markdown(&training.detail),
        ]
    });
    rows_of(&head, rows)
}

fn merges(report: &Report) -> String {
    let head = [
        "merged",
        "method",
        "of",
        "layers",
        "rank",
        "norm",
        "cut off",
        "self-check",
    ];
    let rows = report.merges.iter().map(|merge| {
        vec![
            escape::markdown(&merge.name),
            escape::markdown(&merge.method),
            escape::markdown(&merge.of()),
            merge.layers.len().to_string(),
            merge.ranks(),
            number::short(merge.norm),
            number::short(merge.truncation_error),
            number::short(merge.self_check),
        ]
    });
    rows_of(&head.map(str::to_owned), rows)
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
