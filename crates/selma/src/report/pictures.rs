//! The grid of prompts and models with the pictures, and the data of the window that shows one of them.

use std::collections::BTreeSet;

use selma_durable::script_json;
use serde::Serialize;

use super::{
    Metric, ModelKind, Report, SampleImage, SampleRow, Unit, escape, number,
    thumbnail::{Thumbnail, thumbnails},
};

/// Up to this number of models, a prompt and its pictures stand in one row on a wide screen.
const ONE_ROW: usize = 11;

/// What the script needs to know beyond what the page shows.
#[derive(Serialize)]
struct Data<'a> {
    models: Vec<&'a str>,
    /// Title of each metric, and whether it is a share.
    metrics: Vec<(String, bool)>,
    /// By sample, the questions asked about it; by picture, its answers.
    samples: Vec<SampleData<'a>>,
}

#[derive(Serialize)]
struct SampleData<'a> {
    questions: Vec<&'a str>,
    /// By question, what it is about.
    categories: Vec<&'a str>,
    /// By metric and model, the score of the prompt.
    values: Vec<Vec<Option<f64>>>,
    /// By picture in the order of the page: number of the question, answer, whether it is right.
    answers: Vec<Vec<(usize, Option<&'a str>, bool)>>,
}

/// The section's content; empty without samples.
pub(super) fn pictures(report: &Report) -> String {
    if report.samples.is_empty() {
        return String::new();
    }
    let models = columns(report);
    let pngs: Vec<&[u8]> = (report.samples.iter())
        .flat_map(|sample| in_order(sample, &models))
        .map(|(_, image)| image.png.as_slice())
        .collect();
    let mut thumbnails = thumbnails(&pngs).into_iter();
    let mut rows = String::new();
    let mut samples = Vec::with_capacity(report.samples.len());
    for (index, sample) in report.samples.iter().enumerate() {
        rows.push_str(&row(report, sample, index, &models, &mut thumbnails));
        samples.push(SampleData {
            values: values(report, sample, &models),
            ..answers(sample, &models)
        });
    }
    let heads: String = models
        .iter()
        .map(|m| {
            let kind = report.kind_of(m).name();
            format!(
                "<span class=\"kind-{kind}\"><span class=\"name\">{}</span></span>",
                escape::name(m)
            )
        })
        .collect();
    let wide = if models.len() <= ONE_ROW {
        " one-row"
    } else {
        ""
    };
    let count = models.len();
    let data = script_json(&Data {
        models: models.clone(),
        metrics: (report.metrics.iter())
            .map(|metric| (metric.title(), metric.unit == Unit::Share))
            .collect(),
        samples,
    });
    format!(
        "{}<div class=\"grid{wide}\" style=\"--models:{count}\" id=\"grid\">\
         <div class=\"heads\" aria-hidden=\"true\"><span>Prompt</span>{heads}</div>\n{rows}</div>\
         <p class=\"more\"><button type=\"button\" id=\"more\" hidden>Show more</button></p>{WINDOW}\
         <script type=\"application/json\" id=\"answers\">{data}</script>",
        controls(report, &models)
    )
}

/// The models of the table that drew something, then those that are in no table, in the order of their pictures.
fn columns(report: &Report) -> Vec<&str> {
    let images = || report.samples.iter().flat_map(|sample| &sample.images);
    let drew: BTreeSet<&str> = images().map(|image| image.model.as_str()).collect();
    let mut columns: Vec<&str> = (report.models.iter().map(|model| model.name.as_str()))
        .filter(|name| drew.contains(name))
        .collect();
    for image in images() {
        if !columns.contains(&image.model.as_str()) {
            columns.push(&image.model);
        }
    }
    columns
}

/// Every picture of a sample with the number of its column, by column.
fn in_order<'a>(sample: &'a SampleRow, models: &[&str]) -> Vec<(usize, &'a SampleImage)> {
    let mut images = Vec::with_capacity(sample.images.len());
    for (column, model) in models.iter().enumerate() {
        let of_model = sample.images.iter().filter(|image| image.model == *model);
        images.extend(of_model.map(|image| (column, image)));
    }
    images
}

