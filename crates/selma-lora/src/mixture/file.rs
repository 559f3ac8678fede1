//! Files of mixtures.

use std::{collections::BTreeMap, fmt, fs::File, io::Write, path::Path};

use ndarray::Array2;
use safetensors::{Dtype, tensor::TensorInfo};
use selma_durable::{AtomicFile, DurableError};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{MixedModule, MixedPart, Mixing, Mixture};
use crate::{
    LoraError,
    dtype::are_finite,
    format::{MIXTURE_NOTE, header, read_at, read_header},
};

/// The version of what the metadata say.
const VERSION: u32 = 1;

/// What the metadata of a file say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    mixing: Mixing,
    experts: Vec<String>,
    modules: BTreeMap<String, Vec<MixedPart>>,
}

impl Mixture {
    /// Writes a safetensors file of the `F32` tensors `MODULE.down`, `MODULE.up` and `MODULE.gate`, with all else in the metadata.
    /// It holds the experts' factors, so that it can be drawn with alone. It appears whole or not at all, and the same mixture is the same bytes.
    ///
    /// # Errors
    /// [`LoraError::Durable`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LoraError> {
        let path = path.as_ref();
        let head = self.header(&self.metadata);
        let write = || {
            let mut file = AtomicFile::create(path)?;
            file.write_all(&head)?;
            for (_, matrix) in self.modules.values().flat_map(MixedModule::tensors) {
                file.write_all(&bytes_of(matrix))?;
            }
            file.commit()
        };
        Ok(write().map_err(DurableError::io("write", path))?)
    }

    /// SHA-256 of everything but the free-form notes, for records.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.header(&BTreeMap::new()));
        for (_, matrix) in self.modules.values().flat_map(MixedModule::tensors) {
            hash.update(bytes_of(matrix));
        }
        hex::encode(hash.finalize())
    }

    fn header(&self, metadata: &BTreeMap<String, String>) -> Vec<u8> {
        let modules = self.modules.iter();
        let note = json!({
            "version": VERSION,
            "mixing": self.mixing,
            "experts": self.experts,
            "modules": modules.map(|(path, module)| (path, &module.parts)).collect::<BTreeMap<_, _>>(),
        });
        let mut end = 0;
        let entries = self.modules.iter().flat_map(|(path, module)| {
            module.tensors().map(|(part, matrix)| {
                let start = end;
                end += 4 * matrix.len();
                let entry =
                    json!({"dtype": "F32", "shape": matrix.shape(), "data_offsets": [start, end]});
                (format!("{path}.{part}"), entry)
            })
        });
        let entries: Vec<_> = entries.collect();
        let mut metadata = metadata.clone();
        metadata.insert(MIXTURE_NOTE.to_owned(), note.to_string());
        header(entries, &metadata)
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// [`LoraError::Io`]; around the file ([`LoraError::InFile`]): [`LoraError::NotSafetensors`], also for a file that is
    /// torn, [`LoraError::RepeatedName`], and [`LoraError::MixtureFile`] for one of something else, a tensor too few or too
    /// many, or of another type, shape or content than the metadata say.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(LoraError::unreadable(path))?;
        Self::read(&file, path).map_err(|error| error.in_file(path))
    }

    fn read(file: &File, path: &Path) -> Result<Self, LoraError> {
        let (start, header) = read_header(file, path)?;
        let notes = header.metadata().clone().unwrap_or_default();
        let mut metadata: BTreeMap<String, String> = notes.into_iter().collect();
        let note = metadata.remove(MIXTURE_NOTE);
        let in_metadata = "an entry of the metadata";
        let note = note.ok_or_else(|| wrong(MIXTURE_NOTE, in_metadata, "none"))?;
        let note: Note = serde_json::from_str(&note).map_err(|error| {
            let expected = format!("version {VERSION}, mixing, experts and modules");
            wrong(MIXTURE_NOTE, expected, error)
        })?;
        note.check()?;
        let experts = note.experts.len();
        let mut tensors: BTreeMap<String, &TensorInfo> = header.tensors().into_iter().collect();
        let mut modules = BTreeMap::new();
        for (module, parts) in note.modules {
            let mut matrix = |part| {
                let key = format!("{module}.{part}");
                let tensor = tensors.remove(&key);
                let tensor = tensor.ok_or_else(|| wrong(&key, "a tensor", "none"))?;
                let matrix = matrix(file, path, start, &key, tensor)?;
                Ok::<_, LoraError>((key, matrix))
            };
            let ((down_key, down), (up_key, up)) = (matrix("down")?, matrix("up")?);
            let (gate_key, gate) = matrix("gate")?;
            let ranks = ranks(&module, &parts, experts)?;
            let looks_at = match note.mixing {
                Mixing::Router { .. } => down.ncols(),
                Mixing::Weights => 1,
            };
            for (key, matrix, shape) in [
                (down_key, &down, [ranks, down.ncols()]),
                (up_key, &up, [up.nrows(), ranks]),
                (gate_key, &gate, [experts, looks_at]),
            ] {
                if matrix.shape() != shape || matrix.is_empty() {
                    let expected = format!("the shape {shape:?}, nothing of it zero");
                    return Err(wrong(&key, expected, format!("{:?}", matrix.shape())));
                }
            }
            let mixed = MixedModule {
                parts,
                down,
                up,
                gate,
            };
            modules.insert(module, mixed);
        }
        if let Some(key) = tensors.keys().next() {
            let expected = "nothing but down, up and gate of the modules";
            return Err(wrong(key, expected, "a tensor"));
        }
        Ok(Self {
            experts: note.experts,
            mixing: note.mixing,
            modules,
            metadata,
        })
    }
}

