//! Adapters that fit a checkpoint, and the writing of its files.

use std::{
    collections::BTreeMap,
    io::{BufReader, BufWriter, IntoInnerError, Read, Write},
    path::{Path, PathBuf},
};

use selma_durable::{AtomicFile, DurableError, sha256};
use serde_json::json;

use super::{
    FuseReport, FusedFile,
    source::{Source, Stored},
    update::Updates,
};
use crate::{Dtype, LoadReport, LoraError, Weighted, format::header, merge::MergeInput};

/// Bytes that are copied at once.
const BLOCK: usize = 1 << 20;

/// The metadata entry that says what was fused.
const METADATA_KEY: &str = "selma_fuse";

/// Adapters all of whose modules are in a checkpoint, with the shapes that they expect.
#[derive(Debug)]
pub(super) struct Checked<'a> {
    inputs: &'a [Weighted<'a>],
}

impl<'a> Checked<'a> {
    /// Compares adapters with the files of a checkpoint.
    pub(super) fn new<'s>(
        inputs: &'a [Weighted<'a>],
        sources: impl IntoIterator<Item = &'s Source>,
    ) -> Result<Self, LoraError> {
        if inputs.is_empty() {
            return Err(LoraError::NoAdapters);
        }
        for (index, input) in inputs.iter().enumerate() {
            let weight = input.weight;
            if !weight.is_finite() {
                return Err(LoraError::BadWeight { index, weight });
            }
            for (path, module) in &input.adapter.modules {
                module.check().map_err(|error| error.in_module(path))?;
            }
        }
        let model = modules(sources)?;
        for input in inputs {
            let report = input.adapter.match_modules(&model);
            report.and_then(LoadReport::strict).map_err(|error| {
                // Which of several adapters it is.
                match &input.adapter.source {
                    Some(source) => error.in_file(&source.path),
                    None => error,
                }
            })?;
        }
        Ok(Self { inputs })
    }

    /// Whether a tensor has a module of an adapter, whatever its update.
    fn touches(&self, tensor: &Stored) -> bool {
        tensor.places.iter().any(|place| {
            let mut inputs = self.inputs.iter();
            inputs.any(|input| input.adapter.modules.contains_key(&place.module))
        })
    }

    pub(super) fn touches_any(&self, source: &Source) -> bool {
        source.tensors.iter().any(|tensor| self.touches(tensor))
    }

    /// Writes the file with the adapters in its weights.
    pub(super) fn write(&self, source: Source, to: &Path) -> Result<FusedFile, LoraError> {
        let hash = hex::encode(sha256(&source.path)?);
        let from = source.path.clone();
        let tensors = self
            .stream(source, to, &hash)
            .map_err(|error| error.in_file(&from))?;
        Ok(FusedFile {
            path: from,
            sha256: hash,
            tensors,
        })
    }

    /// The number of tensors that were changed.
    fn stream(&self, source: Source, to: &Path, hash: &str) -> Result<usize, LoraError> {
        let Source {
            path,
            file,
            mut metadata,
            tensors,
        } = source;
        let recipe = json!({"base": hash, "adapters": self.inputs()});
        metadata.insert(METADATA_KEY.to_owned(), recipe.to_string());
        let entries = tensors
            .iter()
            .map(|tensor| (tensor.name.clone(), json!(tensor.info)));
        let header = header(entries, &metadata);

        let unwritable = || DurableError::io("write", to);
        let mut reader = BufReader::with_capacity(BLOCK, file);
        let file = AtomicFile::create(to).map_err(unwritable())?;
        let mut writer = BufWriter::with_capacity(BLOCK, file);
        let mut read = |bytes: &mut [u8]| {
            reader
                .read_exact(bytes)
                .map_err(LoraError::unreadable(&path))
        };
        let mut write = |bytes: &[u8]| -> Result<(), LoraError> {
            Ok(writer.write_all(bytes).map_err(unwritable())?)
        };
        write(&header)?;
        let mut changed = 0;
        let mut block = vec![0; BLOCK];
        for tensor in &tensors {
            let shape = &tensor.info.shape;
            let updates = if self.touches(tensor) {
                Updates::new(&tensor.places, shape, self.inputs)
            } else {
                Updates::default()
            };
            if updates.is_empty() {
                let mut left = tensor.len();
                while left > 0 {
                    let now = usize::try_from(left).unwrap_or(BLOCK).min(BLOCK);
                    let bytes = block.get_mut(..now).unwrap_or_default();
                    read(bytes)?;
                    write(bytes)?;
                    left -= now as u64;
                }
                continue;
            }
            let Some(dtype) = Dtype::from_safetensors(tensor.info.dtype) else {
                return Err(LoraError::TensorDtype {
                    key: tensor.name.clone(),
                    found: format!("{:?}", tensor.info.dtype),
                });
            };
            updates.stream(&tensor.name, dtype, shape, &mut read, &mut write)?;
            changed += 1;
        }
        writer
            .into_inner()
            .map_err(IntoInnerError::into_error)
            .and_then(AtomicFile::commit)
            .map_err(unwritable())?;
        Ok(changed)
    }

    fn inputs(&self) -> Vec<MergeInput> {
        self.inputs.iter().map(MergeInput::from).collect()
    }

    pub(super) fn report(&self, files: Vec<FusedFile>, left_out: Vec<PathBuf>) -> FuseReport {
        let mut zero = BTreeMap::new();
        for input in self.inputs {
            for (path, module) in &input.adapter.modules {
                let acts = input.weight != 0.0 && !module.is_zero();
                *zero.entry(path).or_insert(true) &= !acts;
            }
        }
        FuseReport {
            inputs: self.inputs(),
            modules: zero.len(),
            zero: zero
                .into_iter()
                .filter(|(_, zero)| *zero)
                .map(|(path, _)| path.clone())
                .collect(),
            files,
            left_out,
        }
    }
}

/// Every module of the files that can have a LoRA, with the shape of its weight.
fn modules<'s>(
    sources: impl IntoIterator<Item = &'s Source>,
) -> Result<Vec<(String, Vec<usize>)>, LoraError> {
    let mut modules = Vec::new();
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for source in sources {
        for tensor in &source.tensors {
            let whole = &tensor.info.shape;
            for place in &tensor.places {
                let Some(shape) = place.part.shape(whole) else {
                    let shape = whole.clone();
                    let error = LoraError::DeltaShape { shape }.in_module(&place.module);
                    return Err(error.in_file(&source.path));
                };
                if let Some(first) = seen.insert(&place.module, &tensor.name) {
                    let error = LoraError::Duplicate {
                        module: place.module.clone(),
                        part: "weight",
                        first: first.to_owned(),
                        second: tensor.name.clone(),
                    };
                    return Err(error.in_file(&source.path));
                }
                if shape.len() >= 2 {
                    modules.push((place.module.clone(), shape));
                }
            }
        }
    }
    Ok(modules)
}
