//! Where an adapter goes, and in which form.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use selma_lora::{Adapter, Dtype, Format};

use crate::output::Output;

/// Formats that can be written, by name.
pub const FORMATS: [&str; 4] = ["kohya", "diffusers", "peft", "diffusers_script"];

/// Number types that can be written, by name.
pub const DTYPES: [&str; 3] = ["f32", "f16", "bf16"];

/// A file, or the folder that PEFT reads. Create it before the work whose result it takes, so that a wrong path is an error at once.
#[derive(Debug)]
pub struct AdapterOutput {
    path: PathBuf,
    format: Format,
    dtype: Dtype,
    /// None for a folder.
    file: Option<Output>,
}

impl AdapterOutput {
    /// Begins the file, or sees that a folder can be made.
    ///
    /// # Errors
    ///
    /// If the place cannot be written.
    pub fn create(path: &Path, format: Format, dtype: Dtype) -> anyhow::Result<Self> {
        let file = if format == Format::Peft {
            check_folder(path)?;
            None
        } else {
            Some(Output::create(path)?)
        };
        Ok(Self {
            path: path.to_owned(),
            format,
            dtype,
            file,
        })
    }

    /// Whether it is a place that can be written out of order: no device, and not standard output.
    pub fn is_on_disk(&self) -> bool {
        self.file.as_ref().is_none_or(Output::is_file)
    }

    /// Writes the adapter; what was written, for people.
    ///
    /// # Errors
    ///
    /// If the format or the number type cannot hold it, or the place cannot be written. A file is then as it was.
    pub fn finish(self, adapter: &Adapter) -> anyhow::Result<String> {
        let Self {
            path,
            format,
            dtype,
            file,
        } = self;
        match file {
            Some(file) => file.finish_with(&adapter.to_bytes(format, dtype)?)?,
            None => adapter.save(&path, format, dtype)?,
        }
        Ok(written(&path, format, dtype))
    }
}

/// What was written, for people.
pub fn written(path: &Path, format: Format, dtype: Dtype) -> String {
    format!("{} ({format}, {dtype})", path.display())
}

fn check_folder(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let parent = path.parent().filter(|folder| *folder != Path::new(""));
    match fs::metadata(path) {
        _ if path == Path::new("-") => {
            bail!("cannot write to standard output: the format peft is a folder")
        }
        Ok(found) => ensure!(
            found.is_dir(),
            "cannot write {shown}: it is a file, and the format peft is a folder"
        ),
        Err(_) => ensure!(
            parent.is_none_or(Path::is_dir),
            "cannot write {shown}: the folder around it does not exist"
        ),
    }
    Ok(())
}

/// The number type that loses nothing of an adapter of these.
pub fn widest(dtypes: &BTreeSet<Dtype>) -> Dtype {
    match dtypes.first() {
        Some(&only) if dtypes.len() == 1 => only,
        _ => Dtype::F32,
    }
}
