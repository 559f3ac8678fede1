//! How the loss of each training went: one small line chart for each.

use selma_eval::stats::percentile;

use super::{ModelKind, Report, chart::Axis, escape, number, plane::Plane};

/// Stretches of steps that a chart shows at most, each by its mean.
const STRETCHES: usize = 40;

/// A stretch of at least this many steps shows how its losses are spread.
const SPREAD: usize = 4;

/// The losses of one training.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingCurve {
    /// Name of the adapter.
    pub name: String,
    /// What was minimised; charts of one objective have the same scale.
    pub objective: String,
    /// Its settings in a few words.
    pub detail: String,
    /// Every step, in order.
    pub steps: Vec<TrainingStep>,
}

/// One step of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainingStep {
    /// Steps done, this one included.
    pub step: usize,
    /// Its loss.
    pub loss: f64,
    /// Share of the pairs that the model gets right, where it is trained on pairs.
    pub accuracy: Option<f64>,
}

/// Steps in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    /// The middle of its steps.
    step: f64,
    mean: f64,
    /// Lower and upper quartile of its losses, if they are enough.
    spread: Option<(f64, f64)>,
}

impl TrainingCurve {
    /// Loss and accuracy of the first tenth and the last tenth of the steps.
    pub(super) fn ends(&self) -> Option<[(f64, Option<f64>); 2]> {
        let tenth = self.steps.len().div_ceil(10);
        let first = self.steps.get(..tenth)?;
        let last = self.steps.get(self.steps.len() - tenth..)?;
        let mean = |steps: &[TrainingStep]| {
            let accuracies: Option<Vec<f64>> = steps.iter().map(|step| step.accuracy).collect();
            let losses = average(steps.iter().map(|step| step.loss))?;
            Some((losses, accuracies.and_then(|all| average(all.into_iter()))))
        };
        Some([mean(first)?, mean(last)?])
    }

    fn stretches(&self) -> Vec<Stretch> {
        let length = self.steps.len().div_ceil(STRETCHES).max(1);
        let stretches = self.steps.chunks(length).filter_map(|steps| {
            let losses: Vec<f64> = steps
                .iter()
                .map(|step| step.loss)
                .filter(|loss| loss.is_finite())
                .collect();
            Some(Stretch {
                step: average(steps.iter().map(|step| step.step as f64))?,
                mean: average(losses.iter().copied())?,
                spread: percentile(&losses, 0.25)
                    .zip(percentile(&losses, 0.75))
                    .filter(|_| losses.len() >= SPREAD),
            })
        });
        stretches.collect()
    }
}

fn average(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// All trainings, those of one objective together.
pub(super) fn curves(report: &Report) -> String {
    let mut objectives: Vec<&str> = Vec::new();
    for training in &report.training {
        if !objectives.contains(&training.objective.as_str()) {
            objectives.push(&training.objective);
        }
    }
    let several = objectives.len() > 1;
    let groups = objectives.into_iter().map(|objective| {
        let trainings = report.training.iter();
        let trainings: Vec<&TrainingCurve> = trainings
            .filter(|training| training.objective == objective)
            .collect();
        let heading = match several {
            true => format!("<h3>{}</h3>", escape::html(objective)),
            false => String::new(),
        };
        format!(
            "{heading}<div class=\"curves\">{}</div>",
            group(report, &trainings)
        )
    });
    groups.collect()
}

fn group(report: &Report, trainings: &[&TrainingCurve]) -> String {
    let stretches: Vec<Vec<Stretch>> = trainings.iter().map(|t| t.stretches()).collect();
    let all = || stretches.iter().flatten();
    let losses = all().flat_map(|s| {
        let (low, high) = s.spread.unwrap_or((s.mean, s.mean));
        [s.mean, low, high]
    });
    let y = Axis::holding(losses, (-1e9, 1e9));
    let charts = trainings.iter().zip(&stretches);
    charts
        .map(|(training, stretches)| {
            let steps = training.steps.iter().map(|step| step.step as f64);
            let plane = Plane {
                x: Axis::holding(steps.chain([0.0]), (0.0, 1e9)),
                y: y.clone(),
            };
            chart(report, training, stretches, &plane)
        })
        .collect()
}

fn chart(
    report: &Report,
    training: &TrainingCurve,
    stretches: &[Stretch],
    plane: &Plane,
) -> String {
    let kind = match report.kind_of(&training.name) {
        ModelKind::Other => ModelKind::Expert,
        kind => kind,
    };
    let name = escape::html(&training.name);
    let spread = || {
        stretches
            .iter()
            .filter_map(|s| s.spread.map(|(low, high)| (s.step, low, high)))
    };
    let band = plane.points(
        spread()
            .map(|(step, low, _)| (step, low))
            .chain(spread().rev().map(|(step, _, high)| (step, high))),
    );
    let line = plane.points(stretches.iter().map(|s| (s.step, s.mean)));
    let drawn = format!(
        "<polygon class=\"band\" points=\"{band}\"/><polyline class=\"line\" points=\"{line}\"/>"
    );
    let words = in_words(training);
    format!(
        "<figure class=\"panel curve kind-{}\"><figcaption>{name} <small>{words}</small><small>{}</small></figcaption>{}</figure>\n",
        kind.name(),
        escape::html(&training.detail),
        plane.svg(&format!("Loss of {name} by step: {words}"), "step", &drawn),
    )
}

/// "0.21 to 0.18": from the first tenth of the steps to the last.
pub(super) fn in_words(training: &TrainingCurve) -> String {
    let Some([(first, before), (last, after)]) = training.ends() else {
        return "no steps".to_owned();
    };
    let loss = format!("loss {} to {}", number::short(first), number::short(last));
    match before.zip(after) {
        Some((before, after)) => format!(
            "{loss}; pairs right {}% to {}%",
            number::percent(before),
            number::percent(after)
        ),
        None => loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(count: usize) -> TrainingCurve {
        let step = |step: usize| TrainingStep {
            step,
            loss: 1.0 / step as f64,
            accuracy: None,
        };
        TrainingCurve {
            name: "coco".to_owned(),
            objective: "denoising".to_owned(),
            detail: String::new(),
            steps: (1..=count).map(step).collect(),
        }
    }

    #[test]
    fn long_trainings_are_shown_by_stretches() {
        let curve = curve(600);
        let stretches = curve.stretches();
        assert_eq!(stretches.len(), STRETCHES);
        assert_eq!(stretches[0].step, 8.0);
        let (low, high) = stretches[0].spread.unwrap();
        assert!(low < stretches[0].mean && high < 1.0, "{low} {high}");
        let [(first, _), (last, _)] = curve.ends().unwrap();
        assert!(first > 0.07 && last < 0.002, "{first} {last}");
    }

    #[test]
    fn short_ones_step_by_step_and_none_not_at_all() {
        assert_eq!(curve(6).stretches().len(), 6);
        assert_eq!(curve(6).stretches()[3].spread, None);
        assert_eq!(curve(0).ends(), None);
        assert_eq!(in_words(&curve(0)), "no steps");
        assert_eq!(in_words(&curve(2)), "loss 1 to 0.5");
    }
}
