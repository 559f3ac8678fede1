//! DoRA: an update that fixes the lengths of the weight's rows (arXiv 2402.09353).

use ndarray::{Array2, ArrayD, ArrayViewD};

use super::{Kind, Update, flattened};
use crate::LoraError;

/// `W + dW = m * (W + dV) / ||W + dV||` with a length `m` for every output (or, in some files of
/// LyCORIS and OneTrainer, for every input) and a low-rank `dV` (PEFT `tuners/lora/dora.py`; LyCORIS
/// `functional/general.py`, `weight_decompose`). What `dW` is depends on `W`, which the file does not
/// hold: [`Update::delta_on`] takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Dora {
    direction: Box<Update>,
    magnitude: ArrayD<f32>,
    axis: Axis,
}

/// What has a length of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Axis {
    Outputs,
    Inputs,
}

impl Dora {
    /// A magnitude as PEFT stores it: `[out]`, for a convolution `[1, out, 1, 1]`.
    pub(crate) fn of_peft(direction: Update, magnitude: ArrayD<f32>) -> Result<Self, LoraError> {
        let outputs = outputs(&direction);
        let fits = match magnitude.shape() {
            [n] => *n == outputs,
            [1, n, ones @ ..] => *n == outputs && ones.iter().all(|&k| k == 1),
            _ => false,
        };
        Self::new(direction, magnitude, fits.then_some(Axis::Outputs))
    }

    /// A magnitude as LyCORIS stores it: `[out, 1..]`, or `[1, in, 1..]` for inputs.
    pub(crate) fn of_lycoris(direction: Update, magnitude: ArrayD<f32>) -> Result<Self, LoraError> {
        let inputs = direction.weight_shape().get(1).copied().unwrap_or(0);
        let axis = match magnitude.shape() {
            [n, ones @ ..] if *n == outputs(&direction) && ones.iter().all(|&k| k == 1) => {
                Some(Axis::Outputs)
            }
            [1, n, ones @ ..] if ones.iter().all(|&k| k == 1) => {
                let flat = direction.may_be_flat() && inputs.is_multiple_of(*n);
                (inputs == *n || flat).then_some(Axis::Inputs)
            }
            _ => None,
        };
        Self::new(direction, magnitude, axis)
    }

    fn new(
        direction: Update,
        magnitude: ArrayD<f32>,
        axis: Option<Axis>,
    ) -> Result<Self, LoraError> {
        let Some(axis) = axis else {
            return Err(LoraError::PartShapes {
                left: "the magnitude of DoRA",
                left_shape: magnitude.shape().to_vec(),
                right: "the weight",
                right_shape: direction.weight_shape(),
            });
        };
        Ok(Self {
            direction: Box::new(direction),
            magnitude,
            axis,
        })
    }

    /// The low-rank `dV`: a LoRA, LoHa or LoKr.
    #[must_use]
    pub fn direction(&self) -> &Update {
        &self.direction
    }

    /// What the direction is.
    #[must_use]
    pub fn direction_kind(&self) -> Kind {
        self.direction.kind()
    }

    /// The dense update of `base`, which the direction is known to fit.
    pub(super) fn delta_on(&self, base: &ArrayViewD<'_, f32>) -> Result<Array2<f64>, LoraError> {
        let inputs = base.shape().get(1).copied().unwrap_or(0);
        let before = flattened(&base.to_owned());
        let kernel = before.ncols().checked_div(inputs).unwrap_or(1).max(1);
        let mut after = self.direction.delta()?;
        after += &before;
        let groups = match self.axis {
            Axis::Outputs => after.nrows(),
            Axis::Inputs => inputs,
        };
        if self.magnitude.len() != groups {
            return Err(LoraError::PartShapes {
                left: "the magnitude of DoRA",
                left_shape: self.magnitude.shape().to_vec(),
                right: "the weight",
                right_shape: base.shape().to_vec(),
            });
        }
        let group = |row: usize, column: usize| match self.axis {
            Axis::Outputs => row,
            Axis::Inputs => column / kernel,
        };
        let mut squares = vec![0.0_f64; groups];
        for ((row, column), value) in after.indexed_iter() {
            if let Some(square) = squares.get_mut(group(row, column)) {
                *square += value * value;
            }
        }
        let factors: Vec<f64> = squares
            .iter()
            .zip(&self.magnitude)
            // What has no length has no direction either, and stays zero.
            .map(|(&square, &m)| match square {
                0.0 => 0.0,
                square => f64::from(m) / square.sqrt(),
            })
            .collect();
        for ((row, column), value) in after.indexed_iter_mut() {
            *value *= factors.get(group(row, column)).copied().unwrap_or(0.0);
        }
        after -= &before;
        Ok(after)
    }

    pub(super) fn tensors(&self) -> Vec<&ArrayD<f32>> {
        let mut tensors = self.direction.tensors();
        tensors.push(&self.magnitude);
        tensors
    }
}

