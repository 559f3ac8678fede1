//! Parts of the page that are text and tables.

use super::{ModelRow, Report, escape, number, table};

/// Marks the best of a column.
pub(super) const STAR: &str = "<span class=\"star\" title=\"best of its column\">*</span>";

/// Merged against base in a sentence that says no more than the interval does.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Plain text.
    pub(super) sentence: String,
    /// Merged minus base.
    pub(super) difference: selma_eval::Paired,
}

/// `None` unless a merged model has been compared with the base.
pub(super) fn verdict(report: &Report) -> Option<Verdict> {
    let (base, merged) = (report.base()?, report.merged()?);
    let difference = merged.difference_to_base?;
    let judgement = if difference.low > 0.0 {
        "above zero: the merged model is more faithful"
    } else if difference.high < 0.0 {
        "below zero: the merged model is less faithful"
    } else {
        "around zero: no difference is shown"
    };
    let sentence = format!(
        "The merged model \u{201c}{}\u{201d} scores {}, the base model \u{201c}{}\u{201d} {}. The difference is {} points; its {} interval, {} to {} ({}), lies {judgement}.",
        merged.name,
        number::percent(merged.overall.mean),
        base.name,
        number::percent(base.overall.mean),
        number::points(difference.difference),
        table::level(report),
        number::points(difference.low),
        number::points(difference.high),
        number::p_value(difference.p),
    );
    Some(Verdict {
        sentence,
        difference,
    })
}

/// The figures at the top: base, merged, their difference.
pub(super) fn tiles(report: &Report) -> String {
    let model = |label: &str, model: &ModelRow| {
        let e = &model.overall;
        tile(
            &format!("kind-{}", model.kind.name()),
            label,
            &number::percent(e.mean),
            &format!("{} to {}", number::percent(e.low), number::percent(e.high)),
            &match model.guidance.is_finite() {
                true => format!("{}, guidance {}", model.name, number::plain(model.guidance)),
                false => model.name.clone(),
            },
        )
    };
    let mut tiles = String::new();
    if let Some(base) = report.base() {
        tiles.push_str(&model("Base", base));
    }
    if let Some(merged) = report.merged() {
        tiles.push_str(&model("Merged", merged));
    }
    let Some(verdict) = verdict(report) else {
        return wrap_tiles(&tiles);
    };
    let d = verdict.difference;
    tiles.push_str(&tile(
        "difference",
        "Difference, paired by prompt",
        &signed(d.difference),
        &format!("{} to {}", signed(d.low), signed(d.high)),
        &format!(
            "{}, {} questions, {} prompts",
            number::p_value(d.p),
            number::count(d.n),
            number::count(d.clusters)
        ),
    ));
    let sentence = escape::html(&verdict.sentence);
    format!("{}<p class=\"verdict\">{sentence}</p>", wrap_tiles(&tiles))
}

fn wrap_tiles(tiles: &str) -> String {
    if tiles.is_empty() {
        String::new()
    } else {
        format!("<div class=\"tiles\">{tiles}</div>")
    }
}

fn tile(class: &str, label: &str, value: &str, interval: &str, detail: &str) -> String {
    let (label, detail) = (escape::html(label), escape::html(detail));
    format!(
        "<div class=\"tile {class}\"><p class=\"tile-label\">{label}</p><p class=\"tile-value\">{value}</p>\
         <p class=\"tile-interval\">{interval}</p><p class=\"tile-detail\">{detail}</p></div>"
    )
}

/// Points with a minus sign as wide as the plus sign.
pub(super) fn signed(difference: f64) -> String {
    number::points(difference).replace('-', "\u{2212}")
}

/// The table of models and scores.
pub(super) fn scores(report: &Report) -> String {
    let columns = table::columns(&report.models);
    let in_group = |group| columns.iter().filter(|c| c.group == group).count();
    let group = |group, name: &str| match in_group(group) {
        0 => String::new(),
        n => format!("<th scope=\"colgroup\" colspan=\"{n}\" class=\"group\">{name}</th>"),
    };
    let differences = report.models.iter().any(|m| m.difference_to_base.is_some());
    let vs_base = if differences {
        "<th scope=\"col\" rowspan=\"2\">vs base</th>"
    } else {
        ""
    };
    let guided = table::guided(report);
    let guidance = match guided {
        true => "<th scope=\"col\" rowspan=\"2\">Guidance</th>",
        false => "",
    };
    let names: String = columns
        .iter()
        .filter(|column| column.group != table::Group::Overall)
        .map(|c| {
            let start = if starts_group(&columns, c) {
                " class=\"start\""
            } else {
                ""
            };
            format!("<th scope=\"col\"{start}>{}</th>", escape::html(c.name))
        })
        .collect();
    let rows: String = (report.models.iter().enumerate())
        .map(|(index, model)| score_row(model, index, &columns, differences, guided))
        .collect();
    format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"Scores\"><table class=\"scores\"><thead><tr>\
         <th scope=\"col\" rowspan=\"2\">Model</th>{guidance}\
         <th scope=\"col\" rowspan=\"2\">Overall</th>{vs_base}{}{}</tr><tr>{names}</tr></thead>\
         <tbody>{rows}</tbody></table></div>",
        group(table::Group::Category, "By category"),
        group(table::Group::Skill, "By skill"),
    )
}

