//! From the bytes of a safetensors file to updates.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::TensorView;
use serde::Serialize;

use super::{
    Format, ModuleNames,
    config::{AdapterConfig, METADATA_KEY},
    header::{MIXTURE_NOTE, open},
    keys,
    load::Kinds,
    parts::{Part, Parts},
};
use crate::{Dtype, Kind, LoraError, Update, dtype::are_finite};

/// What is known about a file from outside.
#[derive(Debug)]
pub(super) struct Hints<'a> {
    /// The modules of the model.
    pub(super) names: Option<&'a ModuleNames>,
    /// What is wanted of it.
    pub(super) kinds: Kinds,
    /// Where paths without a component belong.
    pub(super) component: Option<&'a str>,
    /// Ranks and alphas from a file beside it.
    pub(super) config: Option<&'a AdapterConfig>,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Tensors {
    pub(super) updates: BTreeMap<String, Update>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) format: Format,
    pub(super) dtypes: BTreeSet<Dtype>,
    /// What was not read, of [`Kinds::Rest`].
    pub(super) left_out: Vec<LeftOut>,
}

/// A tensor that no LoRA can stand for, see [`AdapterFile::load_without`](crate::AdapterFile::load_without).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// The tensor's name in the file.
    pub key: String,
    /// What it belongs to, for example `a trained bias`.
    pub kind: &'static str,
}

/// Refuses the parts of other kinds.
pub(super) fn only_lora(key: &str, part: Part) -> Result<(), LoraError> {
    match part.kind() {
        None | Some(Kind::Lora) => Ok(()),
        Some(kind) => Err(LoraError::OtherKind {
            key: key.to_owned(),
            kind,
        }),
    }
}

pub(super) fn dora_in_config() -> LoraError {
    LoraError::OtherKind {
        key: "use_dora of the configuration".to_owned(),
        kind: Kind::Dora,
    }
}

pub(super) fn read(bytes: &[u8], hints: &Hints<'_>) -> Result<Tensors, LoraError> {
    let (file, header) = open(bytes)?;
    let mut metadata: BTreeMap<String, String> = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    if metadata.contains_key(MIXTURE_NOTE) {
        return Err(LoraError::IsMixture);
    }
    let in_metadata = match metadata.remove(METADATA_KEY) {
        Some(text) => AdapterConfig::parse(&text)?,
        None => AdapterConfig::default(),
    };
    let config = hints.config.unwrap_or(&in_metadata);
    if hints.kinds == Kinds::Lora && config.any_dora() {
        return Err(dora_in_config());
    }
    // "pt" in files written by Python; it says nothing about the adapter.
    metadata.remove("format");

    // Sorted, so that the first error is the same on every run.
    let mut tensors: Vec<(&str, TensorView<'_>)> = file.iter().collect();
    tensors.sort_by_key(|&(key, _)| key);

    let mut scheme: Option<(Format, &str)> = None;
    let mut found: BTreeMap<String, Parts> = BTreeMap::new();
    let mut dtypes = BTreeSet::new();
    let mut left_out = Vec::new();
    for (key, tensor) in &tensors {
        let parsed = match keys::parse(key, hints.names, hints.component) {
            Err(LoraError::Unsupported { key, kind }) if hints.kinds == Kinds::Rest => {
                left_out.push(LeftOut { key, kind });
                continue;
            }
            parsed => parsed?,
        };
        if hints.kinds == Kinds::Lora {
            only_lora(key, parsed.part)?;
        }
        scheme = with_key(scheme, key, parsed.format)?;
        let parts = found.entry(parsed.module.clone()).or_default();
        let earlier = match parsed.part {
            Part::Alpha => parts.set_alpha(key, scalar(key, tensor)?),
            part => parts.add(part, key, factor(key, tensor, &mut dtypes)?),
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

    let updates = found
        .into_iter()
        .map(|(name, parts)| {
            let update = parts.assemble(&name, config)?;
            Ok((name, update))
        })
        .collect::<Result<BTreeMap<_, _>, LoraError>>()?;
    match scheme {
        Some((format, _)) if !updates.is_empty() => Ok(Tensors {
            updates,
            metadata,
            format,
            dtypes,
            left_out,
        }),
        _ => Err(LoraError::Empty),
    }
}

/// The naming scheme of a file, with a key of it that shows it, once one more key has been seen.
pub(super) fn with_key<'a>(
    scheme: Option<(Format, &'a str)>,
    key: &'a str,
    format: Option<Format>,
) -> Result<Option<(Format, &'a str)>, LoraError> {
    match (scheme, format) {
        (None, Some(format)) => Ok(Some((format, key))),
        // The training scripts of diffusers leave convolutions and parts of text encoders under the
        // new names.
        (Some((Format::Diffusers, first)), Some(Format::DiffusersScript)) => {
            Ok(Some((Format::DiffusersScript, first)))
        }
        (Some((Format::DiffusersScript, _)), Some(Format::Diffusers)) => Ok(scheme),
        (Some((first, first_key)), Some(format)) if first != format => {
            Err(LoraError::MixedFormats {
                first: first_key.to_owned(),
                second: key.to_owned(),
            })
        }
        _ => Ok(scheme),
    }
}

fn factor(
    key: &str,
    tensor: &TensorView<'_>,
    dtypes: &mut BTreeSet<Dtype>,
) -> Result<ArrayD<f32>, LoraError> {
    let dtype = Dtype::from_safetensors(tensor.dtype()).ok_or_else(|| wrong_dtype(key, tensor))?;
    dtypes.insert(dtype);
    let values = dtype.decode(tensor.data());
    if !are_finite(&values) {
        return Err(LoraError::NonFinite {
            key: key.to_owned(),
        });
    }
    // The safetensors reader has checked that shape and length agree, but where one dimension is zero
    // the others can still be too large.
    ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).map_err(|_| LoraError::TooLarge {
        what: format!("tensor {key}"),
        shape: tensor.shape().to_vec(),
    })
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
