//! The figures as CSV: one row for each number, so that no reader has to take a table apart.

use selma_eval::{Estimate, Paired};

use super::{FunnelRow, Metric, ModelRow, Report, SelectionRow, escape, people};

const NAMES: &str = "model,kind,guidance,group,name,mean,low,high,p,n,prompts";

/// | group | name | mean, low, high |
/// |---|---|---|
/// | `overall`, `category`, `skill` | that of the category or skill | faithfulness, a share between 0 and 1 |
/// | `difference` | | faithfulness minus the base's, with its p-value |
/// | `guidance` | | faithfulness at another guidance |
/// | `metric`, `metric difference` | the metric | any metric |
/// | `metric category` | the metric, a colon, the category | likewise |
/// | `quartiles` | the metric | median, lower and upper quartile of the prompts' scores |
/// | `data` | the skill, a colon, the count | a count |
/// | `selection` | the skill, a colon, `drawn`, `passed` or `used` | a count of pictures, of a training |
/// | `win rate`, `win rate without ties` | study, other model and category, with colons between | the share of people's answers that prefer the model |
/// | `strength` | the study | Bradley-Terry, a logarithm |
/// | `agreement` | the study | Krippendorff's alpha of its raters |
/// | `training` | `first` or `last` | mean loss of this tenth of the steps, of which there are `n` |
/// | `merge` | `norm`, `truncation_error`, `self_check` | that figure of a merge of `n` layers |
///
/// What is not finite is left empty.
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
    rows.extend(report.metrics.iter().flat_map(metric_rows));
    for people::Figure {
        model,
        group,
        name,
        figures,
        n,
        prompts,
    } in report.ratings.iter().flat_map(people::figures)
    {
        let head = head(&model, report.kind_of(&model).name(), f64::NAN);
        rows.push(row(&head, group, &name, &figures.map(number), n, prompts));
    }
    rows.extend(report.funnel.iter().flat_map(funnel_rows));
    rows.extend(report.selected.iter().flat_map(selection_rows));
    for training in &report.training {
        let head = head(&training.name, "", f64::NAN);
        let ends = training.ends().into_iter().flatten().zip(["first", "last"]);
        rows.extend(
            ends.map(|((loss, _), name)| {
                single(&head, "training", name, loss, training.steps.len())
            }),
        );
    }
    for merge in &report.merges {
        let head = head(&merge.name, "", f64::NAN);
        let figures = [
            ("norm", merge.norm),
            ("truncation_error", merge.truncation_error),
            ("self_check", merge.self_check),
        ];
        let figures =
            figures.map(|(name, value)| single(&head, "merge", name, value, merge.layers.len()));
        rows.extend(figures);
    }
    rows.push(String::new());
    rows.join("\n")
}

fn metric_rows(metric: &Metric) -> Vec<String> {
    let title = metric.title();
    let mut rows = Vec::new();
    for of in &metric.rows {
        let head = head(&of.model, of.kind.name(), f64::NAN);
        rows.push(score(&head, "metric", &title, &of.overall));
        rows.extend(
            of.difference_to_base
                .iter()
                .map(|paired| difference(&head, "metric difference", &title, paired)),
        );
        rows.extend(of.by_category.iter().map(|(name, estimate)| {
            let name = format!("{title}: {name}");
            score(&head, "metric category", &name, estimate)
        }));
        rows.extend(of.quartiles().map(|[low, median, high]| {
            let figures = [number(median), number(low), number(high), String::new()];
            let n = of.finite().count();
            row(&head, "quartiles", &title, &figures, n, n)
        }));
    }
    rows
}

fn funnel_rows(of: &FunnelRow) -> Vec<String> {
    let head = head("", "", f64::NAN);
    let counts = [
        ("requests", of.requests),
        ("parsed", of.parsed),
        ("kept", of.kept),
        ("images", of.images),
    ];
    let rejected = of.rejected.iter();
    let rejected = rejected.map(|(reason, count)| (reason.as_str(), *count));
    let counts = counts.into_iter().chain(rejected);
    counts
        .map(|(name, count)| {
            let name = format!("{}: {name}", of.skill);
            single(&head, "data", &name, count as f64, count)
        })
        .collect()
}

fn selection_rows(of: &SelectionRow) -> [String; 3] {
    let head = head(&of.training, "", f64::NAN);
    let counts = [
        ("drawn", of.drawn),
        ("passed", of.passed),
        ("used", of.used),
    ];
    counts.map(|(name, count)| {
        let name = format!("{}: {name}", of.skill);
        single(&head, "selection", &name, count as f64, count)
    })
}

/// One number without an interval.
fn single(head: &str, group: &str, name: &str, value: f64, n: usize) -> String {
    let figures = [number(value), String::new(), String::new(), String::new()];
    row(head, group, name, &figures, n, n)
}

fn difference(head: &str, group: &str, name: &str, paired: &Paired) -> String {
    let figures = [paired.difference, paired.low, paired.high, paired.p];
    row(
        head,
        group,
        name,
        &figures.map(number),
        paired.n,
        paired.clusters,
    )
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
    rows
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
