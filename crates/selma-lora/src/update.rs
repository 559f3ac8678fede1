//! Updates of weights of every kind that a file can hold.
//!
//! Merging and training need the two factors of a [`LoraModule`]. What comes as a LoHa, a LoKr or a
//! full difference has them only approximately, and a DoRA only together with the weight it is for, so
//! they are kept as they are until a rank is chosen.

mod dora;
mod loha;
mod lokr;
mod side;

use std::{borrow::Cow, fmt};

use ndarray::{Array2, ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

pub use dora::Dora;
pub use loha::Loha;
pub use lokr::Lokr;
pub(crate) use side::{Matrix, Side, contract, flattened};

use crate::{Cut, LoraError, LoraModule, RankRule, matching::fits, module::row_major};

/// The kinds of update that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// Two factors, `dW = alpha / rank * B A`.
    Lora,
    /// The elementwise product of two LoRAs (LyCORIS, FedPara).
    Loha,
    /// The Kronecker product of two matrices (LyCORIS).
    Lokr,
    /// The whole difference. An alpha beside it has no meaning and is left out of account, as
    /// LyCORIS does.
    Full,
    /// One of the low-rank kinds with the lengths of the weight's rows learnt beside it.
    Dora,
}

impl Kind {
    /// How people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lora => "LoRA",
            Self::Loha => "LoHa",
            Self::Lokr => "LoKr",
            Self::Full => "a full difference",
            Self::Dora => "DoRA",
        }
    }

    pub(crate) fn with_article(self) -> &'static str {
        match self {
            Self::Lora => "a LoRA",
            Self::Loha => "a LoHa",
            Self::Lokr => "a LoKr",
            Self::Full => "a full difference",
            Self::Dora => "a DoRA",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One update of a weight, in the form it was stored in.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Update {
    /// Two factors.
    Lora(LoraModule),
    /// The elementwise product of two LoRAs.
    Loha(Loha),
    /// The Kronecker product of two matrices.
    Lokr(Lokr),
    /// The difference `[out, in, kernel..]` itself.
    Full(ArrayD<f32>),
    /// A direction and the lengths of the weight's rows.
    Dora(Dora),
}

/// The most numbers that a dense update may have, 8 GiB of them.
pub(crate) const MAX_DELTA: usize = 1 << 30;

/// Refuses shapes of more than `limit` numbers.
pub(crate) fn check_size(what: &str, shape: &[usize], limit: usize) -> Result<(), LoraError> {
    let mut lengths = shape.iter();
    match lengths.try_fold(1, |n: usize, &length| n.checked_mul(length)) {
        Some(numbers) if numbers <= limit => Ok(()),
        _ => Err(LoraError::TooLarge {
            what: what.to_owned(),
            shape: shape.to_vec(),
        }),
    }
}

impl Update {
    /// A full difference.
    ///
    /// # Errors
    /// [`LoraError::DeltaShape`] for fewer than two dimensions or a dimension of zero.
    pub fn full(difference: ArrayD<f32>) -> Result<Self, LoraError> {
        if difference.ndim() < 2 || difference.is_empty() {
            return Err(LoraError::DeltaShape {
                shape: difference.shape().to_vec(),
            });
        }
        Ok(Self::Full(difference))
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Lora(_) => Kind::Lora,
            Self::Loha(_) => Kind::Loha,
            Self::Lokr(_) => Kind::Lokr,
            Self::Full(_) => Kind::Full,
            Self::Dora(_) => Kind::Dora,
        }
    }

    /// The shape of the weight this changes, `[out, in]` or `[out, in, kh, kw]`; where the file does
    /// not say how a kernel is shaped (LoHa and LoKr of convolutions without a core), `[out, in * kh * kw]`.
    #[must_use]
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Self::Lora(lora) => lora.weight_shape(),
            Self::Loha(loha) => loha.weight_shape(),
            Self::Lokr(lokr) => lokr.weight_shape(),
            Self::Full(difference) => difference.shape().to_vec(),
            Self::Dora(dora) => dora.direction().weight_shape(),
        }
    }

    /// True when the update can be added to a weight of this shape.
    #[must_use]
    pub fn fits(&self, weight: &[usize]) -> bool {
        fits(weight, &self.weight_shape(), self.may_be_flat())
    }

    /// True for the kinds that may keep the kernel of a convolution multiplied into its inputs.
    pub(crate) fn may_be_flat(&self) -> bool {
        match self {
            Self::Loha(_) | Self::Lokr(_) => true,
            Self::Dora(dora) => dora.direction().may_be_flat(),
            Self::Lora(_) | Self::Full(_) => false,
        }
    }

    /// The dense update `dW [out, in * kh * kw]`.
    ///
    /// # Errors
    /// [`LoraError::FactorShapes`] when the factors of a LoRA do not fit each other,
    /// [`LoraError::BaseNeeded`] for DoRA, which [`delta_on`](Self::delta_on) is for,
    /// [`LoraError::TooLarge`] for more than 2^30 numbers, which a few bytes of factors can stand for.
    pub fn delta(&self) -> Result<Array2<f64>, LoraError> {
        check_size("the dense update", &self.weight_shape(), MAX_DELTA)?;
        match self {
            Self::Lora(lora) => lora.delta_f64(),
            Self::Loha(loha) => Ok(loha.delta()),
            Self::Lokr(lokr) => Ok(lokr.delta()),
            Self::Full(difference) => Ok(flattened(difference)),
            Self::Dora(_) => Err(LoraError::BaseNeeded { kind: Kind::Dora }),
        }
    }

    /// The dense update `dW [out, in * kh * kw]` of the weight `base`, `[out, in]` or
    /// `[out, in, kh, kw]`. Only for DoRA does it depend on the values of `base`.
    ///
    /// # Errors
    /// [`LoraError::WeightShapes`] when the update does not fit `base`, [`LoraError::PartShapes`] when the
    /// lengths of a DoRA do not, and as [`delta`](Self::delta).
    pub fn delta_on(&self, base: &ArrayViewD<'_, f32>) -> Result<Array2<f64>, LoraError> {
        self.check_fit(base.shape())?;
        match self {
            Self::Dora(dora) => dora.delta_on(base),
            _ => self.delta(),
        }
    }

    fn check_fit(&self, weight: &[usize]) -> Result<(), LoraError> {
        if self.fits(weight) {
            return Ok(());
        }
        Err(LoraError::WeightShapes {
            expected: weight.to_vec(),
            found: self.weight_shape(),
        })
    }

    /// The update as a LoRA: what is one already stays as it is, anything else becomes the best
    /// approximation of the rank that `rule` chooses.
    ///
    /// `weight` is the shape of the weight where it is known; see [`weight_shape`](Self::weight_shape).
    ///
    /// # Errors
    /// [`LoraError::WeightShapes`] when the update does not fit `weight`, [`LoraError::BaseNeeded`] for
    /// DoRA, which [`to_lora_on`](Self::to_lora_on) is for, and what [`LoraModule::from_delta`] finds.
    pub fn to_lora(
        &self,
        rule: RankRule,
        weight: Option<&[usize]>,
    ) -> Result<(LoraModule, Cut), LoraError> {
        if let Some(weight) = weight {
            self.check_fit(weight)?;
        }
        if let Self::Lora(lora) = self {
            return Ok((lora.clone(), Cut::none(lora)));
        }
        let shape = weight.map_or_else(|| Cow::Owned(self.weight_shape()), Cow::Borrowed);
        LoraModule::from_delta(&self.delta()?, &shape, rule)
    }

    /// Like [`to_lora`](Self::to_lora) where the weight itself is at hand, which DoRA needs.
    ///
    /// # Errors
    /// As [`delta_on`](Self::delta_on) and [`LoraModule::from_delta`].
    pub fn to_lora_on(
        &self,
        rule: RankRule,
        base: &ArrayViewD<'_, f32>,
    ) -> Result<(LoraModule, Cut), LoraError> {
        match self {
            Self::Dora(_) => LoraModule::from_delta(&self.delta_on(base)?, base.shape(), rule),
            _ => self.to_lora(rule, Some(base.shape())),
        }
    }

    /// Numbers stored.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|tensor| tensor.len()).sum()
    }

    /// True when a tensor whose product the update is holds zeros alone. Of a DoRA that cannot be said
    /// without the weight.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Lora(lora) => lora.is_zero(),
            Self::Dora(_) => false,
            Self::Loha(_) | Self::Lokr(_) | Self::Full(_) => {
                let mut tensors = self.tensors().into_iter();
                tensors.any(|tensor| tensor.iter().all(|&x| x == 0.0))
            }
        }
    }

    /// True when every number is finite.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.tensors()
            .iter()
            .all(|tensor| row_major(tensor).iter().all(|x| x.is_finite()))
    }

    fn tensors(&self) -> Vec<&ArrayD<f32>> {
        match self {
            Self::Lora(lora) => vec![&lora.a, &lora.b],
            Self::Loha(loha) => loha.tensors(),
            Self::Lokr(lokr) => lokr.tensors(),
            Self::Full(difference) => vec![difference],
            Self::Dora(dora) => dora.tensors(),
        }
    }
}
