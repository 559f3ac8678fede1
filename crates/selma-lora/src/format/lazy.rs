//! Adapter files whose tensors are read module by module.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use serde_json::json;
use sha2::{Digest, Sha256};

use super::{
    Format, ModuleNames,
    config::{AdapterConfig, METADATA_KEY},
    header::{MIXTURE_NOTE, read_header},
    keys,
    load::{Kinds, Place, peft_parts, read_file},
    parts::Part,
    peft::{CONFIG_FILE, WEIGHTS_FILE},
    read::{Hints, dora_in_config, only_lora, read, with_key},
    tensors::header,
};
use crate::{LoraError, LoraModule, Update};

/// Bytes that are hashed at once.
const BLOCK: usize = 1 << 20;

/// One safetensors file of which the header has been read.
#[derive(Debug)]
pub(crate) struct LazyFile {
    path: PathBuf,
    file: File,
    /// The tensors of every module.
    modules: BTreeMap<String, Vec<Stored>>,
    /// Ranks and alphas, from the metadata or from the file beside it.
    config: AdapterConfig,
    /// The bytes of the file beside it, which count as a part of the adapter.
    beside: Vec<u8>,
    component: Option<&'static str>,
    format: Format,
    /// Free-form notes.
    metadata: BTreeMap<String, String>,
}

/// A tensor's place in a file.
#[derive(Debug)]
struct Stored {
    key: String,
    part: Part,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    start: u64,
    bytes: usize,
}

/// Opens a file, or those of a folder of PEFT.
pub(crate) fn open(path: &Path, names: Option<&ModuleNames>) -> Result<Vec<LazyFile>, LoraError> {
    let folder = match Place::of(path)? {
        Place::File(path) => {
            let file = LazyFile::open(&path, names, None, None).map_err(|e| e.in_file(&path))?;
            return Ok(vec![file]);
        }
        Place::Folder(folder) => folder,
    };
    let mut files: Vec<LazyFile> = Vec::new();
    for (part, component) in peft_parts(&folder)? {
        let config_file = part.join(CONFIG_FILE);
        let bytes = read_file(&config_file)?;
        let config = AdapterConfig::parse_peft(&bytes).map_err(|e| e.in_file(&config_file))?;
        let weights = part.join(WEIGHTS_FILE);
        let file = LazyFile::open(&weights, names, component, Some((config, bytes)))
            .map_err(|e| e.in_file(&weights))?;
        let twice = |path| files.iter().any(|other| other.modules.contains_key(path));
        if file.paths().any(twice) {
            return Err(LoraError::PeftFolder {
                path: folder,
                reason: "has a module in the folders of two components",
            });
        }
        files.push(file);
    }
    Ok(files)
}

