//! The page: a frame of head, navigation and sections. A new part of the report is one more entry in [`sections`].

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{
    Report, charts, curve, distribution, escape, funnel, merge, metrics, people, pictures,
    sections, table, training,
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

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
        metrics::present(report),
        "metrics",
        "Metrics",
        format!(
            "Every model by every metric, with the {level} interval over prompts below each figure; more is better. \
             <span class=\"star\">*</span> marks the best of a column. Differences are paired by prompt; those in bold \
             have an interval clear of zero."
        ),
        metrics::html,
    );
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
        charts::present(report),
        "categories",
        "By category and skill",
        format!(
            "Means with their {level} intervals. The dashed line is the base model. Charts beside one another have the same \
             scale but not the same origin. Intervals of two models may overlap although their paired difference is clear."
        ),
        charts::charts,
    );
    add(
        distribution::present(report).next().is_some(),
        "spread",
        "Spread over prompts",
        "How many prompts have which score. Below each histogram a line holds the middle half of the prompts, and a tick \
         their median, which stands to the right; the dashed outline is the base model."
            .to_owned(),
        distribution::distributions,
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
        !report.ratings.is_empty(),
        "people",
        "People",
        format!(
            "Which of two models' pictures fits the text better, as people see it. Ties count half in the win rate; intervals \
             ({level}) are over prompts. Win rates in bold have an interval clear of one half."
        ),
        people::html,
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
        funnel::present(report),
        "data",
        "Data",
        "From the language model's answers to the training pictures: prompts read from its answers, those that the \
         diversity filter kept, and what trainings chose of the pictures that were drawn."
            .to_owned(),
        funnel::html,
    );
    add(
        !report.training.is_empty(),
        "training",
        "Training",
        "The loss of each training by step. Of long ones a line shows means of several steps, and a band the middle half of \
         them. Below each name: the mean of the first tenth of the steps and of the last."
            .to_owned(),
        training::curves,
    );
    add(
        !report.merges.is_empty(),
        "merges",
        "Merges",
        "What each merge did. The norm is that of the whole update of the weights; the bars have that of each layer, on \
         one scale. Cut off is what a lower rank lost of it, the self-check how far a layer is from its formula."
            .to_owned(),
        merge::merges,
    );
    add(
        !report.notes.is_empty(),
        "notes",
        "Notes",
        String::new(),
        sections::notes,
    );
    add(
        !report.settings.is_empty() || !report.hashes.is_empty(),
        "settings",
        "Settings",
        "What made these figures.".to_owned(),
        sections::settings,
    );
    sections
}
