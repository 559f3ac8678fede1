//! JSONL files: written whole or not at all, read strictly.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::LlmError;

/// Writes one JSON value a line to a temporary file beside `path`, syncs it and renames it.
pub(crate) fn write_jsonl<T: Serialize>(path: &Path, rows: &[T]) -> Result<(), LlmError> {
    let failed = || LlmError::io("write", path);
    let directory = directory_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".selma-").suffix(".tmp");
    let mut file = builder.tempfile_in(directory).map_err(failed())?;
    let mut writer = BufWriter::new(file.as_file_mut());
    for row in rows {
        serde_json::to_writer(&mut writer, row)
            .map_err(Into::into)
            .and_then(|()| writer.write_all(b"\n"))
            .map_err(failed())?;
    }
    writer.flush().map_err(failed())?;
    drop(writer);
    make_readable(file.as_file()).map_err(failed())?;
    file.as_file().sync_all().map_err(failed())?;
    file.persist(path).map_err(|error| failed()(error.error))?;
    sync_directory(path)
}

/// Reads one JSON value a line; `check` says what is wrong with a row beyond its form.
pub(crate) fn read_jsonl<T: DeserializeOwned>(
    path: &Path,
    mut check: impl FnMut(&T) -> Result<(), String>,
) -> Result<Vec<T>, LlmError> {
    let bytes = std::fs::read(path).map_err(LlmError::io("read", path))?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut rows = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let row = serde_json::from_slice(line)
            .map_err(|error| without_position(&error))
            .and_then(|row| check(&row).map(|()| row))
            .map_err(|reason| LlmError::Line {
                path: path.to_owned(),
                line: index + 1,
                reason,
            })?;
        rows.push(row);
    }
    Ok(rows)
}

/// What a JSON error says, with the column only: its line is always 1 where every line is a document.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(message, _)| message);
    format!("{message} at column {}", error.column())
}

/// The directory a file lies in.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes a new name in a directory survive a power cut; not every system can open a directory.
pub(crate) fn sync_directory(path: &Path) -> Result<(), LlmError> {
    if cfg!(unix) {
        let directory = directory_of(path);
        File::open(directory)
            .and_then(|directory| directory.sync_all())
            .map_err(LlmError::io("sync", directory))?;
    }
    Ok(())
}

/// Temporary files are made for the owner alone; the result is an ordinary file.
fn make_readable(file: &File) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _ = file;
    Ok(())
}