impl LazyFile {
    fn open(
        path: &Path,
        names: Option<&ModuleNames>,
        component: Option<&'static str>,
        beside: Option<(AdapterConfig, Vec<u8>)>,
    ) -> Result<Self, LoraError> {
        let file = File::open(path).map_err(LoraError::unreadable(path))?;
        let (start, metadata) = read_header(&file, path)?;
        let info = metadata.metadata().as_ref();
        if info.is_some_and(|info| info.contains_key(MIXTURE_NOTE)) {
            return Err(LoraError::IsMixture);
        }
        let (config, beside) = match (beside, info.and_then(|info| info.get(METADATA_KEY))) {
            (Some(beside), _) => beside,
            (None, Some(text)) => (AdapterConfig::parse(text)?, Vec::new()),
            (None, None) => (AdapterConfig::default(), Vec::new()),
        };
        let notes = info.cloned().unwrap_or_default().into_iter().collect();
        if config.any_dora() {
            return Err(dora_in_config());
        }
        let mut scheme = None;
        let mut modules: BTreeMap<String, Vec<Stored>> = BTreeMap::new();
        // Sorted, so that the first error is the same on every run.
        let tensors = metadata.tensors();
        let tensors: BTreeMap<&String, _> = tensors.iter().collect();
        for (key, info) in tensors {
            let parsed = keys::parse(key, names, component)?;
            only_lora(key, parsed.part)?;
            scheme = with_key(scheme, key, parsed.format)?;
            let (from, to) = info.data_offsets;
            modules.entry(parsed.module).or_default().push(Stored {
                key: key.clone(),
                part: parsed.part,
                dtype: info.dtype,
                shape: info.shape.clone(),
                start: start + from as u64,
                bytes: to - from,
            });
        }
        let (format, _) = scheme.ok_or(LoraError::Empty)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            modules,
            config,
            beside,
            component,
            format,
            metadata: notes,
        })
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        self.modules.keys()
    }

    /// The shapes of `A` and `B` as they are stored.
    pub(crate) fn shapes(&self, path: &str) -> Option<(&[usize], &[usize])> {
        let tensors = self.modules.get(path)?;
        let shape = |part| tensors.iter().find(|tensor| tensor.part == part);
        Some((&shape(Part::A)?.shape, &shape(Part::B)?.shape))
    }

    /// Reads the tensors of one module, and nothing else of the file.
    pub(crate) fn module(
        &self,
        path: &str,
        names: Option<&ModuleNames>,
    ) -> Result<Option<LoraModule>, LoraError> {
        let Some(tensors) = self.modules.get(path) else {
            return Ok(None);
        };
        let read = self.read(path, tensors, names);
        read.map(Some).map_err(|error| error.in_file(&self.path))
    }

    /// A file with these tensors alone goes through the reader of whole files.
    fn read(
        &self,
        path: &str,
        tensors: &[Stored],
        names: Option<&ModuleNames>,
    ) -> Result<LoraModule, LoraError> {
        let mut end = 0;
        let entries = tensors.iter().map(|tensor| {
            let start = end;
            end += tensor.bytes;
            let (dtype, shape) = (tensor.dtype, &tensor.shape);
            let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]});
            (tensor.key.clone(), entry)
        });
        let mut bytes = header(entries, &BTreeMap::new());
        for tensor in tensors {
            let start = bytes.len();
            bytes.resize(start + tensor.bytes, 0);
            let values = bytes.get_mut(start..).unwrap_or_default();
            read_at(&self.file, &self.path, values, tensor.start)?;
        }
        let hints = Hints {
            names,
            kinds: Kinds::Lora,
            component: self.component,
            config: Some(&self.config),
        };
        match read(&bytes, &hints)?.updates.pop_first() {
            Some((_, Update::Lora(module))) => Ok(module),
            // Opening has refused these by the name of their tensor.
            Some((_, update)) => Err(LoraError::OtherKind {
                key: path.to_owned(),
                kind: update.kind(),
            }),
            None => Err(LoraError::Empty),
        }
    }

    /// Hashes the whole file as it is on the disk, after what stands beside it.
    pub(crate) fn hash(&self, hash: &mut Sha256) -> Result<(), LoraError> {
        hash.update(&self.beside);
        let length = self
            .file
            .metadata()
            .map_err(LoraError::unreadable(&self.path))?
            .len();
        let mut block = vec![0; BLOCK];
        let mut at = 0;
        while at < length {
            let size = usize::try_from(length - at).unwrap_or(BLOCK).min(BLOCK);
            let values = block.get_mut(..size).unwrap_or_default();
            read_at(&self.file, &self.path, values, at)?;
            hash.update(values);
            at += size as u64;
        }
        Ok(())
    }
}

/// Fills `bytes` from a place in the file, from any thread.
#[cfg(unix)]
pub(crate) fn read_at(
    file: &File,
    path: &Path,
    bytes: &mut [u8],
    start: u64,
) -> Result<(), LoraError> {
    use std::os::unix::fs::FileExt;
    file.read_exact_at(bytes, start)
        .map_err(LoraError::unreadable(path))
}

/// Fills `bytes` from a place in the file, from any thread.
#[cfg(not(unix))]
pub(crate) fn read_at(
    _: &File,
    path: &Path,
    bytes: &mut [u8],
    start: u64,
) -> Result<(), LoraError> {
    use std::io::{Read, Seek, SeekFrom};
    // A file of its own, since all handles of one share their place.
    let mut file = File::open(path).map_err(LoraError::unreadable(path))?;
    let found = file.seek(SeekFrom::Start(start));
    found
        .and_then(|_| file.read_exact(bytes))
        .map_err(LoraError::unreadable(path))
}
