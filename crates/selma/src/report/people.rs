//! What people preferred: results of studies with raters.

use std::path::{Path, PathBuf};

use selma_eval::Estimate;
use selma_eval::rating::{Comparison, Preference, RatingResult};

use super::{Report, escape, markdown, number};
use crate::SelmaError;

/// The result of a study with people, or of several together.
#[derive(Clone, Debug, PartialEq)]
pub struct HumanRating {
    /// The file.
    pub path: PathBuf,
    /// What it is called.
    pub name: String,
    /// What people said.
    pub result: RatingResult,
}

impl HumanRating {
    /// Reads what `selma rate import --format json` printed. Its name is that of the file.
    ///
    /// # Errors
    /// [`SelmaError::Io`], [`SelmaError::Damaged`] for a file of another kind.
    pub fn read(path: &Path) -> Result<Self, SelmaError> {
        let bytes = std::fs::read(path).map_err(|source| SelmaError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        let result = serde_json::from_slice(&bytes).map_err(|error| SelmaError::Damaged {
            path: path.to_owned(),
            reason: format!("expected what `selma rate import --format json` prints: {error}"),
        })?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self {
            path: path.to_owned(),
            name: name.into_owned(),
            result,
        })
    }
}

/// Who was asked, in one line.
fn asked(result: &RatingResult) -> String {
    let counts = [
        (result.answers, "answer", "answers"),
        (result.raters.len(), "rater", "raters"),
        (result.pairs, "pair", "pairs"),
        (result.prompts, "prompt", "prompts"),
    ];
    let [answers, raters, pairs, prompts] = counts.map(|(count, one, many)| {
        let noun = if count == 1 { one } else { many };
        format!("{} {noun}", number::count(count))
    });
    let open = match result.unanswered {
        0 => String::new(),
        open => format!("; {} left open", number::count(open)),
    };
    format!("{answers} of {raters} to {pairs} of {prompts}{open}.")
}

/// How far the answers can be trusted: agreement, and whether sides mattered.
fn trust(result: &RatingResult) -> String {
    let agreement = match &result.agreement {
        Some(agreement) => format!(
            "Krippendorff's alpha of the raters is {:.2} ({:.2} to {:.2}): {}% of the answers to {} agree.",
            agreement.alpha,
            agreement.low,
            agreement.high,
            number::percent(agreement.agreement),
            match agreement.pairs {
                1 => "the one pair that several rated".to_owned(),
                pairs => format!("the {} pairs that several rated", number::count(pairs)),
            }
        ),
        None => "How far raters agree is unknown: it takes two raters of one pair, and different answers.".to_owned(),
    };
    match &result.left {
        None => agreement,
        Some(left) => format!(
            "{agreement} The left picture was preferred in {}% ({} to {}) of the answers without ties.",
            number::percent(left.mean),
            number::percent(left.low),
            number::percent(left.high)
        ),
    }
}

/// Everything about two models, then about their categories.
fn rows(comparison: &Comparison) -> Vec<(&str, &Preference, Option<f64>)> {
    let overall = std::iter::once(("all", &comparison.overall, None));
    let categories = comparison.by_category.iter();
    let categories = categories.map(|(name, of)| (name.as_str(), &of.preference, Some(of.p_holm)));
    overall.chain(categories).collect()
}

pub(super) fn html(report: &Report) -> String {
    report.ratings.iter().map(study).collect()
}

fn study(rating: &HumanRating) -> String {
    let result = &rating.result;
    let tables: String = result.comparisons.iter().map(comparison).collect();
    format!(
        "<h3>{}</h3><p class=\"introduction\">{}</p>{tables}{}<p class=\"remark\">{}</p>",
        escape::html(&rating.name),
        escape::html(&asked(result)),
        strengths(result),
        escape::html(&trust(result))
    )
}

