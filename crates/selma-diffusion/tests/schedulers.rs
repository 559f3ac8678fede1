//! Tables and steps of the schedulers against diffusers, with the closed-form model of `tools/scheduler_fixtures.py`. PNDM and Euler ancestral have no
//! `sample` prediction there; they are held to what they do with the noise that the sample means.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail by panicking, and print what they measured"
)]

use std::path::PathBuf;

use safetensors::SafeTensors;
use selma_diffusion::schedulers::{
    BetaSchedule, Ddim, NoiseSchedule, PredictionType, Scheduler, SchedulerConfig, SchedulerKind,
    build,
};
use serde::Deserialize;

/// The tables are the same numbers; the bound leaves room for the last bit of f32.
const TABLE: f64 = 1e-6;
/// Rounding of the f32 steps in diffusers; a difference of method shows at 1e-4 and above.
const FINAL: f64 = 1e-5;
/// With zero terminal SNR, diffusers subtracts nearly equal f32 numbers: the roots of the table, which torch takes with an error of one bit (182 of 1000 on an
/// AVX-512 machine), so that entries near zero differ more in relation to themselves; and in Euler samples with a deviation of 4096. Samples with such deviations come of the cosine schedule, too.
const ZERO_SNR_TABLE: f64 = 1e-5;
const ZERO_SNR_FINAL: f64 = 1e-4;

/// Stands for the kind until the name of the file is known.
fn no_kind() -> SchedulerKind {
    SchedulerKind::Ddpm
}

#[derive(Deserialize)]
struct Case {
    #[serde(skip, default = "no_kind")]
    kind: SchedulerKind,
    steps: usize,
    config: SchedulerConfig,
    eta: f64,
    /// Steps left out at the start, as image to image does.
    #[serde(default)]
    skip: usize,
    init_noise_sigma: f64,
    timesteps: Vec<f64>,
    #[serde(default)]
    sigmas: Vec<f64>,
    #[serde(default)]
    r#final: Vec<f64>,
}

impl Case {
    fn build(&self) -> Box<dyn Scheduler> {
        if self.eta > 0.0 {
            Box::new(
                Ddim::new(&self.config, self.steps)
                    .unwrap()
                    .with_eta(self.eta)
                    .unwrap(),
            )
        } else {
            build(self.kind, &self.config, self.steps).unwrap()
        }
    }

    fn name(&self) -> String {
        let config = serde_json::to_string(&self.config).unwrap();
        format!(
            "{} x{} eta {} without {} {config}",
            self.kind, self.steps, self.eta, self.skip
        )
    }
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schedulers")
}

/// The cases of every kind, each in a file of its name.
fn cases() -> Vec<Case> {
    let of_kind = |kind: SchedulerKind| {
        let text = std::fs::read(fixtures().join(format!("{kind}.json"))).unwrap();
        let cases: Vec<Case> = serde_json::from_slice(&text).unwrap();
        cases.into_iter().map(move |case| Case { kind, ..case })
    };
    SchedulerKind::ALL.into_iter().flat_map(of_kind).collect()
}

/// The largest difference, relative to the largest value.
fn error(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(f64::MIN_POSITIVE, |m, x| m.max(x.abs()));
    let worst = ours.iter().zip(theirs).map(|(a, b)| {
        if a.is_finite() {
            (a - b).abs()
        } else {
            f64::INFINITY
        }
    });
    worst.fold(0.0, f64::max) / scale
}

fn run(scheduler: &mut dyn Scheduler, skip: usize, count: usize) -> Vec<f64> {
    let start = |i: usize| (1.2 * (1.7 * i as f64 + 0.3).sin()) as f32;
    let mut sample: Vec<f32> = (0..count).map(start).collect();
    let mut draws = 0;
    let begin = skip * scheduler.order();
    if skip > 0 {
        let noise: Vec<f32> = (0..count)
            .map(|i| (1.1 * (2.3 * i as f64).cos()) as f32)
            .collect();
        sample = scheduler.add_noise(&sample, &noise, begin).unwrap();
        draws = 1;
    } else {
        let sigma = scheduler.init_noise_sigma() as f32;
        sample.iter_mut().for_each(|x| *x *= sigma);
    }
    for index in begin..scheduler.timesteps().len() {
        let t = scheduler.timesteps()[index];
        let mut input = sample.clone();
        scheduler.scale_model_input(&mut input, index).unwrap();
        let model = |(i, x): (usize, &f32)| {
            (0.8 * f64::from(*x).tanh() + 0.2 * (0.01 * t + i as f64).cos()) as f32
        };
        let output: Vec<f32> = input.iter().enumerate().map(model).collect();
        scheduler
            .step(&output, index, &mut sample, &mut |noise| {
                for (i, n) in noise.iter_mut().enumerate() {
                    *n = (1.1 * (2.3 * i as f64 + 0.7 * f64::from(draws)).cos()) as f32;
                }
                draws += 1;
            })
            .unwrap();
    }
    sample.into_iter().map(f64::from).collect()
}

