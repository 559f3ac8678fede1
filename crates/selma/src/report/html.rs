//! The page: a frame of head, navigation and sections. A new part of the report is one more entry in [`sections`].

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{
    ModelKind, ModelRow, Report,
    chart::{self, Panel, Row},
    curve, escape, number, pictures, preferences, sections, table,
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Between what scores lie, in percent.
const SCORES: (f64, f64) = (0.0, 100.0);

/// A part of the page with a heading.
struct Section {
    id: &'static str,
    title: &'static str,
    /// HTML.
    introduction: String,
    /// HTML.
    body: String,
}

pub(super) fn page(report: &Report) -> String {
    let sections = sections(report);
    let links: String = sections
        .iter()
        .map(|Section { id, title, .. }| format!("<a href=\"#{id}\">{title}</a>"))
        .collect();
    let bodies: String = sections.iter().map(section).collect();
    let title = escape::html(&report.title);
    let summary = if report.summary.is_empty() {
        String::new()
    } else {
        format!("<p class=\"summary\">{}</p>", escape::html(&report.summary))
    };
    // The browser itself refuses the network, and any script but ours.
    let hash = STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
    let policy = format!(
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hash}'"
    );
    let tiles = sections::tiles(report);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<header class=\"top\"><p class=\"eyebrow\">SELMA report</p><h1>{title}</h1>{summary}{tiles}\
         <nav aria-label=\"Sections\">{links}</nav></header>\n<main>\n{bodies}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )
}

fn section(section: &Section) -> String {
    let Section {
        id,
        title,
        introduction,
        body,
    } = section;
    format!(
        "<section id=\"{id}\"><h2>{title}</h2><p class=\"introduction\">{introduction}</p>\n{body}</section>\n"
    )
}

/// The sections that have something to show, in the order of the page.
fn sections(report: &Report) -> Vec<Section> {
    let level = table::level(report);
    let mut sections = Vec::new();
    let mut add = |present: bool, id, title, introduction: String, body: fn(&Report) -> String| {
        if present {
            let body = body(report);
            sections.push(Section {
                id,
                title,
                introduction,
                body,
            });
        }
    };
    let measured = !report.models.is_empty();
    add(
        measured,
        "scores",
        "Scores",
        format!(
            "Faithfulness in percent, with the {level} interval over prompts below each figure. \
             <span class=\"star\">*</span> marks the best of a column. Differences are paired by prompt; those in bold \
             have an interval clear of zero."
        ),
        sections::scores,
    );
    add(
        measured,
        "categories",
        "By category and skill",
        format!(
            "Means with their {level} intervals. The dashed line is the base model. Charts beside one another have the same \
             scale but not the same origin. Intervals of two models may overlap although their paired difference is clear."
        ),
        charts,
    );
    add(
        preferences::any(report),
        "preferences",
        "Preferences",
        format!(
            "What scorers say of the same pictures, each on its own scale, with {level} intervals. More is better; \
             differences are paired by prompt."
        ),
        preferences::html,
    );
    add(
        !report.curves.is_empty(),
        "guidance",
        "Guidance",
        "Score of each model by the guidance of its pictures. The ring is the guidance that was chosen for it, the \
         dashed line the base model."
            .to_owned(),
        |report| format!("<div class=\"curves\">{}</div>", curve::curves(report)),
    );
    add(
        !report.samples.is_empty(),
        "pictures",
        "Pictures",
        "What each model drew, with the percentage of questions answered as the prompt demands. Choose a picture to see \
         the questions."
            .to_owned(),
        pictures::pictures,
    );
    add(
        !report.funnel.is_empty(),
        "data",
        "Data",
        "From the language model's answers to the training pictures: prompts read from its answers, and those that the \
         diversity filter kept."
            .to_owned(),
        sections::funnel,
    );
    add(
        !report.notes.is_empty(),
        "notes",
        "Notes",
        String::new(),
        sections::notes,
    );
    add(
        !report.settings.is_empty(),
        "settings",
        "Settings",
        "What made these figures.".to_owned(),
        sections::settings,
    );
    sections
}

fn charts(report: &Report) -> String {
    let columns = table::columns(&report.models);
    let panels = |group| -> Vec<Panel> {
        let columns = columns.iter().filter(|column| column.group == group);
        columns.map(|column| score_panel(report, column)).collect()
    };
    let mut top = panels(table::Group::Overall);
    let categories = panels(table::Group::Category);
    let skills = panels(table::Group::Skill);
    let mut html = legend(report);
    for panel in &mut top {
        "Overall".clone_into(&mut panel.title);
    }
    let overall = chart::panels(&top, SCORES, "%");
    let differences = difference_panel(report).map_or_else(String::new, |panel| {
        chart::panels(&[panel], (-100.0, 100.0), "pts")
    });
    html.push_str(&format!("<div class=\"pair\">{overall}{differences}</div>"));
    for (title, panels) in [("Categories of questions", categories), ("Skills", skills)] {
        if !panels.is_empty() {
            let panels = chart::panels(&panels, SCORES, "%");
            html.push_str(&format!("<h3>{title}</h3>{panels}"));
        }
    }
    html
}

fn score_panel(report: &Report, column: &table::Column<'_>) -> Panel {
    let rows = report.models.iter().zip(&column.cells);
    let rows = rows.filter_map(|(model, cell)| {
        let estimate = cell.estimate?;
        Some(Row {
            label: model.name.clone(),
            kind: model.kind,
            mean: estimate.mean * 100.0,
            low: estimate.low * 100.0,
            high: estimate.high * 100.0,
            value: number::percent(estimate.mean),
            best: cell.best,
        })
    });
    let base = report.models.iter().zip(&column.cells);
    let base = base
        .filter(|(model, _)| model.kind == ModelKind::Base)
        .find_map(|(_, cell)| cell.estimate);
    Panel {
        title: column.name.to_owned(),
        rows: rows.collect(),
        reference: base.map(|e| e.mean * 100.0).filter(|mean| mean.is_finite()),
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
    let kinds = [
        (ModelKind::Base, "base"),
        (ModelKind::Expert, "expert: one skill"),
        (ModelKind::Union, "union: one LoRA on all data"),
        (ModelKind::Merged, "merged experts"),
        (ModelKind::Other, "other"),
    ];
    let present = kinds
        .into_iter()
        .filter(|(kind, _)| report.models.iter().any(|model| model.kind == *kind));
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
