//! Pseudo numerical methods: arXiv 2202.09778, `scheduling_pndm.py`.

use super::arithmetic::weighted;
use super::order::{StepOrder, entry};
use super::spacing::{check_steps, integer_timesteps};
use super::{NoiseSchedule, Plan, PredictionType, Scheduler, SchedulerConfig, SchedulerError};

/// Inference steps that the Runge-Kutta start covers, with four calls of the model for each of the first three.
const RUNGE_KUTTA_STEPS: usize = 4;

/// PNDM: a linear multistep method over the last four model outputs.
///
/// With `skip_prk_steps`, as Stable Diffusion has it, the second timestep is visited twice (Heun's method gets the multistep going), so a run of S steps
/// makes S + 1 calls. Without, the run starts with Runge-Kutta and makes S + 9.
#[derive(Debug, Clone)]
pub struct Pndm {
    schedule: NoiseSchedule,
    prediction: PredictionType,
    final_alpha: f64,
    /// Training timesteps between two inference steps.
    ratio: i64,
    /// How many of the steps are Runge-Kutta.
    runge_kutta: usize,
    steps: Vec<i64>,
    plan: Plan,
    order: StepOrder,
    /// Steps made so far: a run may start in the middle.
    made: usize,
    /// The last model outputs, newest last, at most four.
    outputs: Vec<Vec<f32>>,
    /// The weighted sum of a Runge-Kutta round.
    sum: Vec<f64>,
    /// The sample that the current round starts from.
    origin: Vec<f32>,
}

impl Pndm {
    /// PNDM for a run of `num_inference_steps` steps.
    ///
    /// # Errors
    /// The number of steps does not fit the schedule (Runge-Kutta needs four), or a field is out of range or not supported.
    pub fn new(
        config: &SchedulerConfig,
        num_inference_steps: usize,
    ) -> Result<Self, SchedulerError> {
        let schedule = NoiseSchedule::without_rescaling(config)?;
        let descending = integer_timesteps(config, num_inference_steps)?;
        let ratio = (config.num_train_timesteps() / num_inference_steps) as i64;
        let (start, rest) = if config.skip_prk_steps.unwrap_or(false) {
            (Vec::new(), repeat_second(&descending))
        } else {
            check_steps(
                num_inference_steps,
                RUNGE_KUTTA_STEPS,
                config.num_train_timesteps(),
            )?;
            let rest = descending
                .iter()
                .skip(RUNGE_KUTTA_STEPS - 1)
                .copied()
                .collect();
            (runge_kutta_timesteps(&descending, ratio / 2), rest)
        };
        let final_alpha = if config.set_alpha_to_one.unwrap_or(false) {
            1.0
        } else {
            schedule.alpha_cumprod(0)?
        };
        let steps = [start.as_slice(), rest.as_slice()].concat();
        Ok(Self {
            plan: Plan::over(&schedule, &steps)?,
            schedule,
            prediction: config.prediction_type(),
            final_alpha,
            ratio,
            runge_kutta: start.len(),
            steps,
            order: StepOrder::default(),
            made: 0,
            outputs: Vec::new(),
            sum: Vec::new(),
            origin: Vec::new(),
        })
    }

    /// One of the four calls of a Runge-Kutta round: a half step, another, a full step, and the weighted mean of all.
    fn step_runge_kutta(
        &mut self,
        output: &[f32],
        t: i64,
        sample: &mut [f32],
    ) -> Result<(), SchedulerError> {
        let call = self.made % 4;
        let until = if self.made.is_multiple_of(2) {
            t - self.ratio / 2
        } else {
            t
        };
        let from = entry(&self.steps, self.made - call)?;
        if call == 0 {
            self.sum = vec![0.0; output.len()];
            self.origin = sample.to_vec();
            self.outputs.push(output.to_vec());
        }
        let weight = if call == 0 || call == 3 {
            1.0 / 6.0
        } else {
            1.0 / 3.0
        };
        for (sum, output) in self.sum.iter_mut().zip(output) {
            *sum += weight * f64::from(*output);
        }
        let combined: Vec<f32> = if call == 3 {
            self.sum.iter().map(|sum| *sum as f32).collect()
        } else {
            output.to_vec()
        };
        sample.copy_from_slice(&self.origin);
        self.transfer(&combined, from, until, sample)
    }