impl Note {
    fn check(&self) -> Result<(), LoraError> {
        let experts = self.experts.len();
        let refused = |expected: String, found: String| Err(wrong(MIXTURE_NOTE, expected, found));
        if self.version != VERSION {
            return refused(format!("version {VERSION}"), self.version.to_string());
        }
        if self.experts.is_empty() || self.modules.is_empty() {
            let found = format!("{experts} experts, {} modules", self.modules.len());
            return refused("experts and modules".to_owned(), found);
        }
        match self.mixing {
            Mixing::Router { top_k } if !(1..=experts).contains(&top_k) => {
                refused(format!("a top_k of 1 to {experts}"), top_k.to_string())
            }
            _ => Ok(()),
        }
    }
}

impl MixedModule {
    /// The tensors of a file: what follows the module's path in their names, and their numbers.
    fn tensors(&self) -> [(&'static str, &Array2<f32>); 3] {
        [("down", &self.down), ("up", &self.up), ("gate", &self.gate)]
    }
}

/// The sum of a module's ranks.
fn ranks(module: &str, parts: &[MixedPart], experts: usize) -> Result<usize, LoraError> {
    let mut ranks = parts.iter().map(|part| part.rank);
    let total = ranks.try_fold(0, |sum: usize, rank| sum.checked_add(rank));
    let finite = parts.iter().all(|part| part.scale.is_finite());
    let total = total.filter(|&total| total > 0 && finite && parts.len() == experts);
    total.ok_or_else(|| {
        let expected = format!("ranks and finite scales of {experts} experts");
        wrong(module, expected, format!("{parts:?}"))
    })
}

fn wrong(key: &str, expected: impl Into<String>, found: impl fmt::Display) -> LoraError {
    LoraError::MixtureFile {
        key: key.to_owned(),
        expected: expected.into(),
        found: found.to_string(),
    }
}

/// A tensor that should be a matrix.
fn matrix(
    file: &File,
    path: &Path,
    start: u64,
    key: &str,
    tensor: &TensorInfo,
) -> Result<Array2<f32>, LoraError> {
    let found = || format!("{:?} {:?}", tensor.dtype, tensor.shape);
    let ([rows, columns], Dtype::F32) = (tensor.shape.as_slice(), tensor.dtype) else {
        return Err(wrong(key, "F32 of two dimensions", found()));
    };
    let (from, to) = tensor.data_offsets;
    let mut bytes = vec![0; to - from];
    read_at(file, path, &mut bytes, start + from as u64)?;
    let (numbers, _) = bytes.as_chunks();
    let numbers: Vec<f32> = numbers.iter().map(|&x| f32::from_le_bytes(x)).collect();
    if !are_finite(&numbers) {
        return Err(LoraError::NonFinite {
            key: key.to_owned(),
        });
    }
    Array2::from_shape_vec((*rows, *columns), numbers)
        .map_err(|_| wrong(key, "numbers for its shape", found()))
}

fn bytes_of(matrix: &Array2<f32>) -> Vec<u8> {
    matrix.iter().flat_map(|x| x.to_le_bytes()).collect()
}
