//! Files of statistics.

use std::{collections::BTreeMap, fs::File, io::Write, path::Path};

use faer::MatRef;
use safetensors::{Dtype, tensor::TensorInfo};
use selma_durable::{AtomicFile, DurableError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Calibration, Statistics};
use crate::{
    LoraError,
    format::{header, read_at, read_header},
};

/// The entry of the metadata that says what the tensors of a file are.
const NOTE: &str = "selma_calibration";

/// The version of that entry.
const VERSION: u32 = 1;

/// How far `G` may be from symmetric, relative to its largest number: the order in which another program adds up.
const SYMMETRIC: f64 = 1e-9;

/// What the metadata of a file say.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    version: u32,
    adapters: Vec<String>,
    modules: BTreeMap<String, Outline>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outline {
    ranks: Vec<usize>,
    count: u64,
}

impl Calibration {
    /// Writes a safetensors file of the `F64` tensors `MODULE.g` and `MODULE.q`, with ranks, counts and adapters in the
    /// metadata. It appears whole or not at all, and the same statistics are the same bytes.
    ///
    /// # Errors
    /// [`LoraError::Durable`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), LoraError> {
        let path = path.as_ref();
        let head = self.header();
        let write = || {
            let mut file = AtomicFile::create(path)?;
            file.write_all(&head)?;
            for (_, matrix) in self.modules.values().flat_map(Statistics::parts) {
                file.write_all(&bytes_of(matrix))?;
            }
            file.commit()
        };
        Ok(write().map_err(DurableError::io("write", path))?)
    }

    fn header(&self) -> Vec<u8> {
        let outlines = self.modules.iter().map(|(module, statistics)| {
            let Statistics { ranks, count, .. } = statistics;
            (module, json!({"ranks": ranks, "count": count}))
        });
        let modules: BTreeMap<_, Value> = outlines.collect();
        let note = json!({"version": VERSION, "adapters": self.adapters, "modules": modules});
        let mut end = 0;
        let entries = self.modules.iter().flat_map(|(module, statistics)| {
            let entries = statistics.parts().map(|(part, matrix)| {
                let (start, size) = (end, matrix.nrows());
                end += 8 * size * size;
                let entry =
                    json!({"dtype": "F64", "shape": [size, size], "data_offsets": [start, end]});
                (format!("{module}.{part}"), entry)
            });
            entries
        });
        let entries: Vec<_> = entries.collect();
        header(
            entries,
            &BTreeMap::from([(NOTE.to_owned(), note.to_string())]),
        )
    }

    /// Reads such a file.
    ///
    /// # Errors
    /// [`LoraError::Io`]; around the file ([`LoraError::InFile`]): [`LoraError::NotSafetensors`], also for a file that
    /// is torn, [`LoraError::RepeatedName`], and [`LoraError::CalibrationFile`] for one of something else, a tensor too
    /// few or too many, or of another type, shape or content than the metadata say.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, LoraError> {
        let path = path.as_ref();
        let file = File::open(path).map_err(LoraError::unreadable(path))?;
        Self::read(&file, path).map_err(|error| error.in_file(path))
    }

    /// SHA-256 of everything, for records.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.header());
        for (_, matrix) in self.modules.values().flat_map(Statistics::parts) {
            hash.update(bytes_of(matrix));
        }
        hex::encode(hash.finalize())
    }

    fn read(file: &File, path: &Path) -> Result<Self, LoraError> {
        let (start, header) = read_header(file, path)?;
        let note = header.metadata().as_ref();
        let note = note.and_then(|notes| notes.get(NOTE));
        let in_metadata = "an entry of the metadata";
        let note = note.ok_or_else(|| wrong(NOTE, in_metadata, "none"))?;
        let note: Note = serde_json::from_str(note)
            .map_err(|error| wrong(NOTE, "version, adapters and modules", error))?;
        if note.version != VERSION {
            return Err(wrong(NOTE, format!("version {VERSION}"), note.version));
        }
        let mut tensors: BTreeMap<String, &TensorInfo> = header.tensors().into_iter().collect();
        let mut modules = BTreeMap::new();
        for (module, Outline { ranks, count }) in note.modules {
            let total = ranks
                .iter()
                .try_fold(0, |sum: usize, &rank| sum.checked_add(rank));
            let total = total.filter(|_| !ranks.is_empty() && !ranks.contains(&0));
            let total =
                total.ok_or_else(|| wrong(&module, "ranks of at least 1", format!("{ranks:?}")))?;
            let mut matrix = |part| {
                let key = format!("{module}.{part}");
                let tensor = tensors.remove(&key);
                let tensor = tensor.ok_or_else(|| wrong(&key, "a tensor", "none"))?;
                let numbers = numbers(file, path, start, &key, tensor, total)?;
                Ok::<_, LoraError>((key, numbers))
            };
            let ((g_key, g), (_, q)) = (matrix("g")?, matrix("q")?);
            let (g, q) = (square(&g, total), square(&q, total));
            if (g - g.transpose()).norm_max() > SYMMETRIC * g.norm_max() {
                return Err(wrong(&g_key, "a symmetric matrix", "another"));
            }
            let statistics = Statistics {
                ranks,
                g: g.to_owned(),
                q_turned: q.to_owned(),
                count,
            };
            modules.insert(module, statistics);
        }
        if let Some(key) = tensors.keys().next() {
            return Err(wrong(key, "nothing but g and q of the modules", "a tensor"));
        }
        Ok(Self {
            adapters: note.adapters,
            modules,
        })
    }
}

impl Statistics {
    /// The tensors of a file: what follows the module's path in their names, and their numbers in row-major order.
    fn parts(&self) -> [(&'static str, MatRef<'_, f64>); 2] {
        [("g", self.g.as_ref()), ("q", self.q_turned.as_ref())]
    }
}

fn wrong(key: &str, expected: impl Into<String>, found: impl ToString) -> LoraError {
    LoraError::CalibrationFile {
        key: key.to_owned(),
        expected: expected.into(),
        found: found.to_string(),
    }
}

/// The numbers of a tensor that should be `[size, size]`.
fn numbers(
    file: &File,
    path: &Path,
    start: u64,
    key: &str,
    tensor: &TensorInfo,
    size: usize,
) -> Result<Vec<f64>, LoraError> {
    if tensor.dtype != Dtype::F64 || tensor.shape != [size, size] {
        let found = format!("{:?} {:?}", tensor.dtype, tensor.shape);
        return Err(wrong(key, format!("F64 [{size}, {size}]"), found));
    }
    let (from, to) = tensor.data_offsets;
    let mut bytes = vec![0; to - from];
    read_at(file, path, &mut bytes, start + from as u64)?;
    let (numbers, _) = bytes.as_chunks();
    let numbers: Vec<f64> = numbers.iter().map(|&x| f64::from_le_bytes(x)).collect();
    match numbers.iter().find(|x| !x.is_finite()) {
        Some(value) => Err(wrong(key, "finite numbers", value)),
        None => Ok(numbers),
    }
}

/// The transpose of a matrix whose numbers are in row-major order.
fn square(numbers: &[f64], size: usize) -> MatRef<'_, f64> {
    MatRef::from_column_major_slice(numbers, size, size)
}

fn bytes_of(matrix: MatRef<'_, f64>) -> Vec<u8> {
    let columns = matrix.col_iter();
    columns
        .flat_map(|column| column.iter().flat_map(|x| x.to_le_bytes()))
        .collect()
}
