//! From modules to the bytes of an adapter file.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    Format,
    config::{self, METADATA_KEY},
    keys::PEFT_PREFIX,
    names::kohya_name,
    peft::in_peft,
    tensors::{Tensor, serialize},
};
use crate::{Adapter, Dtype, LoraError, LoraModule, module::row_major};

pub(crate) fn write(adapter: &Adapter, format: Format, dtype: Dtype) -> Result<Vec<u8>, LoraError> {
    write_with(adapter, format, dtype, |module| keeps_alpha(module, format))
}

/// True when the file says the alpha of the module.
pub(super) fn keeps_alpha(module: &LoraModule, format: Format) -> bool {
    // An alpha of 0 would be read as the rank.
    format == Format::Kohya && module.alpha != 0.0
}

/// Multiplies the scale into the factors of the modules whose alpha the file does not keep.
pub(super) fn write_with(
    adapter: &Adapter,
    format: Format,
    dtype: Dtype,
    keeps_alpha: impl Fn(&LoraModule) -> bool,
) -> Result<Vec<u8>, LoraError> {
    if adapter.modules.is_empty() {
        return Err(LoraError::Empty);
    }
    let mut tensors = Vec::with_capacity(adapter.modules.len() * 3);
    for (path, name) in file_names(adapter.modules.keys(), format)? {
        if let Some(module) = adapter.modules.get(path) {
            tensors.extend(module_tensors(
                path,
                &name,
                module,
                format,
                dtype,
                &keeps_alpha,
            )?);
        }
    }
    let modules = adapter.modules.iter();
    let outlines = modules.map(|(path, module)| (path, (module.rank(), module.alpha)));
    let metadata = metadata(&adapter.metadata, &outlines.collect(), format);
    Ok(serialize(tensors, &metadata))
}

/// The tensors of one module, which is called `name` in the file.
pub(super) fn module_tensors(
    path: &str,
    name: &str,
    module: &LoraModule,
    format: Format,
    dtype: Dtype,
    keeps_alpha: impl Fn(&LoraModule) -> bool,
) -> Result<Vec<Tensor>, LoraError> {
    module.check().map_err(|error| error.in_module(path))?;
    let module = if keeps_alpha(module) || module.scale() == 1.0 {
        Cow::Borrowed(module)
    } else {
        Cow::Owned(module.baked())
    };
    let mut tensors = Vec::with_capacity(3);
    let (a_suffix, b_suffix) = suffixes(format, path);
    for (suffix, factor) in [(a_suffix, &module.a), (b_suffix, &module.b)] {
        let name = format!("{name}.{suffix}");
        tensors.push(tensor(name, dtype, factor.shape(), &row_major(factor))?);
    }
    if format == Format::Kohya {
        // Always f32: bf16 holds integers only up to 256 exactly.
        let alpha = [module.alpha as f32];
        tensors.push(tensor(format!("{name}.alpha"), Dtype::F32, &[], &alpha)?);
    }
    Ok(tensors)
}

/// What `A` and `B` are called.
pub(super) fn suffixes(format: Format, path: &str) -> (&'static str, &'static str) {
    match format {
        Format::Kohya => ("lora_down.weight", "lora_up.weight"),
        Format::Diffusers | Format::Peft => ("lora_A.weight", "lora_B.weight"),
        Format::DiffusersScript if path.starts_with("unet.") => {
            ("lora.down.weight", "lora.up.weight")
        }
        // In text encoders diffusers knows the older names for attention alone.
        Format::DiffusersScript if path.contains(".self_attn.") => (
            "lora_linear_layer.down.weight",
            "lora_linear_layer.up.weight",
        ),
        Format::DiffusersScript => ("lora_A.weight", "lora_B.weight"),
    }
}