#[test]
fn tables_are_those_of_diffusers() {
    let mut worst: f64 = 0.0;
    for case in cases() {
        let scheduler = case.build();
        let mut parts = vec![
            error(scheduler.timesteps(), &case.timesteps),
            error(&[scheduler.init_noise_sigma()], &[case.init_noise_sigma]),
        ];
        if !case.sigmas.is_empty() {
            parts.push(error(scheduler.plan().sigmas(), &case.sigmas));
        }
        let found = parts.into_iter().fold(0.0, f64::max);
        assert!(found <= TABLE, "{}: {found:e}", case.name());
        worst = worst.max(found);
    }
    println!("worst table error {worst:e}");
}

#[test]
fn final_latents_are_those_of_diffusers() {
    let mut worst: f64 = 0.0;
    let mut walked = 0;
    for case in cases().iter().filter(|case| !case.r#final.is_empty()) {
        let ours = run(case.build().as_mut(), case.skip, case.r#final.len());
        let found = error(&ours, &case.r#final);
        let loose = case.config.rescale_betas_zero_snr == Some(true)
            || case.config.beta_schedule == Some(BetaSchedule::SquaredcosCapV2);
        let bound = if loose { ZERO_SNR_FINAL } else { FINAL };
        assert!(found <= bound, "{}: {found:e}", case.name());
        if !loose {
            worst = worst.max(found);
        }
        walked += 1;
    }
    assert!(walked > 300, "{walked}");
    println!(
        "worst final error over {walked} runs {worst:e}, those with (nearly) zero terminal SNR left out"
    );
}

fn floats(tensors: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = tensors.tensor(name).unwrap().data().to_vec();
    data.chunks(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

#[test]
fn training_schedules_are_those_of_diffusers() {
    let bytes = std::fs::read(fixtures().join("tables.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut worst: f64 = 0.0;
    for (name, json) in [
        ("linear", "{}"),
        (
            "squaredcos_cap_v2",
            r#"{"beta_schedule": "squaredcos_cap_v2"}"#,
        ),
        (
            "scaled_linear",
            r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}"#,
        ),
        (
            "scaled_linear.zero_snr",
            r#"{"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": true}"#,
        ),
    ] {
        let schedule = NoiseSchedule::new(&serde_json::from_str(json).unwrap()).unwrap();
        let theirs = floats(&tensors, &format!("{name}.alphas_cumprod"));
        assert_eq!(theirs.len(), schedule.alphas_cumprod().len());
        let exact = schedule
            .alphas_cumprod()
            .iter()
            .zip(&theirs)
            .filter(|(a, b)| a == b)
            .count();
        println!("{name}: {exact} of {} equal to the bit", theirs.len());
        for (t, (a, b)) in schedule.alphas_cumprod().iter().zip(&theirs).enumerate() {
            let difference = f64::from((a - b).abs());
            assert!(difference <= TABLE, "{name} at {t}: {a} against {b}");
            // Relative to the entry too: the last alphas are small, and sigmas divide by them.
            let found = difference / f64::from(b.abs()).max(1e-6);
            let bound = if name.ends_with("zero_snr") {
                ZERO_SNR_TABLE
            } else {
                TABLE
            };
            assert!(found <= bound, "{name} at {t}: {a} against {b}");
            worst = worst.max(found);
        }
    }
    println!("worst alphas_cumprod error {worst:e}");
}

#[test]
fn noisy_samples_and_velocities_are_those_of_diffusers() {
    let bytes = std::fs::read(fixtures().join("tables.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let [clean, noise, noisy, velocity] = ["clean", "noise", "noisy", "velocity"]
        .map(|name| floats(&tensors, &format!("training.{name}")));
    let schedule =
        NoiseSchedule::new(&SchedulerConfig::stable_diffusion(PredictionType::Epsilon)).unwrap();
    let width = clean.len() / 4;
    for (row, t) in [0, 1, 500, 999].into_iter().enumerate() {
        let part = |values: &[f32]| values[row * width..][..width].to_vec();
        let (x, n) = (part(&clean), part(&noise));
        for (ours, theirs) in [
            (schedule.add_noise(&x, &n, t).unwrap(), part(&noisy)),
            (schedule.velocity(&x, &n, t).unwrap(), part(&velocity)),
        ] {
            let [ours, theirs] =
                [ours, theirs].map(|v| v.into_iter().map(f64::from).collect::<Vec<_>>());
            assert!(error(&ours, &theirs) <= TABLE, "timestep {t}");
        }
    }
}

#[test]
fn the_scheduler_of_a_published_pipeline_is_read() {
    for (model, kind, spacing_first) in [
        ("tiny-sd", SchedulerKind::Pndm, 981.0),
        ("tiny-sd-v", SchedulerKind::Ddim, 981.0),
    ] {
        let folder = fixtures().parent().unwrap().join(model);
        let config =
            SchedulerConfig::load(&folder.join("scheduler/scheduler_config.json")).unwrap();
        assert_eq!(config.kind().unwrap(), kind);
        assert_eq!(
            build(kind, &config, 50).unwrap().timesteps()[0],
            spacing_first
        );
        // The same file without an explicit spacing gives Euler its own.
        assert_eq!(
            build(SchedulerKind::Euler, &config, 50)
                .unwrap()
                .timesteps()[0],
            999.0
        );
    }
}
