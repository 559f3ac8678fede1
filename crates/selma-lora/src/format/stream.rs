//! Adapter files that are written module by module.

use std::{
    collections::BTreeMap,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use ndarray::{ArrayD, IxDyn};
use selma_durable::{AtomicFile, DurableError};
use serde_json::json;

use super::{
    Format,
    tensors::{Tensor, header},
    write::{file_names, keeps_alpha, metadata, module_tensors, suffixes},
};
use crate::{Dtype, LoraError, LoraModule};

/// What is known of a merged module before it is there.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Shape of `A`.
    pub(crate) a: Vec<usize>,
    /// Shape of `B`.
    pub(crate) b: Vec<usize>,
    pub(crate) alpha: f64,
}

/// A tensor of which the values are in the file already.
#[derive(Debug)]
struct Placed {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
}

/// Writes the bytes that [`write`](fn@super::write) would give for the whole adapter.
///
/// The header comes first in a file and is complete last. Room is left for one that says what is
/// expected; only where a rank turns out otherwise and the room does not fit are the values copied once.
#[derive(Debug)]
pub(crate) struct FileWriter {
    path: PathBuf,
    file: AtomicFile,
    format: Format,
    dtype: Dtype,
    /// What modules are called in the file, in the order in which they must come.
    names: Vec<(String, String)>,
    /// Rank and alpha of the modules that came.
    modules: BTreeMap<String, (usize, f64)>,
    /// Bytes left for the header and for `front`.
    room: u64,
    /// Tensors that stand before all others because their numbers are larger: alphas of kohya's
    /// files of halves.
    front: Vec<Tensor>,
    placed: Vec<Placed>,
}

impl FileWriter {
    /// Begins a file. Its metadata are given to [`finish`](Self::finish); these are of the same length, as a rule.
    pub(crate) fn create(
        path: &Path,
        format: Format,
        dtype: Dtype,
        own_metadata: &BTreeMap<String, String>,
        expected: &BTreeMap<String, Expected>,
    ) -> Result<Self, LoraError> {
        let names = file_names(expected.keys(), format)?;
        let mut names: Vec<(String, String)> = names
            .into_iter()
            .map(|(path, name)| (path.clone(), name))
            .collect();
        names.sort_by_cached_key(|(path, name)| format!("{name}.{}", suffixes(format, path).0));
        let room = room(format, dtype, own_metadata, &names, expected);
        let mut file = AtomicFile::create(path).map_err(failed(path))?;
        file.seek(SeekFrom::Start(room)).map_err(failed(path))?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            format,
            dtype,
            names,
            modules: BTreeMap::new(),
            room,
            front: Vec::new(),
            placed: Vec::new(),
        })
    }

    /// The paths of all modules with their names in the file, in the order in which they must be [pushed](Self::push).
    pub(crate) fn order(&self) -> Vec<(String, String)> {
        self.names.clone()
    }

    /// The bytes of a module, for [`push`](Self::push).
    pub(crate) fn encode(
        (path, name): &(String, String),
        module: &LoraModule,
        format: Format,
        dtype: Dtype,
    ) -> Result<Vec<Tensor>, LoraError> {
        let keeps = |module: &LoraModule| keeps_alpha(module, format);
        module_tensors(path, name, module, format, dtype, keeps)
    }

    /// The module as a reader finds it in what [`encode`](Self::encode) gave for it.
    pub(crate) fn decode(
        tensors: &[Tensor],
        module: &LoraModule,
        format: Format,
    ) -> Result<LoraModule, LoraError> {
        let [a, b, ..] = tensors else {
            return Err(LoraError::Empty);
        };
        let factor = |tensor: &Tensor| {
            let values = tensor.dtype.decode(&tensor.bytes);
            let found = vec![values.len()];
            ArrayD::from_shape_vec(IxDyn(&tensor.shape), values).map_err(|_| {
                LoraError::WeightShapes {
                    expected: tensor.shape.clone(),
                    found,
                }
            })
        };
        let alpha = if keeps_alpha(module, format) {
            module.alpha
        } else {
            module.rank() as f64
        };
        LoraModule::new(factor(a)?, factor(b)?, alpha)
    }

    /// Writes the next module, of this rank and alpha.
    pub(crate) fn push(
        &mut self,
        path: &str,
        outline: (usize, f64),
        tensors: Vec<Tensor>,
    ) -> Result<(), LoraError> {
        self.modules.insert(path.to_owned(), outline);
        let size = self.dtype.size();
        let (front, mut rest): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|x| x.dtype.size() > size);
        self.front.extend(front);
        rest.sort_by(|x, y| x.name.cmp(&y.name));
        for tensor in rest {
            let written = self.file.write_all(&tensor.bytes);
            written.map_err(failed(&self.path))?;
            self.placed.push(Placed {
                name: tensor.name,
                dtype: tensor.dtype,
                shape: tensor.shape,
            });
        }
        Ok(())
    }

    /// Puts the header before the values, and the file in its place.
    pub(crate) fn finish(
        mut self,
        own_metadata: &BTreeMap<String, String>,
    ) -> Result<(), LoraError> {
        self.front.sort_by(|x, y| x.name.cmp(&y.name));
        let modules = self.modules.iter().map(|(path, &outline)| (path, outline));
        let metadata = metadata(own_metadata, &modules.collect(), self.format);
        let front = self.front.iter().map(|x| (&x.name, x.dtype, &x.shape));
        let placed = self.placed.iter().map(|x| (&x.name, x.dtype, &x.shape));
        let mut head = header(entries(front.chain(placed)), &metadata);
        for tensor in &self.front {
            head.extend(&tensor.bytes);
        }
        let path = self.path.clone();
        self.complete(&head).map_err(failed(&path))
    }

    fn complete(mut self, head: &[u8]) -> io::Result<()> {
        if head.len() as u64 == self.room {
            self.file.rewind()?;
            self.file.write_all(head)?;
            return self.file.commit();
        }
        let mut moved = AtomicFile::create(&self.path)?;
        moved.write_all(head)?;
        self.file.seek(SeekFrom::Start(self.room))?;
        io::copy(&mut self.file, &mut moved)?;
        moved.commit()
    }
}

