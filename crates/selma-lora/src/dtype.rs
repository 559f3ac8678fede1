//! Number types of stored factors.

use std::{fmt, str::FromStr};

use half::{bf16, f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};
use serde::{Deserialize, Serialize};

use crate::LoraError;

/// The number type that factors are stored in. In memory they are always `f32`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit floats: exact, what trainers resume from.
    #[default]
    F32,
    /// 16-bit floats with 10 bits of fraction: what most shared adapters use.
    F16,
    /// 16-bit floats with 7 bits of fraction and the range of `f32`.
    BF16,
}

impl Dtype {
    /// Bytes of one number.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The name of the type in a safetensors header.
    pub(crate) fn header_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        }
    }

    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::F32 => Some(Self::F32),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::BF16 => Some(Self::BF16),
            _ => None,
        }
    }

    /// Little-endian bytes to numbers; an incomplete number at the end is ignored (the safetensors
    /// reader has checked the length).
    pub(crate) fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => numbers(bytes, f32::from_le_bytes),
            Self::F16 => widened(bytes, f16::from_le_bytes, |x, to| {
                x.convert_to_f32_slice(to)
            }),
            Self::BF16 => widened(bytes, bf16::from_le_bytes, |x, to| {
                x.convert_to_f32_slice(to)
            }),
        }
    }

    /// Numbers to little-endian bytes, rounded to the nearest; `Err` is a value out of range.
    pub(crate) fn encode(self, values: &[f32]) -> Result<Vec<u8>, f32> {
        // Whole slices, for which `half` has the processor's own conversion.
        let (bytes, misfit) = match self {
            Self::F32 => {
                let misfit = first_odd(values, |x| x.is_finite());
                (bytes_of(values, |x| x.to_le_bytes()), misfit)
            }
            Self::F16 => {
                let stored = Vec::<f16>::from_f32_slice(values);
                let misfit = first_odd(&stored, |x| x.is_finite());
                (bytes_of(&stored, |x| x.to_le_bytes()), misfit)
            }
            Self::BF16 => {
                let stored = Vec::<bf16>::from_f32_slice(values);
                let misfit = first_odd(&stored, |x| x.is_finite());
                (bytes_of(&stored, |x| x.to_le_bytes()), misfit)
            }
        };
        match misfit.and_then(|index| values.get(index)) {
            Some(&value) => Err(value),
            None => Ok(bytes),
        }
    }
}

fn bytes_of<T: Copy, const N: usize>(numbers: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    let mut all = vec![0; numbers.len() * N];
    let (chunks, _) = all.as_chunks_mut::<N>();
    for (chunk, &number) in chunks.iter_mut().zip(numbers) {
        *chunk = bytes(number);
    }
    all
}

/// The position of the first number that is not finite.
fn first_odd<T: Copy>(numbers: &[T], finite: impl Fn(T) -> bool) -> Option<usize> {
    // Without a way out inside a block, which is what makes the compiler take many numbers at once.
    const BLOCK: usize = 1024;
    let odd = |block: &[T]| !block.iter().fold(true, |all, &x| all & finite(x));
    let start = BLOCK * numbers.chunks(BLOCK).position(odd)?;
    let block = numbers.get(start..)?;
    Some(start + block.iter().position(|&x| !finite(x))?)
}

/// True when all numbers are finite.
pub(crate) fn are_finite(numbers: &[f32]) -> bool {
    first_odd(numbers, f32::is_finite).is_none()
}

fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|&chunk| number(chunk)).collect()
}

/// Halves to `f32`, as many at a time as stay in the cache.
fn widened<T: Copy + Default>(
    bytes: &[u8],
    number: impl Fn([u8; 2]) -> T,
    widen: impl Fn(&[T], &mut [f32]),
) -> Vec<f32> {
    const BLOCK: usize = 1024;
    let (pairs, _) = bytes.as_chunks::<2>();
    // Not zeros to write over, which would be written to memory before.
    let mut values = Vec::with_capacity(pairs.len());
    let mut block = [T::default(); BLOCK];
    let mut wide = [0.0; BLOCK];
    for pairs in pairs.chunks(BLOCK) {
        let halves = block.get_mut(..pairs.len()).unwrap_or_default();
        for (half, &pair) in halves.iter_mut().zip(pairs) {
            *half = number(pair);
        }
        let wide = wide.get_mut(..pairs.len()).unwrap_or_default();
        widen(halves, wide);
        values.extend_from_slice(wide);
    }
    values
}

impl Dtype {
    /// As [`encode`](Self::encode), with an error that names the tensor.
    pub(crate) fn encode_named(self, name: &str, values: &[f32]) -> Result<Vec<u8>, LoraError> {
        self.encode(values).map_err(|value| {
            let key = name.to_owned();
            if value.is_finite() {
                let dtype = self;
                LoraError::Overflow { key, value, dtype }
            } else {
                LoraError::NonFinite { key }
            }
        })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

impl FromStr for Dtype {
    type Err = LoraError;

    fn from_str(name: &str) -> Result<Self, LoraError> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::BF16),
            _ => Err(LoraError::UnknownName {
                what: "number type",
                found: name.to_owned(),
                expected: "f32, f16, bf16",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_when_they_fit() {
        let values = [0.0, -0.5, 1.25, 384.0];
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            let bytes = dtype.encode(&values).unwrap();
            assert_eq!(bytes.len(), values.len() * dtype.size());
            assert_eq!(dtype.decode(&bytes), values);
            assert_eq!(dtype.to_string().parse::<Dtype>().unwrap(), dtype);
        }
    }

    #[test]
    fn numbers_are_rounded_to_the_nearest() {
        // Halfway between two f16 (bf16) numbers goes to the even one.
        let halfway = 1.0 + 1.0 / 2048.0;
        let bytes = Dtype::F16.encode(&[halfway, 1.0006]).unwrap();
        assert_eq!(Dtype::F16.decode(&bytes), [1.0, 1.0 + 1.0 / 1024.0]);
        let halfway = 1.0 + 1.0 / 256.0;
        let bytes = Dtype::BF16.encode(&[halfway, 1.005]).unwrap();
        assert_eq!(Dtype::BF16.decode(&bytes), [1.0, 1.0 + 1.0 / 128.0]);
    }

    #[test]
    fn values_out_of_range_are_reported() {
        assert_eq!(Dtype::F16.encode(&[1.0, 70_000.0]), Err(70_000.0));
        assert!(Dtype::BF16.encode(&[70_000.0]).is_ok());
        assert!(Dtype::F32.encode(&[f32::NAN]).is_err());
        assert!("f64".parse::<Dtype>().is_err());
    }
}
