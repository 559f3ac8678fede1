//! The figures as CSV: one row for each number, so that no reader has to take a table apart.

use selma_eval::{Estimate, Paired};

use super::{ModelRow, Report, escape};

const NAMES: &str = "model,kind,guidance,group,name,mean,low,high,p,n,prompts";

/// Groups are `overall`, `category`, `skill`, `difference` (to the base, with its p-value), `preference` and `preference difference` (of the
/// scorer that `name` says, on its own scale) and `guidance` (the curve, whose `name` is empty). All other scores are shares between 0 and 1; what is
/// not finite is left empty.
pub(super) fn document(report: &Report) -> String {
    let mut rows = vec![NAMES.to_owned()];
    for model in &report.models {
        rows.extend(model_rows(model));
    }
    for curve in &report.curves {
        let kind = report.kind_of(&curve.model).name();
        rows.extend(curve.points.iter().map(|(guidance, estimate)| {
            let head = head(&curve.model, kind, *guidance);
            score(&head, "guidance", "", estimate)
        }));
    }
    rows.push(String::new());
    rows.join("\n")
}

fn model_rows(model: &ModelRow) -> Vec<String> {
    let head = head(&model.name, model.kind.name(), model.guidance);
    let mut rows = vec![score(&head, "overall", "", &model.overall)];
    for (group, scores) in [("category", &model.by_category), ("skill", &model.by_skill)] {
        rows.extend(
            scores
                .iter()
                .map(|(name, estimate)| score(&head, group, name, estimate)),
        );
    }
    let paired = model.difference_to_base.iter();
    rows.extend(paired.map(|paired| difference(&head, "difference", "", paired)));
    for preference in &model.preferences {
        let name = &preference.scorer;
        rows.push(score(&head, "preference", name, &preference.mean));
        let paired = preference.difference_to_base.iter();
        rows.extend(paired.map(|paired| difference(&head, "preference difference", name, paired)));
    }
    rows
}

fn difference(head: &str, group: &str, name: &str, paired: &Paired) -> String {
    let figures = [paired.difference, paired.low, paired.high, paired.p];
    let figures = figures.map(number);
    row(head, group, name, &figures, paired.n, paired.clusters)
}

fn head(model: &str, kind: &str, guidance: f64) -> String {
    format!("{},{kind},{}", escape::csv(model), number(guidance))
}

fn score(head: &str, group: &str, name: &str, estimate: &Estimate) -> String {
    let figures = [
        number(estimate.mean),
        number(estimate.low),
        number(estimate.high),
        String::new(),
    ];
    row(head, group, name, &figures, estimate.n, estimate.clusters)
}

fn row(
    head: &str,
    group: &str,
    name: &str,
    figures: &[String],
    n: usize,
    prompts: usize,
) -> String {
    let (name, figures) = (escape::csv(name), figures.join(","));
    format!("{head},{group},{name},{figures},{n},{prompts}")
}

fn number(value: f64) -> String {
    if value.is_finite() {
        value.to_string()
    } else {
        String::new()
    }
}
