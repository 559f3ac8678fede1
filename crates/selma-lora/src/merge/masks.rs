//! Which entries random sparsifiers keep: from a generator, or from outside.

use std::{collections::BTreeMap, path::Path};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::Dtype;
use sha2::{Digest, Sha256};

use crate::{LoraError, format::open};

/// Bernoulli masks that were drawn elsewhere, to repeat a merge of another program.
///
/// A mask is named `module.adapter.part`: the module's path, the adapter's position from 0, and what
/// is masked: `A` and `B` for methods on the factors, `dW` for methods on the update, `knots` and
/// `core` for methods in these bases. Its entries are in row-major order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masks {
    masks: BTreeMap<String, Vec<bool>>,
}

impl Masks {
    /// Reads a safetensors file of `BOOL` or `U8` tensors; everything but 0 keeps an entry.
    ///
    /// # Errors
    /// [`LoraError::Io`]; around the file ([`LoraError::InFile`]): [`LoraError::NotSafetensors`],
    /// [`LoraError::RepeatedName`], and [`LoraError::MaskDtype`] for a tensor of another type.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(LoraError::unreadable(path))?;
        Self::from_bytes(&bytes).map_err(|error| error.in_file(path))
    }

    /// Reads the bytes of such a file.
    ///
    /// # Errors
    /// What [`load`](Self::load) wraps in [`LoraError::InFile`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, LoraError> {
        let (file, _) = open(bytes)?;
        let masks = file
            .iter()
            .map(|(key, tensor)| match tensor.dtype() {
                Dtype::BOOL | Dtype::U8 => {
                    let mask = tensor.data().iter().map(|&byte| byte != 0).collect();
                    Ok((key.to_owned(), mask))
                }
                found => Err(LoraError::MaskDtype {
                    key: key.to_owned(),
                    found: format!("{found:?}"),
                }),
            })
            .collect::<Result<_, LoraError>>()?;
        Ok(Self { masks })
    }

    /// Masks made in memory, by name.
    #[must_use]
    pub fn new(masks: impl IntoIterator<Item = (String, Vec<bool>)>) -> Self {
        Self {
            masks: masks.into_iter().collect(),
        }
    }

    /// SHA-256 of names and masks, for records.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (key, mask) in &self.masks {
            hash.update((key.len() as u64).to_le_bytes());
            hash.update(key.as_bytes());
            hash.update((mask.len() as u64).to_le_bytes());
            let bytes: Vec<u8> = mask.iter().map(|&keep| u8::from(keep)).collect();
            hash.update(&bytes);
        }
        hex::encode(hash.finalize())
    }
}

/// Where the masks of one tensor come from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draw<'a> {
    pub(super) masks: Option<&'a Masks>,
    pub(super) seed: u64,
    pub(super) module: &'a str,
    pub(super) adapter: usize,
    pub(super) part: &'a str,
}

impl Draw<'_> {
    /// Keeps entry `i` with the probability `probabilities[i]`, unless there are masks from outside.
    pub(super) fn bernoulli(
        &self,
        probabilities: impl ExactSizeIterator<Item = f64>,
    ) -> Result<Vec<bool>, LoraError> {
        let Some(masks) = self.masks else {
            let mut generator = self.generator();
            return Ok(probabilities
                .map(|probability| generator.random::<f64>() < probability)
                .collect());
        };
        let key = format!("{}.{}.{}", self.module, self.adapter, self.part);
        match masks.masks.get(&key) {
            Some(mask) if mask.len() == probabilities.len() => Ok(mask.clone()),
            found => Err(LoraError::Mask {
                key,
                expected: probabilities.len(),
                found: found.map(Vec::len),
            }),
        }
    }

    /// A generator of its own for every seed, module, adapter and part: what is drawn does not
    /// depend on which other modules and adapters there are or on the order they are merged in.
    pub(super) fn generator(&self) -> ChaCha8Rng {
        let mut key = Sha256::new();
        key.update(b"selma-lora masks");
        key.update(self.seed.to_le_bytes());
        key.update((self.adapter as u64).to_le_bytes());
        key.update((self.part.len() as u64).to_le_bytes());
        key.update(self.part.as_bytes());
        key.update(self.module.as_bytes());
        ChaCha8Rng::from_seed(key.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use safetensors::tensor::TensorView;

    use super::*;

    const DRAW: Draw<'static> = Draw {
        masks: None,
        seed: 3,
        module: "unet.x",
        adapter: 1,
        part: "A",
    };

    fn drawn(draw: Draw<'_>) -> Vec<bool> {
        draw.bernoulli(std::iter::repeat_n(0.3, 4000)).unwrap()
    }

    #[test]
    fn every_seed_module_adapter_and_part_has_its_own_masks() {
        let mask = drawn(DRAW);
        assert_eq!(mask, drawn(DRAW));
        let kept = mask.iter().filter(|&&keep| keep).count();
        assert!((1100..1300).contains(&kept), "{kept}");
        for other in [
            Draw { seed: 4, ..DRAW },
            Draw {
                module: "unet.y",
                ..DRAW
            },
            Draw { adapter: 0, ..DRAW },
            Draw { part: "B", ..DRAW },
        ] {
            assert_ne!(mask, drawn(other));
        }
    }

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        // Recorded once: a merge is only reproducible while this holds.
        let mask = DRAW.bernoulli(std::iter::repeat_n(0.5, 12)).unwrap();
        let bits: String = mask.iter().map(|&b| if b { '1' } else { '0' }).collect();
        assert_eq!(bits, "110101101011");
    }

    #[test]
    fn masks_from_outside_replace_the_generator() {
        let view = TensorView::new(Dtype::U8, vec![1, 3], &[1, 0, 2]).unwrap();
        let bytes = safetensors::serialize([("unet.x.1.A", view)], None).unwrap();
        let masks = Masks::from_bytes(&bytes).unwrap();
        assert_eq!(
            masks,
            Masks::new([("unet.x.1.A".to_owned(), vec![true, false, true])])
        );
        assert_ne!(masks.sha256(), Masks::default().sha256());
        let draw = Draw {
            masks: Some(&masks),
            ..DRAW
        };
        let draw_of = |draw: Draw<'_>, n| draw.bernoulli(std::iter::repeat_n(0.5, n));
        assert_eq!(draw_of(draw, 3).unwrap(), [true, false, true]);
        let error = draw_of(draw, 4).unwrap_err().to_string();
        assert!(
            error.contains("unet.x.1.A") && error.contains('4'),
            "{error}"
        );
        let error = draw_of(Draw { part: "B", ..draw }, 3).unwrap_err();
        assert!(matches!(error, LoraError::Mask { found: None, .. }));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Masks::from_bytes(b"no").is_err());
        assert!(Masks::load("/nonexistent/masks.safetensors").is_err());
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        let bytes = safetensors::serialize([("m.0.A", view)], None).unwrap();
        let error = Masks::from_bytes(&bytes).unwrap_err().to_string();
        assert!(error.contains("m.0.A") && error.contains("F32"), "{error}");
    }
}
