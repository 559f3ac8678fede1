//! From the bytes of an adapter file to modules.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{ArrayD, IxDyn};
use safetensors::{SafeTensors, tensor::TensorView};

use super::{
    Format, ModuleNames,
    config::{AdapterConfig, METADATA_KEY},
    keys::{self, Part},
};
use crate::{Dtype, LoraError, LoraModule};

/// What a file holds.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) modules: BTreeMap<String, LoraModule>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) format: Format,
    pub(crate) dtypes: BTreeSet<Dtype>,
}

/// The parts of a module found so far, each with the name of its tensor.
#[derive(Debug, Default)]
struct Parts {
    a: Option<(String, ArrayD<f32>)>,
    b: Option<(String, ArrayD<f32>)>,
    alpha: Option<(String, f64)>,
}

pub(crate) fn read(bytes: &[u8], names: Option<&ModuleNames>) -> Result<Content, LoraError> {
    let unreadable = |error| LoraError::NotSafetensors { error };
    let file = SafeTensors::deserialize(bytes).map_err(unreadable)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(unreadable)?;
    let mut metadata: BTreeMap<String, String> = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let config = match metadata.remove(METADATA_KEY) {
        Some(text) => AdapterConfig::parse(&text)?,
        None => AdapterConfig::default(),
    };
    // "pt" in files written by Python; it says nothing about the adapter.
    metadata.remove("format");

    // Sorted, so that the first error is the same on every run.
    let mut tensors: Vec<(&str, TensorView<'_>)> = file.iter().collect();
    tensors.sort_by_key(|&(key, _)| key);

    let mut scheme: Option<(Format, &str)> = None;
    let mut found: BTreeMap<String, Parts> = BTreeMap::new();
    let mut dtypes = BTreeSet::new();
    for (key, tensor) in &tensors {
        let parsed = keys::parse(key, names)?;
        match (scheme, parsed.format) {
            (None, Some(format)) => scheme = Some((format, key)),
            // The training scripts of diffusers leave convolutions and parts of text encoders
            // under the new names.
            (Some((Format::Diffusers, first)), Some(Format::DiffusersScript)) => {
                scheme = Some((Format::DiffusersScript, first));
            }
            (Some((Format::DiffusersScript, _)), Some(Format::Diffusers)) => {}
            (Some((first, first_key)), Some(format)) if first != format => {
                return Err(LoraError::MixedFormats {
                    first: first_key.to_owned(),
                    second: (*key).to_owned(),
                });
            }
            _ => {}
        }
        let parts = found.entry(parsed.module.clone()).or_default();
        let earlier = match parsed.part {
            Part::A => parts
                .a
                .replace(factor(key, tensor, &mut dtypes)?)
                .map(|(key, _)| key),
            Part::B => parts
                .b
                .replace(factor(key, tensor, &mut dtypes)?)
                .map(|(key, _)| key),
            Part::Alpha => parts
                .alpha
                .replace(((*key).to_owned(), scalar(key, tensor)?))
                .map(|(key, _)| key),
        };
        if let Some(first) = earlier {
            return Err(LoraError::Duplicate {
                module: parsed.module,
                part: parsed.part.name(),
                first,
                second: (*key).to_owned(),
            });
        }
    }

    let modules = found
        .into_iter()
        .map(|(name, parts)| {
            let module = assemble(&name, parts, &config)?;
            Ok((name, module))
        })
        .collect::<Result<BTreeMap<_, _>, LoraError>>()?;
    match scheme {
        Some((format, _)) if !modules.is_empty() => Ok(Content {
            modules,
            metadata,
            format,
            dtypes,
        }),
        _ => Err(LoraError::Empty),
    }
}

fn assemble(name: &str, parts: Parts, config: &AdapterConfig) -> Result<LoraModule, LoraError> {
    let missing = |missing, found| LoraError::MissingFactor {
        module: name.to_owned(),
        missing,
        found,
    };
    let (a, b) = match (parts.a, parts.b) {
        (Some((_, a)), Some((_, b))) => (a, b),
        (Some((key, _)), None) => return Err(missing("B (up)", key)),
        (None, Some((key, _))) => return Err(missing("A (down)", key)),
        (None, None) => {
            let key = parts.alpha.map(|(key, _)| key).unwrap_or_default();
            return Err(missing("A (down)", key));
        }
    };
    let rank = a.shape().first().copied().unwrap_or(0);
    let alpha = match parts.alpha {
        // sd-scripts: an alpha of 0 stands for the rank.
        Some((_, 0.0)) => rank as f64,
        Some((_, alpha)) => alpha,
        None => config
            .alpha(name, rank)
            .map_err(|error| error.in_module(name))?,
    };
    LoraModule::new(a, b, alpha).map_err(|error| error.in_module(name))
}

fn factor(
    key: &str,
    tensor: &TensorView<'_>,
    dtypes: &mut BTreeSet<Dtype>,
) -> Result<(String, ArrayD<f32>), LoraError> {
    let dtype = Dtype::from_safetensors(tensor.dtype()).ok_or_else(|| wrong_dtype(key, tensor))?;
    dtypes.insert(dtype);
    let values = dtype.decode(tensor.data());
    if !values.iter().all(|x| x.is_finite()) {
        return Err(LoraError::NonFinite {
            key: key.to_owned(),
        });
    }
    // The safetensors reader has checked that shape and length agree.
    let array = ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).map_err(|_| {
        LoraError::FactorShapes {
            a: tensor.shape().to_vec(),
            b: Vec::new(),
        }
    })?;
    Ok((key.to_owned(), array))
}

/// One number of any type: trainers that save without casting leave alpha an integer.
fn scalar(key: &str, tensor: &TensorView<'_>) -> Result<f64, LoraError> {
    let data = tensor.data();
    let bad = || LoraError::BadAlpha {
        alpha: format!("the tensor {key} of shape {:?}", tensor.shape()),
    };
    if tensor.shape().iter().product::<usize>() != 1 {
        return Err(bad());
    }
    let value = match tensor.dtype() {
        safetensors::Dtype::F64 => data.try_into().ok().map(f64::from_le_bytes),
        safetensors::Dtype::I64 => data.try_into().ok().map(|b| i64::from_le_bytes(b) as f64),
        safetensors::Dtype::I32 => data
            .try_into()
            .ok()
            .map(|b| f64::from(i32::from_le_bytes(b))),
        dtype => {
            let dtype = Dtype::from_safetensors(dtype).ok_or_else(|| wrong_dtype(key, tensor))?;
            dtype.decode(data).first().map(|&x| f64::from(x))
        }
    };
    let value = value.ok_or_else(bad)?;
    if !value.is_finite() {
        return Err(LoraError::NonFinite {
            key: key.to_owned(),
        });
    }
    Ok(value)
}

fn wrong_dtype(key: &str, tensor: &TensorView<'_>) -> LoraError {
    LoraError::TensorDtype {
        key: key.to_owned(),
        found: tensor.dtype().to_string(),
    }
}