fn comparison(comparison: &Comparison) -> String {
    let rows: String = rows(comparison)
        .into_iter()
        .map(|(name, preference, p_holm)| {
            let clear = match preference.rate.low > 0.5 || preference.rate.high < 0.5 {
                true => " class=\"change clear\"",
                false => "",
            };
            format!(
                "<tr><th scope=\"row\">{}</th><td{clear}>{}</td><td>{}</td>{}<td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escape::name(name),
                share(&preference.rate),
                preference.decided.as_ref().map_or("\u{2013}".to_owned(), share),
                votes(preference),
                number::count(preference.rate.clusters),
                figure(preference.p),
                p_holm.map_or("\u{2013}".to_owned(), figure),
            )
        })
        .collect();
    let title = format!("{} over {}", comparison.first, comparison.second);
    let title = escape::html(&title);
    format!(
        "<div class=\"scroll people\" tabindex=\"0\" role=\"region\" aria-label=\"{title}\"><table><thead><tr>\
         <th scope=\"col\">{title}</th><th scope=\"col\">Win rate, %</th><th scope=\"col\">Without ties, %</th>\
         <th scope=\"col\" class=\"bar-head\">Won, tied, lost</th><th scope=\"col\">Prompts</th><th scope=\"col\">p</th>\
         <th scope=\"col\">p (Holm)</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// A share with its interval below.
fn share(estimate: &Estimate) -> String {
    format!(
        "<span class=\"mean\">{}</span><small>{}\u{2013}{}</small>",
        number::percent(estimate.mean),
        number::percent(estimate.low),
        number::percent(estimate.high)
    )
}

fn figure(p: f64) -> String {
    match p.is_finite() {
        true if p < 0.001 => "&lt;\u{a0}0.001".to_owned(),
        true => format!("{p:.3}"),
        false => "\u{2013}".to_owned(),
    }
}

/// Wins, ties and losses as parts of one bar, and in figures.
fn votes(preference: &Preference) -> String {
    let counts = [preference.wins, preference.ties, preference.losses];
    let all = counts.iter().sum::<usize>().max(1);
    let parts = ["won", "tied", "lost"].into_iter().zip(counts);
    let bars: String = parts
        .filter(|(_, count)| *count > 0)
        .map(|(class, count)| {
            let width = number::svg(100.0 * count as f64 / all as f64);
            format!("<span class=\"{class}\" style=\"width:{width}%\"></span>")
        })
        .collect();
    let [won, tied, lost] = counts.map(number::count);
    format!("<td class=\"votes\"><div>{bars}</div><small>{won}, {tied}, {lost}</small></td>")
}

fn strengths(result: &RatingResult) -> String {
    let Some(ranking) = &result.ranking else {
        return String::new();
    };
    let rows: String = (ranking.models.iter())
        .map(|of| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{:.2}</td><td>{:.2} to {:.2}</td><td>{}</td></tr>\n",
                escape::name(&of.model),
                of.strength,
                of.low,
                of.high,
                number::count(of.answers)
            )
        })
        .collect();
    format!(
        "<div class=\"scroll people\" tabindex=\"0\" role=\"region\" aria-label=\"Strengths\"><table><thead><tr>\
         <th scope=\"col\">Bradley-Terry</th><th scope=\"col\">Log strength</th><th scope=\"col\">Interval</th>\
         <th scope=\"col\">Answers</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

/// The same in Markdown.
pub(super) fn document(report: &Report) -> String {
    let mut parts = Vec::new();
    for HumanRating { name, result, .. } in &report.ratings {
        parts.push(format!("### {}", escape::markdown(name)));
        parts.push(escape::markdown(&asked(result)));
        for comparison in &result.comparisons {
            parts.push(compared(comparison));
        }
        if let Some(ranking) = &result.ranking {
            let head = ["Bradley-Terry", "log strength", "interval", "answers"].map(str::to_owned);
            let rows = ranking.models.iter().map(|of| {
                vec![
                    escape::markdown(&of.model),
                    format!("{:.2}", of.strength),
                    format!("{:.2} to {:.2}", of.low, of.high),
                    of.answers.to_string(),
                ]
            });
            parts.push(markdown::rows_of(&head, rows));
        }
        parts.push(escape::markdown(&trust(result)));
    }
    parts.join("\n\n")
}

fn compared(comparison: &Comparison) -> String {
    let title = format!("{} over {}", comparison.first, comparison.second);
    let head = [
        "win rate, %",
        "without ties, %",
        "won, tied, lost",
        "prompts",
        "p",
        "p (Holm)",
    ];
    let head = std::iter::once(escape::markdown(&title)).chain(head.map(str::to_owned));
    let with_interval = |estimate: &Estimate| {
        let [mean, low, high] = [estimate.mean, estimate.low, estimate.high].map(number::percent);
        format!("{mean} ({low} to {high})")
    };
    let rows = rows(comparison).into_iter().map(|(name, of, p_holm)| {
        vec![
            escape::markdown(name),
            with_interval(&of.rate),
            of.decided.as_ref().map_or("-".to_owned(), with_interval),
            format!("{}, {}, {}", of.wins, of.ties, of.losses),
            of.rate.clusters.to_string(),
            format!("{:.4}", of.p),
            p_holm.map_or("-".to_owned(), |p| format!("{p:.4}")),
        ]
    });
    markdown::rows_of(&head.collect::<Vec<String>>(), rows)
}

/// A row of the file of figures.
pub(super) struct Figure {
    pub(super) model: String,
    pub(super) group: &'static str,
    pub(super) name: String,
    /// Mean, lower and upper end, p-value; not a number where there is none.
    pub(super) figures: [f64; 4],
    pub(super) n: usize,
    pub(super) prompts: usize,
}

/// Every figure of a study.
pub(super) fn figures(rating: &HumanRating) -> Vec<Figure> {
    let HumanRating { name, result, .. } = rating;
    let mut figures = Vec::new();
    for comparison in &result.comparisons {
        for (category, of, _) in rows(comparison) {
            let mut figure = |group, estimate: &Estimate, p| {
                figures.push(Figure {
                    model: comparison.first.clone(),
                    group,
                    name: format!("{name}: {}: {category}", comparison.second),
                    figures: [estimate.mean, estimate.low, estimate.high, p],
                    n: estimate.n,
                    prompts: estimate.clusters,
                });
            };
            figure("win rate", &of.rate, of.p);
            if let Some(decided) = &of.decided {
                figure("win rate without ties", decided, f64::NAN);
            }
        }
    }
    let strengths = result.ranking.iter().flat_map(|ranking| &ranking.models);
    figures.extend(strengths.map(|of| Figure {
        model: of.model.clone(),
        group: "strength",
        name: name.clone(),
        figures: [of.strength, of.low, of.high, f64::NAN],
        n: of.answers,
        prompts: result.prompts,
    }));
    figures.extend(result.agreement.iter().map(|of| Figure {
        model: String::new(),
        group: "agreement",
        name: name.clone(),
        figures: [of.alpha, of.low, of.high, f64::NAN],
        n: of.answers,
        prompts: of.pairs,
    }));
    figures
}
