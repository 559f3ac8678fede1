//! A memory-mapped file.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{AllocationProperty, Bytes};
use memmap2::Mmap;

use crate::DiffusionError;

/// A file in memory, of which nothing is read before it is asked for.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Self, DiffusionError> {
        let unreadable = |source| DiffusionError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        // SAFETY: the map is read-only and private to this value. A process that truncates the file while it is mapped
        // would make reads fault; weight files are replaced by rename, never rewritten in place.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(unreadable)?;
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Bytes of the file as a tensor's memory, without a copy: the file stays mapped as long as they live, and what is
    /// written to them goes to a copy. `None` if the range does not lie in the file.
    pub(crate) fn shared(self: &Arc<Self>, range: Range<usize>) -> Option<Bytes> {
        self.map.get(range.clone())?;
        let file = self.clone();
        let bytes = bytes::Bytes::from_owner(MappedRange { file, range });
        Some(Bytes::from_shared(bytes, AllocationProperty::File))
    }

    /// Gives the pages of a range back to the system, which reads them again if they are needed once more.
    ///
    /// A tensor whose values were copied out is not needed again; without this the whole file would stay in memory
    /// beside the copies.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        if range.end <= self.map.len() && !range.is_empty() {
            // SAFETY: the range lies in the map. The map is of a file and never written to, so its pages can be dropped
            // at any time: a later read brings the same bytes.
            #[allow(unsafe_code)]
            let advised = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.len(),
                )
            };
            // A system that does not take the advice only keeps more in memory.
            advised.ok();
        }
        #[cfg(not(unix))]
        drop(range);
    }
}

/// A range that lies in a mapped file.
struct MappedRange {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl AsRef<[u8]> for MappedRange {
    fn as_ref(&self) -> &[u8] {
        self.file.map.get(self.range.clone()).unwrap_or_default()
    }
}
