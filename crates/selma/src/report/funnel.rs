//! What became of the language model's answers, and of the pictures that were drawn.

use super::{Report, escape, markdown, number};

/// What became of the language model's answers for one skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelRow {
    /// The skill.
    pub skill: String,
    /// Requests to the language model.
    pub requests: usize,
    /// Prompts read from its answers.
    pub parsed: usize,
    /// Prompts that the diversity filter kept.
    pub kept: usize,
    /// Pictures drawn from these.
    pub images: usize,
    /// Why prompts were not kept, and how many.
    pub rejected: Vec<(String, usize)>,
}

/// What a training that chooses among a skill's pictures took of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectionRow {
    /// The training.
    pub training: String,
    /// The skill.
    pub skill: String,
    /// Pictures that were drawn.
    pub drawn: usize,
    /// Those that the judge found good enough; all, where a training asks for no least score.
    pub passed: usize,
    /// Those of them that are trained on.
    pub used: usize,
}

/// Whether there is anything to show.
pub(super) fn present(report: &Report) -> bool {
    !report.funnel.is_empty() || !report.selected.is_empty()
}

pub(super) fn html(report: &Report) -> String {
    let mut html = String::new();
    if !report.funnel.is_empty() {
        html.push_str(&prompts(report));
    }
    if !report.selected.is_empty() {
        html.push_str("<h3>Pictures that trainings chose</h3>");
        html.push_str(&pictures(report));
    }
    html
}

/// What became of the language model's answers, each step beside the share of prompts that reached it.
fn prompts(report: &Report) -> String {
    let most = report.funnel.iter().map(|row| row.parsed.max(row.kept));
    let most = most.max().unwrap_or(0);
    let row = |row: &FunnelRow| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}%</td>{}\
             <td>{}</td><td class=\"text\"><small>{}</small></td></tr>\n",
            escape::name(&row.skill),
            number::count(row.requests),
            number::count(row.parsed),
            number::count(row.kept),
            number::percent(share(row.kept, row.parsed)),
            bar(row.parsed, row.kept, most),
            number::count(row.images),
            escape::html(&reasons(row)),
        )
    };
    let rows: String = report.funnel.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Data\"><table class=\"funnel\"><thead><tr>\
         <th scope=\"col\">Skill</th><th scope=\"col\">Requests</th><th scope=\"col\">Prompts read</th>\
         <th scope=\"col\">Kept</th><th scope=\"col\">Share kept</th><th scope=\"col\" class=\"bar-head\">Read and kept</th>\
         <th scope=\"col\">Pictures</th><th scope=\"col\" class=\"text\">Not kept because</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// What was chosen of the pictures.
fn pictures(report: &Report) -> String {
    let most = report.selected.iter().map(|row| row.drawn).max();
    let most = most.unwrap_or(0);
    let row = |row: &SelectionRow| {
        format!(
            "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}%</td>{}</tr>\n",
            escape::name(&row.training),
            escape::name(&row.skill),
            number::count(row.drawn),
            number::count(row.passed),
            number::count(row.used),
            number::percent(share(row.used, row.drawn)),
            bar(row.drawn, row.used, most),
        )
    };
    let rows: String = report.selected.iter().map(row).collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Chosen pictures\"><table class=\"funnel\"><thead><tr>\
         <th scope=\"col\">Training</th><th scope=\"col\" class=\"text\">Skill</th><th scope=\"col\">Drawn</th>\
         <th scope=\"col\">Good enough</th><th scope=\"col\">Trained on</th><th scope=\"col\">Share</th>\
         <th scope=\"col\" class=\"bar-head\">Drawn and trained on</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// A bar of a whole with a part of it, as wide as their share of the most.
fn bar(whole: usize, part: usize, most: usize) -> String {
    let width = |count| number::svg(share(count, most).min(1.0) * 100.0);
    format!(
        "<td class=\"bar\"><span class=\"read\" style=\"width:{}%\"></span><span class=\"kept\" style=\"width:{}%\"></span></td>",
        width(whole),
        width(part)
    )
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// "similar 90, too long 12": why prompts were not kept, the most frequent first.
fn reasons(row: &FunnelRow) -> String {
    let mut reasons: Vec<&(String, usize)> = row
        .rejected
        .iter()
        .filter(|(_, count)| *count > 0)
        .collect();
    reasons.sort_by(|(_, a), (_, b)| b.cmp(a));
    let reasons = reasons
        .into_iter()
        .map(|(reason, count)| format!("{} {count}", reason.replace('_', " ")));
    reasons.collect::<Vec<String>>().join(", ")
}

/// The same in Markdown.
pub(super) fn document(report: &Report) -> String {
    let mut parts = Vec::new();
    if !report.funnel.is_empty() {
        let head = ["skill", "requests", "parsed", "kept", "images", "not kept"].map(str::to_owned);
        let rows = report.funnel.iter().map(|row| {
            let counts = [row.requests, row.parsed, row.kept, row.images];
            std::iter::once(escape::markdown(&row.skill))
                .chain(counts.iter().map(usize::to_string))
                .chain([escape::markdown(&reasons(row))])
                .collect()
        });
        parts.push(markdown::rows_of(&head, rows));
    }
    if !report.selected.is_empty() {
        parts.push("Pictures that trainings chose:".to_owned());
        let head = ["training", "skill", "drawn", "good enough", "trained on"].map(str::to_owned);
        let rows = report.selected.iter().map(|row| {
            let counts = [row.drawn, row.passed, row.used];
            let names = [&row.training, &row.skill].map(|name| escape::markdown(name));
            let counts = counts.iter().map(usize::to_string);
            names.into_iter().chain(counts).collect()
        });
        parts.push(markdown::rows_of(&head, rows));
    }
    parts.join("\n\n")
}
