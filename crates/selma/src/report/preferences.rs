//! What scorers such as PickScore say of the models' pictures.

use selma_eval::{Estimate, Paired};

use super::{ModelRow, Report, escape, markdown, number, table};

/// A scorer's opinion of one model's pictures, on the scorer's own scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Preference {
    /// Name of the scorer.
    pub scorer: String,
    /// Mean over the pictures.
    pub mean: Estimate,
    /// This model's mean minus the base's, paired by prompt; `None` for the base itself.
    pub difference_to_base: Option<Paired>,
}

/// Whether any model was scored.
pub(super) fn any(report: &Report) -> bool {
    report.models.iter().any(|m| !m.preferences.is_empty())
}

/// The scorers' names, in order.
fn scorers(report: &Report) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for preference in report.models.iter().flat_map(|model| &model.preferences) {
        if !names.contains(&preference.scorer.as_str()) {
            names.push(&preference.scorer);
        }
    }
    names
}

fn of<'a>(model: &'a ModelRow, scorer: &str) -> Option<&'a Preference> {
    let mut preferences = model.preferences.iter();
    preferences.find(|preference| preference.scorer == scorer)
}

/// "20.8012 (20.7011 to 20.9001)".
fn mean(estimate: &Estimate) -> String {
    let [mean, low, high] = [estimate.mean, estimate.low, estimate.high].map(number::score);
    format!("{mean} ({low} to {high})")
}

/// "+0.2100 (+0.1000 to +0.3200, p = 0.012)".
fn difference(paired: &Paired) -> String {
    let figures = [paired.difference, paired.low, paired.high];
    let [difference, low, high] = figures.map(number::signed_score);
    let p = number::p_value(paired.p);
    format!("{difference} ({low} to {high}, {p})")
}

/// Head and rows: for each scorer a mean and a difference to the base.
fn cells(report: &Report) -> (Vec<String>, Vec<Vec<String>>) {
    let scorers = scorers(report);
    let mut head = vec!["model".to_owned()];
    for scorer in &scorers {
        head.extend([(*scorer).to_owned(), "vs base".to_owned()]);
    }
    let row = |model: &ModelRow| {
        let mut row = vec![model.name.clone()];
        for scorer in &scorers {
            let found = of(model, scorer);
            let paired = found.and_then(|found| found.difference_to_base.as_ref());
            row.push(found.map_or_else(|| "-".to_owned(), |found| mean(&found.mean)));
            row.push(paired.map_or_else(String::new, difference));
        }
        row
    };
    (head, report.models.iter().map(row).collect())
}

/// The table for the terminal; empty without scorers.
pub(super) fn plain(report: &Report) -> String {
    if !any(report) {
        return String::new();
    }
    let (head, rows) = cells(report);
    let columns: Vec<Vec<String>> = head
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let cells = rows.iter().filter_map(|row| row.get(index));
            let cells = std::iter::once(name).chain(cells);
            cells.map(|cell| escape::one_line(cell)).collect()
        })
        .collect();
    format!("\n{}", table::align(&columns))
}

/// The table in Markdown.
pub(super) fn document(report: &Report) -> String {
    let (head, rows) = cells(report);
    let escaped = |cells: &[String]| -> Vec<String> {
        cells.iter().map(|cell| escape::markdown(cell)).collect()
    };
    markdown::rows_of(&escaped(&head), rows.iter().map(|row| escaped(row)))
}

/// The table of the page.
pub(super) fn html(report: &Report) -> String {
    let (head, rows) = cells(report);
    let head: String = head
        .iter()
        .map(|name| format!("<th scope=\"col\">{}</th>", escape::html(name)))
        .collect();
    let row = |row: &Vec<String>| {
        let mut cells = row.iter();
        let name = cells.next().map_or("", String::as_str);
        let cells: String = cells
            .map(|cell| format!("<td>{}</td>", escape::html(cell)))
            .collect();
        format!(
            "<tr><th scope=\"row\"><span class=\"name\">{}</span></th>{cells}</tr>\n",
            escape::name(name)
        )
    };
    let rows: String = rows.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Preferences\"><table class=\"scores\"><thead><tr>{head}\
         </tr></thead><tbody>{rows}</tbody></table></div>"
    )
}
