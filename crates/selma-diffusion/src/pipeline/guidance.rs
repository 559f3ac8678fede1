//! Classifier-free guidance: arXiv 2207.12598, and its rescaling, arXiv 2305.08891, section 3.4.

/// The guided predictions of a batch. `both` are the predictions without the prompts and then those with them, `len` values an image.
pub(super) fn guided(both: &[f32], len: usize, scale: f64, rescaled: f64) -> Vec<f32> {
    let (without, with) = both.split_at(both.len() / 2);
    let mut guided = guide(without, with, scale);
    let images = guided.chunks_mut(len.max(1)).zip(with.chunks(len.max(1)));
    for (image, with) in images {
        rescale(image, with, rescaled);
    }
    guided
}

/// The prediction that leads away from `without` towards `with`, `scale` times as far as it is: `[len of both]`.
fn guide(without: &[f32], with: &[f32], scale: f64) -> Vec<f32> {
    let pairs = without.iter().zip(with);
    pairs
        .map(|(without, with)| {
            let (without, with) = (f64::from(*without), f64::from(*with));
            (without + scale * (with - without)) as f32
        })
        .collect()
}

/// Brings the guided prediction of one image closer to the deviation of the one with its prompt, all the way at a `share` of 1: `rescale_noise_cfg` of
/// diffusers. Strong guidance otherwise makes pictures too bright.
fn rescale(guided: &mut [f32], with: &[f32], share: f64) {
    let spread = deviation(guided);
    if share == 0.0 || spread == 0.0 {
        return;
    }
    let factor = share * deviation(with) / spread + (1.0 - share);
    for value in guided {
        *value = (f64::from(*value) * factor) as f32;
    }
}

fn deviation(values: &[f32]) -> f64 {
    let count = values.len().max(1) as f64;
    let mean = values.iter().copied().map(f64::from).sum::<f64>() / count;
    let squares = values
        .iter()
        .map(|value| (f64::from(*value) - mean).powi(2));
    (squares.sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guidance_goes_on_from_the_prediction_without_the_prompt() {
        assert_eq!(guide(&[1.0, 2.0], &[2.0, 0.0], 1.0), [2.0, 0.0]);
        assert_eq!(guide(&[1.0, 2.0], &[2.0, 0.0], 3.0), [4.0, -4.0]);
    }

    #[test]
    fn rescaling_gives_the_deviation_of_the_prediction_with_the_prompt() {
        let with = [0.5, -0.5, 1.0, -1.0];
        let guided = [4.0, -2.0, 8.0, -6.0];
        let mut whole = guided;
        rescale(&mut whole, &with, 1.0);
        assert!((deviation(&whole) - deviation(&with)).abs() < 1e-6);
        let mut half = guided;
        rescale(&mut half, &with, 0.5);
        for ((half, whole), guided) in half.iter().zip(whole).zip(guided) {
            assert!((half - f32::midpoint(whole, guided)).abs() < 1e-6);
        }
        let (mut none, mut flat) = (guided, [0.0; 4]);
        rescale(&mut none, &with, 0.0);
        rescale(&mut flat, &with, 1.0);
        assert_eq!((none, flat), (guided, [0.0; 4]));
    }
}