/// The path of every module and what it is called in the file.
pub(super) fn file_names<'a>(
    paths: impl Iterator<Item = &'a String> + Clone,
    format: Format,
) -> Result<Vec<(&'a String, String)>, LoraError> {
    let two_text_encoders = paths
        .clone()
        .any(|path| path.starts_with("text_encoder_2."));
    let mut owners: BTreeMap<String, &String> = BTreeMap::new();
    let mut component: Option<&str> = None;
    paths
        .map(|path| {
            let unknown = || LoraError::UnknownComponent {
                module: path.clone(),
                format,
            };
            let (own, _) = path.split_once('.').ok_or_else(unknown)?;
            match format {
                Format::Diffusers | Format::DiffusersScript => Ok((path, path.clone())),
                Format::Kohya => {
                    let kohya = kohya_name(path, two_text_encoders).ok_or_else(unknown)?;
                    match owners.insert(kohya.clone(), path) {
                        None => Ok((path, kohya)),
                        Some(first) => Err(LoraError::AmbiguousName {
                            first: first.clone(),
                            second: path.clone(),
                        }),
                    }
                }
                Format::Peft => {
                    let first = *component.get_or_insert(own);
                    if first != own {
                        return Err(LoraError::ManyComponents {
                            first: first.to_owned(),
                            second: own.to_owned(),
                        });
                    }
                    Ok((path, format!("{PEFT_PREFIX}{}", in_peft(path))))
                }
            }
        })
        .collect()
}

fn tensor(
    name: String,
    dtype: Dtype,
    shape: &[usize],
    values: &[f32],
) -> Result<Tensor, LoraError> {
    Ok(Tensor {
        bytes: dtype.encode_named(&name, values)?,
        name,
        dtype,
        shape: shape.to_vec(),
    })
}

/// Notes that sd-scripts and programs for drawing tell a file by: hashes of its values.
const STALE: [&str; 3] = [
    "sshs_model_hash",
    "sshs_legacy_hash",
    "modelspec.hash_sha256",
];

/// The metadata of a file, given those of the adapter and the rank and alpha of every module.
pub(super) fn metadata(
    own: &BTreeMap<String, String>,
    modules: &BTreeMap<&String, (usize, f64)>,
    format: Format,
) -> BTreeMap<String, String> {
    let mut metadata = own.clone();
    metadata.insert("format".to_owned(), "pt".to_owned());
    metadata.remove(METADATA_KEY);
    // They are hashes of the values of the file that the notes come from.
    for stale in STALE {
        metadata.remove(stale);
    }
    match format {
        Format::Kohya => {
            // What sd-scripts writes for ranks and alphas that differ between modules.
            let one_or_dynamic = |values: BTreeSet<String>| match values.first() {
                Some(only) if values.len() == 1 => only.clone(),
                _ => "Dynamic".to_owned(),
            };
            let ranks = modules.values().map(|(rank, _)| rank.to_string()).collect();
            let alphas = modules.values().map(|(_, alpha)| alpha.to_string());
            let alphas = alphas.collect();
            metadata.insert("ss_network_dim".to_owned(), one_or_dynamic(ranks));
            metadata.insert("ss_network_alpha".to_owned(), one_or_dynamic(alphas));
            metadata
                .entry("ss_network_module".to_owned())
                .or_insert_with(|| "networks.lora".to_owned());
        }
        // The configuration beside it says the same.
        Format::Peft => {}
        Format::Diffusers | Format::DiffusersScript => {
            metadata.insert(METADATA_KEY.to_owned(), {
                let ranks = modules.iter().map(|(path, &(rank, _))| (*path, rank));
                config::describe(ranks)
            });
        }
    }
    metadata
}

impl LoraModule {
    /// The same `dW` with a scale of 1: the square root of the scale goes into each factor, which
    /// keeps small updates within the range of 16-bit floats; its sign goes into `B`.
    #[must_use]
    pub fn baked(&self) -> Self {
        let scale = self.scale();
        let root = scale.abs().sqrt();
        let signed = root.copysign(scale);
        Self {
            a: self.a.mapv(|x| (f64::from(x) * root) as f32),
            b: self.b.mapv(|x| (f64::from(x) * signed) as f32),
            alpha: self.rank() as f64,
        }
    }
}
