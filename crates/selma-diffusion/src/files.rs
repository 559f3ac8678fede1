//! Files that appear whole or not at all.

use std::io::Write;
use std::path::Path;

use crate::DiffusionError;

/// Writes a file under a temporary name in its folder, syncs it and renames it.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), DiffusionError> {
    let unwritable = |source| DiffusionError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    builder.prefix(".selma-").suffix(".tmp");
    #[cfg(unix)]
    {
        // Temporary files are private to their owner; what is made here gets the permissions of any new file.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let folder = folder.unwrap_or(Path::new("."));
    let mut file = builder.tempfile_in(folder).map_err(unwritable)?;
    file.write_all(bytes).map_err(unwritable)?;
    file.as_file().sync_all().map_err(unwritable)?;
    file.persist(path)
        .map_err(|error| unwritable(error.error))?;
    Ok(())
}
