//! Merging in a training loop of one's own: two workers, each with data of its own, train LoRA factors that are plain arrays; after every round the
//! factors are merged into the weight that both go on from.
//!
//!     cargo run --release --bin merge_in_trainer

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use ndarray::{Array2, ArrayView2, Axis, s};
use selma_lora::merge::{Merge, Method, Term};
use selma_lora::{LoraModule, init};

const SIZE: usize = 16;
const RANK: usize = 4;
const SAMPLES: usize = 64;
const STEPS: usize = 100;
const LEARNING_RATE: f32 = 0.2;

/// Random numbers of deviation 1.
fn random(name: &str, rows: usize, columns: usize) -> Array2<f32> {
    init::gaussian_a(name, rows, columns, 0) * rows as f32
}

/// The loss of a weight on inputs `[SIZE, samples]`, and its gradient.
fn loss(
    weight: &Array2<f32>,
    truth: &Array2<f32>,
    inputs: &ArrayView2<'_, f32>,
) -> (f32, Array2<f32>) {
    let error = (weight - truth).dot(inputs);
    let samples = inputs.len_of(Axis(1)) as f32;
    let loss = error.mapv(|x| x * x).sum() / samples;
    (loss, error.dot(&inputs.t()) / samples)
}

fn main() -> anyhow::Result<()> {
    // What is to be learned, and inputs of which the first worker sees one half of the channels alone and the second the other.
    let truth = random("truth", SIZE, SIZE) * 0.3;
    let mut inputs = [
        random("first", SIZE, SAMPLES),
        random("second", SIZE, SAMPLES),
    ];
    let [first, second] = &mut inputs;
    first.slice_mut(s![..SIZE / 2, ..]).fill(0.0);
    second.slice_mut(s![SIZE / 2.., ..]).fill(0.0);

    let mut weight = Array2::zeros((SIZE, SIZE));
    for round in 1..=12 {
        let mut trained = Vec::new();
        for inputs in &inputs {
            // The other way round than usual: with A starting at zero an update has nothing in channels that its worker does not see.
            let mut a = Array2::zeros((RANK, SIZE));
            let mut b = init::gaussian_a("layer", RANK, SIZE, round).reversed_axes();
            for _ in 0..STEPS {
                let (_, gradient) = loss(&(&weight + &b.dot(&a)), &truth, &inputs.view());
                let (to_a, to_b) = (b.t().dot(&gradient), gradient.dot(&a.t()));
                a.scaled_add(-LEARNING_RATE, &to_a);
                b.scaled_add(-LEARNING_RATE, &to_b);
            }
            // Alpha equal to the rank: the update is B A as it stands.
            trained.push(LoraModule::new(a.into_dyn(), b.into_dyn(), RANK as f64)?);
        }
        let terms: Vec<Option<Term<'_>>> = trained
            .iter()
            .map(|module| {
                Some(Term {
                    module,
                    weight: 1.0,
                })
            })
            .collect();
        // One layer without files around it; any method can stand here.
        let (merged, report) = Merge::new(Method::Sum).module("layer", &terms)?;
        weight += &merged.delta()?;

        let [first, second] = &inputs;
        println!(
            "round {round}: loss {:.4} and {:.4}, merged rank {}, off from the formula by {:.0e}",
            loss(&weight, &truth, &first.view()).0,
            loss(&weight, &truth, &second.view()).0,
            report.rank,
            report.self_check
        );
    }
    Ok(())
}