/// Whether a line stands before a column.
fn starts_group(columns: &[table::Column<'_>], column: &table::Column<'_>) -> bool {
    let first = columns.iter().find(|c| c.group == column.group);
    column.group != table::Group::Overall && first.is_some_and(|first| first.name == column.name)
}

fn score_row(
    model: &ModelRow,
    index: usize,
    columns: &[table::Column<'_>],
    differences: bool,
    guided: bool,
) -> String {
    let guidance = match guided {
        true => format!("<td>{}</td>", number::plain(model.guidance)),
        false => String::new(),
    };
    let mut cells = format!(
        "<tr class=\"kind-{}\"><th scope=\"row\"><span class=\"name\">{}</span></th>{guidance}",
        model.kind.name(),
        escape::name(&model.name)
    );
    for column in columns {
        let cell = column.cells.get(index);
        cells.push_str(&cell.map_or_else(String::new, |cell| {
            score_cell(*cell, starts_group(columns, column))
        }));
        if column.group == table::Group::Overall && differences {
            cells.push_str(&difference_cell(model));
        }
    }
    cells + "</tr>\n"
}

fn score_cell(cell: table::Cell<'_>, start: bool) -> String {
    let class = match (start, cell.best) {
        (true, true) => " class=\"start best\"",
        (true, false) => " class=\"start\"",
        (false, true) => " class=\"best\"",
        (false, false) => "",
    };
    let Some(e) = cell.estimate else {
        return format!("<td{class}>\u{2013}</td>");
    };
    let star = if cell.best { STAR } else { "" };
    format!(
        "<td{class}><span class=\"mean\">{}{star}</span><small>{}\u{2013}{}</small></td>",
        number::percent(e.mean),
        number::percent(e.low),
        number::percent(e.high)
    )
}

fn difference_cell(model: &ModelRow) -> String {
    model.difference_to_base.map_or_else(
        || "<td>\u{2013}</td>".to_owned(),
        |d| change(&[d.difference, d.low, d.high].map(number::points), &d),
    )
}

/// A difference with the ends of its interval, bold when that is clear of zero.
pub(super) fn change(texts: &[String; 3], paired: &selma_eval::Paired) -> String {
    let clear = match paired.low > 0.0 || paired.high < 0.0 {
        true => " clear",
        false => "",
    };
    // A minus sign as wide as the plus sign.
    let [difference, low, high] = texts.each_ref().map(|text| text.replace('-', "\u{2212}"));
    format!(
        "<td class=\"change{clear}\" title=\"{}\"><span class=\"mean\">{difference}</span><small>{low} to {high}</small></td>",
        escape::html(&number::p_value(paired.p))
    )
}

/// A paragraph for each note.
pub(super) fn notes(report: &Report) -> String {
    let notes = report.notes.iter();
    let notes: String = notes
        .map(|note| format!("<li>{}</li>", escape::html(note)))
        .collect();
    format!("<ul class=\"notes\">{notes}</ul>")
}

/// Names and values, then names and hashes.
pub(super) fn settings(report: &Report) -> String {
    let settings = match report.settings.is_empty() {
        true => String::new(),
        false => values(&report.settings, "settings"),
    };
    let hashes = match report.hashes.is_empty() {
        true => String::new(),
        false => format!(
            "<h3>Hashes (SHA-256)</h3>{}",
            values(&report.hashes, "settings hashes")
        ),
    };
    settings + &hashes
}

fn values(values: &[(String, String)], class: &str) -> String {
    let rows: String = values
        .iter()
        .map(|(name, value)| {
            let (name, value) = (escape::html(name), escape::html(value));
            format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
        })
        .collect();
    format!("<dl class=\"{class}\">{rows}</dl>")
}