/// The scores of a prompt by each metric, with six decimals, which are more than are shown.
fn values(report: &Report, sample: &SampleRow, models: &[&str]) -> Vec<Vec<Option<f64>>> {
    let value = |metric: &Metric, model: &str| {
        let value = metric.row(model)?.values.get(&sample.id)?;
        value.is_finite().then(|| (value * 1e6).round() / 1e6)
    };
    let of = |metric: &Metric| models.iter().map(|model| value(metric, model)).collect();
    report.metrics.iter().map(of).collect()
}

fn answers<'a>(sample: &'a SampleRow, models: &[&str]) -> SampleData<'a> {
    let mut questions: Vec<&str> = Vec::new();
    let mut categories: Vec<&str> = Vec::new();
    let answers = (in_order(sample, models).into_iter())
        .map(|(_, image)| {
            (image.answers.iter())
                .map(|answer| {
                    let known = questions.iter().position(|q| *q == answer.question);
                    let number = known.unwrap_or_else(|| {
                        questions.push(&answer.question);
                        categories.push(&answer.category);
                        questions.len() - 1
                    });
                    (number, answer.answer.as_deref(), answer.ok)
                })
                .collect()
        })
        .collect();
    SampleData {
        questions,
        categories,
        values: Vec::new(),
        answers,
    }
}

fn row(
    report: &Report,
    sample: &SampleRow,
    index: usize,
    models: &[&str],
    thumbnails: &mut impl Iterator<Item = Option<Thumbnail>>,
) -> String {
    let images = in_order(sample, models);
    let mut number = 0;
    let mut cells = String::new();
    for (column, model) in models.iter().enumerate() {
        let count = images.iter().filter(|(of, _)| *of == column).count();
        let mut pictures = String::new();
        for (_, image) in images.iter().filter(|(of, _)| *of == column) {
            let thumbnail = thumbnails.next().flatten();
            pictures.push_str(&picture(image, number, thumbnail.as_ref()));
            number += 1;
        }
        if count == 0 {
            pictures.push_str("<span class=\"none\">no picture</span>");
        }
        let kind = report.kind_of(model).name();
        cells.push_str(&format!(
            "<figure class=\"cell kind-{kind}\" data-model=\"{column}\">{pictures}<figcaption class=\"name\">{}</figcaption></figure>",
            escape::html(model)
        ));
    }
    let (prompt, skill, id) = (
        escape::html(&sample.prompt),
        escape::html(&sample.skill),
        escape::html(&sample.id),
    );
    format!(
        "<article class=\"sample\" data-index=\"{index}\" data-skill=\"{skill}\"><div class=\"prompt\">\
         <h3 dir=\"auto\">{prompt}</h3><p class=\"meta\"><span class=\"skill\">{skill}</span> <span class=\"id\">{id}</span> \
         <span class=\"delta\"></span></p></div><div class=\"cells\">{cells}</div></article>\n"
    )
}

fn picture(image: &SampleImage, number: usize, thumbnail: Option<&Thumbnail>) -> String {
    let score = number::percent(image.score);
    let shown = if image.score.is_finite() {
        (image.score * 100.0).round().to_string()
    } else if image.answers.is_empty() {
        String::new()
    } else {
        "?".to_owned()
    };
    // Those who do not see the picture are told its score, if there is one.
    let score = match image.score.is_finite() {
        true => format!(", score {score}%"),
        false => String::new(),
    };
    let whole = if image.score >= 1.0 { " full" } else { "" };
    let model = escape::html(&image.model);
    let badge = format!("<span class=\"badge{whole}\" aria-hidden=\"true\">{shown}</span>");
    let content = thumbnail.map_or_else(
        || format!("<span class=\"none\">not readable<span class=\"hidden\">: {model}{score}</span></span>"),
        |Thumbnail { uri, width, height, small }| {
            let small = if *small { " class=\"small\"" } else { "" };
            format!(
                "<img{small} src=\"{uri}\" width=\"{width}\" height=\"{height}\" decoding=\"async\" alt=\"{model}{score}\">"
            )
        },
    );
    let value = if image.score.is_finite() {
        image.score
    } else {
        0.0
    };
    format!(
        "<button type=\"button\" class=\"thumb\" data-picture=\"{number}\" data-score=\"{value}\">{content}{badge}</button>"
    )
}

