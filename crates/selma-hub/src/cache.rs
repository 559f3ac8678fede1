//! The cache on disk, in the layout of Python's `huggingface_hub`, whose downloads and locks are shared.
//!
//! ```text
//! CACHE/models--OWNER--NAME/refs/REVISION             the commit that a branch or tag stood for the last time
//!                           snapshots/COMMIT/PATH     the files of a commit: links to
//!                           blobs/ETAG                their content
//! CACHE/.locks/models--OWNER--NAME/ETAG.lock          held while a blob is downloaded
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use selma_durable::{DurableError, atomic_write, create_folder};

use crate::client::{pause, tell};
use crate::id::is_commit;
use crate::listing::Identity;
use crate::{HubError, HubEvent, HubObserver, ModelId};

/// Time between two looks at a lock that another process holds.
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// The part of the cache that one repository has.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
    locks: PathBuf,
    names: hf_hub::CacheRepo,
}

impl Cache {
    pub(crate) fn new(cache: &Path, repository: &str) -> Self {
        let repo = hf_hub::Repo::model(repository.to_owned());
        let folder = repo.folder_name();
        Self {
            root: cache.join(&folder),
            locks: cache.join(".locks").join(&folder),
            names: hf_hub::Cache::new(cache.to_owned()).repo(repo),
        }
    }

    /// The commit that the id stood for the last time.
    pub(crate) fn commit(&self, id: &ModelId) -> Option<String> {
        if let Some(commit) = id.commit() {
            return Some(commit.to_owned());
        }
        let text = fs::read_to_string(self.reference(id.revision())).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Remembers what a branch or tag stands for. A cache that knows it may be read-only.
    pub(crate) fn remember(&self, id: &ModelId, commit: &str) -> Result<(), HubError> {
        if self.commit(id).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference(id.revision());
        create_folder(parent(&path))?;
        Ok(atomic_write(&path, commit.as_bytes())?)
    }

    fn reference(&self, revision: &str) -> PathBuf {
        self.root.join("refs").join(revision)
    }

    /// The folder of a commit's files.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.names.pointer_path(commit)
    }

    /// Whether a commit's folder has a file, of the right length.
    pub(crate) fn has(&self, commit: &str, file: &str, identity: &Identity) -> bool {
        is_whole(&self.snapshot(commit).join(file), identity)
    }

    /// Whether a file's content is there, of the right length.
    pub(crate) fn has_blob(&self, identity: &Identity) -> bool {
        is_whole(&self.blob(&identity.etag), identity)
    }

    /// Where a file's content lies, once it is complete.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.root.join("blobs").join(etag)
    }

    /// All files of a commit that are there, by their paths in the repository.
    pub(crate) fn files(&self, commit: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        collect(&self.snapshot(commit), "", &mut found);
        found
    }

    /// Has the commit's folder show a blob as one of its files.
    pub(crate) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let link = self.snapshot(commit).join(file);
        // Out of the file's folder and of `snapshots/COMMIT`.
        let target = format!("{}blobs/{etag}", "../".repeat(file.split('/').count() + 1));
        if fs::read_link(&link).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(());
        }
        create_folder(parent(&link))?;
        // Something else of that name leads nowhere, or is a copy of other content.
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)
                .or_else(unless(ErrorKind::NotFound))
                .map_err(DurableError::io("remove", &link))?;
        }
        let made = make_link(&target, &self.blob(etag), &link);
        // Then another process was quicker.
        let made = made.or_else(unless(ErrorKind::AlreadyExists));
        Ok(made.map_err(DurableError::io("write", &link))?)
    }

    /// Waits until nobody else downloads the blob, and keeps others from it as long as the file is held.
    pub(crate) fn lock(
        &self,
        etag: &str,
        file: &str,
        observer: &mut HubObserver<'_>,
    ) -> Result<File, HubError> {
        create_folder(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let mut open = OpenOptions::new();
        let lock = open.write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(DurableError::io("open", &path))?;
        let mut told = false;
        // A file system without locks is used without.
        while let Err(TryLockError::WouldBlock) = lock.try_lock() {
            if !told {
                tell(observer, HubEvent::Shared { file })?;
                told = true;
            }
            pause(LOCK_PAUSE, file, observer)?;
        }
        Ok(lock)
    }
}

fn is_whole(path: &Path, identity: &Identity) -> bool {
    let found = path.metadata();
    found.is_ok_and(|found| found.is_file() && found.len() == identity.size)
}

fn collect(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    // What cannot be read counts as missing, and is said to be when it is needed.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), found);
        } else if path.is_file() {
            found.insert(format!("{prefix}{name}"));
        }
    }
}

/// Forgives one kind of error.
fn unless(kind: ErrorKind) -> impl FnOnce(io::Error) -> io::Result<()> {
    move |error| match error.kind() == kind {
        true => Ok(()),
        false => Err(error),
    }
}

#[cfg(unix)]
fn make_link(target: &str, _blob: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Symbolic links need a privilege on Windows, hard links do not.
#[cfg(not(unix))]
fn make_link(_target: &str, blob: &Path, link: &Path) -> io::Result<()> {
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(drop))
}

/// All paths here have a folder.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    const COMMIT: &str = "39593d5650112b4cc580433f6b0435385882d819";

    #[test]
    fn the_layout_is_that_of_huggingface_hub() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("models--owner--name");
        let cache = Cache::new(dir.path(), "owner/name");
        let id: ModelId = "owner/name@refs/pr/1".parse().unwrap();
        assert_eq!(cache.commit(&id), None);
        cache.remember(&id, COMMIT).unwrap();
        assert_eq!(
            fs::read_to_string(root.join("refs/refs/pr/1")).unwrap(),
            COMMIT
        );
        assert_eq!(cache.commit(&id).as_deref(), Some(COMMIT));

        let blob = cache.blob("abc");
        assert_eq!(blob, root.join("blobs/abc"));
        fs::create_dir_all(parent(&blob)).unwrap();
        fs::write(&blob, "content").unwrap();
        for file in ["model_index.json", "unet/config.json", "a/b/c"] {
            // The second time, the link is there.
            cache.link(COMMIT, file, "abc").unwrap();
            cache.link(COMMIT, file, "abc").unwrap();
            let path = root.join("snapshots").join(COMMIT).join(file);
            assert_eq!(fs::read_to_string(path).unwrap(), "content");
        }
        let files: Vec<String> = cache.files(COMMIT).into_iter().collect();
        assert_eq!(files, ["a/b/c", "model_index.json", "unet/config.json"]);
        fs::remove_file(&blob).unwrap();
        assert!(cache.files(COMMIT).is_empty(), "links that lead nowhere");
    }

    #[test]
    fn one_download_of_a_blob_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), "owner/name");
        let held = cache
            .lock("abc", "x", &mut |_| panic!("nobody has it"))
            .unwrap();
        let mut told = Vec::new();
        let stopped = cache.lock("abc", "x", &mut |event| {
            told.push(format!("{event:?}"));
            match event {
                HubEvent::Waiting { .. } => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        assert!(matches!(stopped, Err(HubError::Cancelled)));
        assert_eq!(
            told,
            [r#"Shared { file: "x" }"#, r#"Waiting { what: "x" }"#]
        );
        drop(held);
        cache
            .lock("abc", "x", &mut |_| panic!("nobody has it"))
            .unwrap();
    }
}
