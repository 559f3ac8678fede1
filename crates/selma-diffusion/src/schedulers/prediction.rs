//! What the model's output means.

use serde::{Deserialize, Serialize};

use super::sigmas::factors;

/// What the model was trained to predict from a noisy sample `x_t = sqrt(a) x_0 + sqrt(1 - a) noise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PredictionType {
    /// The noise (arXiv 2006.11239).
    Epsilon,
    /// The velocity `sqrt(a) noise - sqrt(1 - a) x_0` (arXiv 2202.00512, appendix D).
    VPrediction,
    /// The clean sample `x_0`.
    Sample,
}

/// A noisy sample taken apart, one value of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Parts {
    /// The clean sample `x_0`.
    pub(super) clean: f64,
    /// The noise.
    pub(super) noise: f64,
}

impl PredictionType {
    /// The clean sample that a model output stands for, where the sample is `x_0 + sigma * noise` and the model was given it divided by `sqrt(sigma^2 + 1)`.
    pub(super) fn clean(self, output: f32, sample: f32, sigma: f64) -> f64 {
        let (output, sample) = (f64::from(output), f64::from(sample));
        let scale = sigma * sigma + 1.0;
        match self {
            Self::Epsilon => sample - sigma * output,
            Self::VPrediction => sample / scale - output * sigma / scale.sqrt(),
            Self::Sample => output,
        }
    }

    /// How such a sample changes with sigma: the noise in it.
    pub(super) fn slope(self, output: f32, sample: f32, sigma: f64) -> f64 {
        (f64::from(sample) - self.clean(output, sample, sigma)) / sigma
    }

    /// The clean sample and the noise that a model output stands for. `signal` is `sqrt(a)` and `spread` is `sqrt(1 - a)` of the sample's timestep.
    pub(super) fn parts(self, output: f32, sample: f32, signal: f64, spread: f64) -> Parts {
        let (output, sample) = (f64::from(output), f64::from(sample));
        match self {
            Self::Epsilon => Parts {
                clean: (sample - spread * output) / signal,
                noise: output,
            },
            Self::VPrediction => Parts {
                clean: signal * sample - spread * output,
                noise: signal * output + spread * sample,
            },
            Self::Sample => Parts {
                clean: output,
                noise: (sample - signal * output) / spread,
            },
        }
    }

    /// The clean sample that a whole output stands for, where the sample has unit variance: noise of deviation `sigma` for a clean sample of deviation one.
    pub(super) fn clean_sample(self, output: &[f32], sample: &[f32], sigma: f64) -> Vec<f32> {
        let (signal, spread) = factors(sigma);
        let values = sample.iter().zip(output);
        values
            .map(|(x, output)| self.parts(*output, *x, signal, spread).clean as f32)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_prediction_of_the_same_mixture_gives_the_same_parts() {
        let (clean, noise, a) = (0.7_f64, -1.3_f64, 0.36_f64);
        let (signal, spread) = (a.sqrt(), (1.0 - a).sqrt());
        let sample = (signal * clean + spread * noise) as f32;
        for (kind, output) in [
            (PredictionType::Epsilon, noise),
            (PredictionType::VPrediction, signal * noise - spread * clean),
            (PredictionType::Sample, clean),
        ] {
            let parts = kind.parts(output as f32, sample, signal, spread);
            assert!((parts.clean - clean).abs() < 1e-6, "{kind:?}: {parts:?}");
            assert!((parts.noise - noise).abs() < 1e-6, "{kind:?}: {parts:?}");
            let exploding = (f64::from(sample) / signal) as f32;
            let slope = kind.slope(output as f32, exploding, spread / signal);
            assert!((slope - noise).abs() < 1e-6, "{kind:?}: {slope}");
        }
    }

    #[test]
    fn names_are_those_of_the_configuration_files() {
        for (kind, name) in [
            (PredictionType::Epsilon, "\"epsilon\""),
            (PredictionType::VPrediction, "\"v_prediction\""),
            (PredictionType::Sample, "\"sample\""),
        ] {
            assert_eq!(serde_json::to_string(&kind).unwrap(), name);
        }
    }
}