fn outputs(direction: &Update) -> usize {
    direction.weight_shape().first().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use ndarray::{IxDyn, arr2};

    use super::*;
    use crate::{LoraModule, RankRule};

    fn direction() -> Update {
        let a = arr2(&[[1.0, 0.0]]).into_dyn();
        let b = arr2(&[[3.0], [0.0], [1.0]]).into_dyn();
        Update::Lora(LoraModule::new(a, b, 1.0).unwrap())
    }

    fn vector(shape: &[usize], values: &[f32]) -> ArrayD<f32> {
        ArrayD::from_shape_vec(IxDyn(shape), values.to_vec()).unwrap()
    }

    #[test]
    fn rows_get_the_length_that_was_learnt() {
        let base = arr2(&[[0.0, 4.0], [0.0, 0.0], [-1.0, 0.0]]).into_dyn();
        let lengths = [10.0, 7.0, 5.0];
        for magnitude in [vector(&[3], &lengths), vector(&[3, 1], &lengths)] {
            let dora = Dora::of_lycoris(direction(), magnitude).unwrap();
            let update = Update::Dora(dora);
            // [3, 4] has the length 5, the others are zero rows.
            let expected = arr2(&[[6.0, 4.0], [0.0, 0.0], [1.0, 0.0]]);
            assert_eq!(update.delta_on(&base.view()).unwrap(), expected);
            assert_eq!(update.weight_shape(), [3, 2]);
            assert!(!update.is_zero() && update.is_finite());
            assert_eq!(update.parameters(), 8);
        }
    }

    #[test]
    fn lengths_that_the_sum_has_already_change_nothing_more() {
        // Then a DoRA is its direction: for outputs and inputs, linear and 3x3.
        for (shape, lengths) in [
            (&[5, 4][..], &[5, 1][..]),
            (&[5, 4], &[1, 4]),
            (&[5, 4, 3, 3], &[5, 1, 1, 1]),
            (&[5, 4, 3, 3], &[1, 4, 1, 1]),
        ] {
            let mut lora = crate::init::gaussian("x", shape, 2, 3.0, 0).unwrap();
            lora.b
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = i as f32 - 4.5);
            let base =
                ArrayD::from_shape_fn(IxDyn(shape), |i| (i[0] * 7 + i[1] * 5) as f32 % 11.0 - 5.0);
            let delta = lora.delta_f64().unwrap();
            let sum = &delta + &flattened(&base);
            let kernel = sum.ncols() / 4;
            let mut magnitude = ArrayD::zeros(IxDyn(lengths));
            for ((row, column), x) in sum.indexed_iter() {
                let mut at = vec![0; lengths.len()];
                if lengths[0] == 1 {
                    at[1] = column / kernel;
                } else {
                    at[0] = row;
                }
                magnitude[IxDyn(&at)] += (x * x) as f32;
            }
            magnitude.mapv_inplace(f32::sqrt);
            let dora = Dora::of_lycoris(Update::Lora(lora), magnitude).unwrap();
            let found = Update::Dora(dora).delta_on(&base.view()).unwrap();
            let worst = (found - delta)
                .iter()
                .fold(0.0, |worst: f64, x| worst.max(x.abs()));
            assert!(worst < 1e-4, "{shape:?} {lengths:?}: {worst:e}");
        }
    }

    #[test]
    fn columns_can_have_lengths_too() {
        let base = arr2(&[[0.0, 3.0], [0.0, 4.0], [3.0, 0.0]]).into_dyn();
        let dora = Dora::of_lycoris(direction(), vector(&[1, 2], &[10.0, 1.0])).unwrap();
        // The first column becomes [3, 0, 4], the second is [3, 4, 0].
        let expected = [[6.0, 0.6 - 3.0], [0.0, 0.8 - 4.0], [8.0 - 3.0, 0.0]];
        let delta = Update::Dora(dora).delta_on(&base.view()).unwrap();
        assert!((delta - arr2(&expected)).iter().all(|x| x.abs() < 1e-7));
    }

    #[test]
    fn without_the_weight_there_is_no_update() {
        let dora = Dora::of_peft(direction(), vector(&[3], &[1.0; 3])).unwrap();
        let update = Update::Dora(dora);
        let rule = RankRule::Number(1);
        assert!(matches!(
            update.delta(),
            Err(LoraError::BaseNeeded { kind: Kind::Dora })
        ));
        assert!(update.to_lora(rule, Some(&[3, 2])).is_err());
        let other = ArrayD::zeros(IxDyn(&[2, 3]));
        for error in [
            update.delta_on(&other.view()).unwrap_err(),
            update.to_lora_on(rule, &other.view()).unwrap_err(),
        ] {
            assert!(matches!(error, LoraError::WeightShapes { .. }));
        }
    }

    #[test]
    fn magnitudes_of_other_shapes_are_refused() {
        for shape in [&[2][..], &[1, 2], &[1, 3, 2], &[3, 3], &[]] {
            let magnitude = ArrayD::ones(IxDyn(shape));
            let error = Dora::of_peft(direction(), magnitude).unwrap_err();
            assert!(matches!(error, LoraError::PartShapes { .. }), "{shape:?}");
        }
        // For PEFT's convolutions the second dimension is that of the outputs.
        assert!(Dora::of_peft(direction(), ArrayD::ones(IxDyn(&[1, 3, 1, 1]))).is_ok());
        for shape in [&[2][..], &[1, 3], &[2, 1], &[1, 2, 2], &[]] {
            let magnitude = ArrayD::ones(IxDyn(shape));
            let error = Dora::of_lycoris(direction(), magnitude).unwrap_err();
            assert!(matches!(error, LoraError::PartShapes { .. }), "{shape:?}");
        }
    }
}
