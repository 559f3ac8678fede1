//! The table of models and scores, and its form for the terminal.

use std::collections::BTreeSet;

use selma_eval::{Estimate, Paired};

use super::{ModelRow, Report, escape, number, preferences};

/// Means that differ by less than this are equal: they are sums of the same answers in another order.
const TIE: f64 = 1e-9;

/// Which part of the table a column belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Overall,
    Category,
    Skill,
}

/// One score of every model.
#[derive(Debug)]
pub(super) struct Column<'a> {
    pub(super) group: Group,
    pub(super) name: &'a str,
    /// One for each model, in the order of the models.
    pub(super) cells: Vec<Cell<'a>>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Cell<'a> {
    pub(super) estimate: Option<&'a Estimate>,
    /// No other model has a higher mean, and there is another one to compare with.
    pub(super) best: bool,
}

/// Overall, the categories, the skills. A category that some models lack is there all the same.
pub(super) fn columns(models: &[ModelRow]) -> Vec<Column<'_>> {
    let overall: Vec<_> = models.iter().map(|model| Some(&model.overall)).collect();
    let mut columns = vec![column(Group::Overall, "overall", &overall)];
    let categories: BTreeSet<&String> = models.iter().flat_map(|m| m.by_category.keys()).collect();
    for name in categories {
        let estimates: Vec<_> = models.iter().map(|m| m.by_category.get(name)).collect();
        columns.push(column(Group::Category, name, &estimates));
    }
    let skills: BTreeSet<&String> = models.iter().flat_map(|m| m.by_skill.keys()).collect();
    for name in skills {
        let estimates: Vec<_> = models.iter().map(|m| m.by_skill.get(name)).collect();
        columns.push(column(Group::Skill, name, &estimates));
    }
    columns
}

fn column<'a>(group: Group, name: &'a str, estimates: &[Option<&'a Estimate>]) -> Column<'a> {
    let means = || {
        estimates
            .iter()
            .flatten()
            .map(|estimate| estimate.mean)
            .filter(|mean| mean.is_finite())
    };
    let highest = means().max_by(f64::total_cmp);
    let comparable = means().count() > 1;
    let is_best = |estimate: &Estimate| {
        comparable && highest.is_some_and(|highest| estimate.mean >= highest - TIE)
    };
    let cells = estimates
        .iter()
        .map(|&estimate| Cell {
            estimate,
            best: estimate.is_some_and(is_best),
        })
        .collect();
    Column { group, name, cells }
}

/// The table for a terminal: one block with the categories, one with the skills.
pub(super) fn plain(report: &Report) -> String {
    if report.models.is_empty() {
        return "No model has been measured.\n".to_owned();
    }
    let columns = columns(&report.models);
    let mut first = block_head(report, "model");
    first.push(guidance_column(report));
    first.extend(score_columns(&columns, Group::Overall));
    first.extend(difference_column(report));
    first.extend(score_columns(&columns, Group::Category));
    let mut text = align(&first);
    let skills = score_columns(&columns, Group::Skill);
    if !skills.is_empty() {
        let mut second = block_head(report, "by skill");
        second.extend(skills);
        text.push('\n');
        text.push_str(&align(&second));
    }
    text.push_str(&format!(
        "\nFaithfulness in percent; below each figure its {} interval over prompts. * best of its column.\n",
        level(report)
    ));
    text.push_str(&preferences::plain(report));
    text
}

/// "95%".
pub(super) fn level(report: &Report) -> String {
    format!("{}%", number::plain(report.confidence * 100.0))
}

/// A column of the terminal's table: its name, then two lines for each model.
type TextColumn = Vec<String>;

fn block_head(report: &Report, name: &str) -> Vec<TextColumn> {
    let names = report.models.iter().map(|m| escape::one_line(&m.name));
    vec![text_column(name, names.map(|name| [name, String::new()]))]
}

fn guidance_column(report: &Report) -> TextColumn {
    let guidance = report.models.iter().map(|m| number::plain(m.guidance));
    text_column("guidance", guidance.map(|g| [g, String::new()]))
}

fn score_columns(columns: &[Column<'_>], group: Group) -> Vec<TextColumn> {
    let of_group = columns.iter().filter(|column| column.group == group);
    of_group
        .map(|column| text_column(column.name, column.cells.iter().map(score_lines)))
        .collect()
}

fn score_lines(cell: &Cell<'_>) -> [String; 2] {
    let Some(estimate) = cell.estimate else {
        return ["-".to_owned(), String::new()];
    };
    let mark = if cell.best { "*" } else { "" };
    [
        format!("{mark}{}", number::percent(estimate.mean)),
        interval(number::percent, estimate.low, estimate.high),
    ]
}

fn difference_column(report: &Report) -> Option<TextColumn> {
    let any = report.models.iter().any(|m| m.difference_to_base.is_some());
    let lines = |paired: &Paired| {
        [
            number::points(paired.difference),
            interval(number::points, paired.low, paired.high),
        ]
    };
    any.then(|| {
        let cells = report.models.iter().map(|model| {
            model
                .difference_to_base
                .as_ref()
                .map_or_else(Default::default, lines)
        });
        text_column("vs base", cells)
    })
}

fn interval(write: fn(f64) -> String, low: f64, high: f64) -> String {
    format!("{}..{}", write(low), write(high))
}

fn text_column(name: &str, cells: impl Iterator<Item = [String; 2]>) -> TextColumn {
    std::iter::once(escape::one_line(name))
        .chain(cells.flatten())
        .collect()
}

/// Columns side by side, the first to the left and the others to the right, a rule below their names.
pub(super) fn align(columns: &[TextColumn]) -> String {
    let widths: Vec<usize> = columns
        .iter()
        .map(|column| column.iter().map(|c| c.chars().count()).max().unwrap_or(0))
        .collect();
    let height = columns.first().map_or(0, Vec::len);
    let mut text = String::new();
    for row in 0..height {
        let cells = columns.iter().zip(&widths).enumerate();
        let line: Vec<String> = cells
            .map(|(index, (column, &width))| {
                let cell = column.get(row).map_or("", String::as_str);
                if index == 0 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            })
            .collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
        if row == 0 {
            let rule: usize = widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
            text.push_str(&"-".repeat(rule));
            text.push('\n');
        }
    }
    text
}
