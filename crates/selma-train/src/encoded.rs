//! What an encoder made of a picture or a text, in memory and as a file.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

/// Key of the checksum in a file's metadata.
const CHECKSUM: &str = "crc32c";

/// Numbers in host memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

/// What was made of one picture: means and standard deviations of its scaled latents, `[channels, height, width]`. Or of one text: its embedding, `[length, width]`, and
/// where there is one (SDXL) the pooled text, `[width]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Encoded {
    pub(crate) first: Array,
    pub(crate) second: Option<Array>,
}

/// Of which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Picture,
    Text,
}

impl Kind {
    /// What the arrays are called in a file.
    const fn names(self) -> [&'static str; 2] {
        match self {
            Self::Picture => ["mean", "deviation"],
            Self::Text => ["context", "pooled"],
        }
    }
}

impl Encoded {
    /// As a safetensors file, with a checksum of the arrays.
    pub(crate) fn to_bytes(&self, kind: Kind) -> Result<Vec<u8>, SafeTensorError> {
        let arrays = [Some(&self.first), self.second.as_ref()];
        let arrays: Vec<(&str, &Array, Vec<u8>)> = kind
            .names()
            .into_iter()
            .zip(arrays)
            .filter_map(|(name, array)| {
                let array = array?;
                let bytes = array.values.iter().flat_map(|value| value.to_le_bytes());
                Some((name, array, bytes.collect()))
            })
            .collect();
        let mut sum = 0;
        let mut views = Vec::with_capacity(arrays.len());
        for (name, array, bytes) in &arrays {
            sum = checksum(sum, &array.shape, bytes);
            let view = TensorView::new(Dtype::F32, array.shape.clone(), bytes)?;
            views.push((*name, view));
        }
        let metadata = [(CHECKSUM.to_owned(), format!("{sum:08x}"))].into();
        safetensors::serialize(views, Some(metadata))
    }

    /// Reads a file of [`to_bytes`](Self::to_bytes); nothing if it is not as it was written.
    pub(crate) fn from_bytes(bytes: &[u8], kind: Kind) -> Option<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).ok()?;
        let expected = header.metadata().as_ref()?.get(CHECKSUM)?;
        let tensors = SafeTensors::deserialize(bytes).ok()?;
        let mut sum = 0;
        let [mut first, mut second] = kind.names().map(|name| {
            let view = tensors.tensor(name).ok()?;
            sum = checksum(sum, view.shape(), view.data());
            let (values, _) = view.data().as_chunks::<4>();
            Some(Array {
                shape: view.shape().to_vec(),
                values: values
                    .iter()
                    .map(|value| f32::from_le_bytes(*value))
                    .collect(),
            })
        });
        (format!("{sum:08x}") == *expected).then_some(())?;
        Some(Self {
            first: first.take()?,
            second: second.take(),
        })
    }
}

/// Continues a checksum over an array.
fn checksum(sum: u32, shape: &[usize], bytes: &[u8]) -> u32 {
    let shape = format!("{shape:?}");
    crc32c::crc32c_append(crc32c::crc32c_append(sum, shape.as_bytes()), bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded() -> Encoded {
        let array = |shape: &[usize]| Array {
            shape: shape.to_vec(),
            values: (0..shape.iter().product())
                .map(|n| n as f32 / 7.0)
                .collect(),
        };
        Encoded {
            first: array(&[3, 4]),
            second: Some(array(&[5])),
        }
    }

    #[test]
    fn a_file_gives_back_what_it_was_made_of() {
        let both = encoded();
        let one = Encoded {
            second: None,
            ..encoded()
        };
        for encoded in [both, one] {
            let bytes = encoded.to_bytes(Kind::Text).unwrap();
            assert_eq!(Encoded::from_bytes(&bytes, Kind::Text), Some(encoded));
            assert_eq!(Encoded::from_bytes(&bytes, Kind::Picture), None);
        }
    }

    #[test]
    fn any_damage_is_seen() {
        let bytes = encoded().to_bytes(Kind::Picture).unwrap();
        for len in 0..bytes.len() {
            assert_eq!(
                Encoded::from_bytes(&bytes[..len], Kind::Picture),
                None,
                "{len}"
            );
        }
        for at in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            let read = Encoded::from_bytes(&bytes, Kind::Picture);
            // In the names of what is not looked at, it does no harm.
            assert!(read.is_none() || read == Some(encoded()), "{at}");
        }
    }
}