    /// One call of the linear multistep method.
    fn step_multistep(
        &mut self,
        output: &[f32],
        t: i64,
        sample: &mut [f32],
    ) -> Result<(), SchedulerError> {
        let (mut from, mut until) = (t, t - self.ratio);
        let combined = if self.made == 1 {
            // The second visit of the second timestep: the first step again, with the mean of its two slopes.
            (from, until) = (t + self.ratio, t);
            sample.copy_from_slice(&self.origin);
            let first = self.outputs.last().map_or(output, Vec::as_slice);
            weighted(&[(0.5, output), (0.5, first)])
        } else {
            if self.made == 0 {
                self.origin = sample.to_vec();
            }
            if self.outputs.len() > 3 {
                self.outputs.remove(0);
            }
            self.outputs.push(output.to_vec());
            match self.outputs.as_slice() {
                [a, b] => weighted(&[(-0.5, a), (1.5, b)]),
                [a, b, c] => weighted(&[(5.0 / 12.0, a), (-16.0 / 12.0, b), (23.0 / 12.0, c)]),
                [a, b, c, d] => weighted(&[
                    (-9.0 / 24.0, a),
                    (37.0 / 24.0, b),
                    (-59.0 / 24.0, c),
                    (55.0 / 24.0, d),
                ]),
                _ => output.to_vec(),
            }
        };
        self.transfer(&combined, from, until, sample)
    }

    /// The noise that predictions of the clean sample stand for. The method combines noise, and diffusers has no `sample` prediction here to follow.
    fn noise_of(&self, output: &[f32], t: i64, sample: &[f32]) -> Result<Vec<f32>, SchedulerError> {
        let alpha = self.schedule.alpha_or(t, self.final_alpha)?;
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let noise = |(x, output): (&f32, &f32)| {
            self.prediction.parts(*output, *x, signal, spread).noise as f32
        };
        Ok(sample.iter().zip(output).map(noise).collect())
    }

    /// Formula 9: moves the sample from one timestep to another along a predicted noise.
    fn transfer(
        &self,
        output: &[f32],
        from: i64,
        until: i64,
        sample: &mut [f32],
    ) -> Result<(), SchedulerError> {
        let alpha = self.schedule.alpha_or(from, self.final_alpha)?;
        let alpha_next = self.schedule.alpha_or(until, self.final_alpha)?;
        let (signal, spread) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let sample_factor = (alpha_next / alpha).sqrt();
        let denominator =
            alpha * (1.0 - alpha_next).sqrt() + (alpha * (1.0 - alpha) * alpha_next).sqrt();
        let noise_factor = (alpha_next - alpha) / denominator;
        for (x, output) in sample.iter_mut().zip(output) {
            let noise = match self.prediction {
                PredictionType::VPrediction => {
                    self.prediction.parts(*output, *x, signal, spread).noise
                }
                PredictionType::Epsilon | PredictionType::Sample => f64::from(*output),
            };
            *x = (sample_factor * f64::from(*x) - noise_factor * noise) as f32;
        }
        Ok(())
    }
}

impl Scheduler for Pndm {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn step(
        &mut self,
        model_output: &[f32],
        step_index: usize,
        sample: &mut [f32],
        _noise: &mut dyn FnMut(&mut [f32]),
    ) -> Result<(), SchedulerError> {
        self.order
            .advance(&self.plan, step_index, model_output, sample)?;
        let t = entry(&self.steps, step_index)?;
        let converted;
        let output = if self.prediction == PredictionType::Sample {
            converted = self.noise_of(model_output, t, sample)?;
            &converted
        } else {
            model_output
        };
        if self.made < self.runge_kutta {
            self.step_runge_kutta(output, t, sample)?;
        } else {
            self.step_multistep(output, t, sample)?;
        }
        self.made += 1;
        Ok(())
    }
}

/// The timesteps with the second one twice: 801, 601, 601, 401, ... A single one stays alone.
fn repeat_second(descending: &[i64]) -> Vec<i64> {
    let second = descending.get(1);
    let (first, rest) = descending.split_at(descending.len().min(1));
    [first, second.map_or(&[][..], std::slice::from_ref), rest].concat()
}

/// The timesteps of the Runge-Kutta rounds: each round visits its start, the middle twice, and its end.
fn runge_kutta_timesteps(descending: &[i64], half: i64) -> Vec<i64> {
    let starts = descending.windows(2).take(RUNGE_KUTTA_STEPS - 1);
    starts
        .flat_map(|pair| match pair {
            [start, end] => vec![*start, end + half, end + half, *end],
            _ => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_timestep_is_visited_twice() {
        let config = SchedulerConfig::stable_diffusion(PredictionType::Epsilon);
        let pndm = Pndm::new(&config, 5).unwrap();
        assert_eq!(pndm.timesteps(), [801.0, 601.0, 601.0, 401.0, 201.0, 1.0]);
        assert_eq!(Pndm::new(&config, 1).unwrap().timesteps(), [1.0]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = Pndm::new(&SchedulerConfig::default(), 3).unwrap_err();
        assert!(
            matches!(
                error,
                SchedulerError::Steps {
                    found: 3,
                    min: 4,
                    ..
                }
            ),
            "{error}"
        );
    }
}