/// Filter and order; shown by the script, since they do nothing without it.
fn controls(report: &Report, models: &[&str]) -> String {
    let skills: BTreeSet<&str> = report.samples.iter().map(|s| s.skill.as_str()).collect();
    let images = report.samples.iter().flat_map(|sample| &sample.images);
    let categories = images.flat_map(|image| &image.answers);
    let categories: BTreeSet<&str> = categories
        .map(|answer| answer.category.as_str())
        .filter(|category| !category.is_empty())
        .collect();
    let skills = filter("Skill", "skill", &skills);
    let categories = filter("Questions about", "category", &categories);
    let metrics: String = report
        .metrics
        .iter()
        .enumerate()
        .map(|(index, metric)| {
            let title = escape::html(&metric.title());
            format!("<option value=\"{index}\">{title}</option>")
        })
        .collect();
    let hidden = if report.metrics.len() < 2 {
        " hidden"
    } else {
        ""
    };
    let metrics = format!("<label{hidden}>Score <select id=\"metric\">{metrics}</select></label>");
    let position = |kind| {
        models
            .iter()
            .position(|model| report.kind_of(model) == kind)
    };
    let base = position(ModelKind::Base).unwrap_or(0);
    let merged = position(ModelKind::Merged).unwrap_or(models.len().saturating_sub(1));
    let options = |chosen: usize| -> String {
        let models = models.iter().enumerate();
        models
            .map(|(index, model)| {
                let selected = if index == chosen { " selected" } else { "" };
                format!(
                    "<option value=\"{index}\"{selected}>{}</option>",
                    escape::html(model)
                )
            })
            .collect()
    };
    format!(
        "<form class=\"controls\" id=\"controls\" hidden>{skills}{categories}{metrics}<label>Compare <select id=\"first\">{}</select></label><label>with <select id=\"second\">{}</select>\
         </label><label>Order <select id=\"order\"><option value=\"given\">as measured</option>\
         <option value=\"gain\">largest gain first</option><option value=\"loss\">largest loss first</option>\
         <option value=\"low\">lowest score first</option></select></label>\
         <output id=\"count\" aria-live=\"polite\"></output></form>\n",
        options(merged),
        options(base)
    )
}

/// A choice of one of several words, or all; hidden where there is nothing to choose.
fn filter(label: &str, id: &str, words: &BTreeSet<&str>) -> String {
    let hidden = if words.len() < 2 { " hidden" } else { "" };
    let options: String = words
        .iter()
        .map(|word| {
            let word = escape::html(word);
            format!("<option value=\"{word}\">{word}</option>")
        })
        .collect();
    format!(
        "<label{hidden}>{label} <select id=\"{id}\"><option value=\"\">all</option>{options}</select></label>"
    )
}

/// The window that shows one picture; the script fills it in.
const WINDOW: &str = "<dialog id=\"window\" aria-labelledby=\"window-model\"><div class=\"window\">\
<div class=\"stage\"><img id=\"window-image\" alt=\"\"></div><div class=\"details\"><div class=\"window-head\">\
<h3 id=\"window-model\"></h3><span class=\"badge\" id=\"window-score\"></span></div>\
<p id=\"window-prompt\" dir=\"auto\"></p><p id=\"window-metrics\"></p><ol id=\"window-answers\"></ol></div></div><div class=\"window-bar\">\
<button type=\"button\" id=\"previous\" aria-label=\"previous model\">\u{2190} previous</button>\
<button type=\"button\" id=\"next\" aria-label=\"next model\" autofocus>next \u{2192}</button><button type=\"button\" id=\"close\">Close</button>\
</div></dialog>";