/// The length of the header, with what stands between it and the first module, if all is as expected.
fn room(
    format: Format,
    dtype: Dtype,
    own_metadata: &BTreeMap<String, String>,
    names: &[(String, String)],
    expected: &BTreeMap<String, Expected>,
) -> u64 {
    let mut tensors: Vec<Placed> = Vec::new();
    for (path, name) in names {
        let Some(module) = expected.get(path) else {
            continue;
        };
        let (a, b) = suffixes(format, path);
        let mut placed = |suffix: &str, dtype, shape: &[usize]| {
            tensors.push(Placed {
                name: format!("{name}.{suffix}"),
                dtype,
                shape: shape.to_vec(),
            });
        };
        placed(a, dtype, &module.a);
        placed(b, dtype, &module.b);
        if format == Format::Kohya {
            placed("alpha", Dtype::F32, &[]);
        }
    }
    tensors.sort_by(|x, y| (y.dtype.size(), &x.name).cmp(&(x.dtype.size(), &y.name)));
    let before = tensors.iter().filter(|x| x.dtype.size() > dtype.size());
    let before: usize = before.map(|x| x.dtype.size()).sum();
    let rank = |module: &Expected| module.a.first().copied().unwrap_or(0);
    let modules = expected
        .iter()
        .map(|(path, module)| (path, (rank(module), module.alpha)));
    let metadata = metadata(own_metadata, &modules.collect(), format);
    let tensors = tensors.iter().map(|x| (&x.name, x.dtype, &x.shape));
    (header(entries(tensors), &metadata).len() + before) as u64
}

/// The entries of a header, one tensor after the other.
fn entries<'a>(
    tensors: impl Iterator<Item = (&'a String, Dtype, &'a Vec<usize>)>,
) -> impl Iterator<Item = (String, serde_json::Value)> {
    let mut end = 0;
    tensors.map(move |(name, dtype, shape)| {
        let start = end;
        end += dtype.size() * shape.iter().product::<usize>();
        let dtype = dtype.header_name();
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
        (name.clone(), entry)
    })
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LoraError {
    move |source| DurableError::io("write", path)(source).into()
}
