//! The Hub: from a model's name to its files on the disk.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cache::Cache;
use crate::client::{Client, tell};
use crate::download::{Meter, Wanted, download};
use crate::listing::{Identity, Listing, file_url, identify};
use crate::select::{MODEL_INDEX, is_network, select, select_network, shards, weight_files};
use crate::{HubConfig, HubError, HubEvent, HubObserver, ModelId};

/// Models by their names.
pub struct Hub {
    client: Client,
    config: HubConfig,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// A folder in diffusers' layout (of a pipeline, or of one network alone), or the single file that was asked for.
    pub path: PathBuf,
    /// The commit of the repository that it is from.
    pub commit: String,
}

impl Hub {
    /// A hub with these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// [`HubError::Config`] for settings that cannot be used, [`HubError::Token`] for a token that no header can carry.
    pub fn new(config: HubConfig) -> Result<Self, HubError> {
        Ok(Self {
            client: Client::new(&config)?,
            config,
        })
    }

    /// Finds a model in the cache, and downloads what is missing unless the settings forbid it.
    ///
    /// A folder's files are those that a text-to-image pipeline reads: configurations, tokenizers, and the weights of each network, of
    /// `variant` (such as `fp16`) where there are such. If the server cannot be reached, a model that the cache has whole is used as it
    /// is, and the observer is told.
    ///
    /// # Errors
    /// All of [`HubError`]. After any of them, what has come is kept, and the next call goes on from there.
    pub fn fetch(
        &self,
        id: &ModelId,
        variant: Option<&str>,
        observer: &mut HubObserver<'_>,
    ) -> Result<Model, HubError> {
        let known = self.cached(id, variant);
        // Nothing about a commit can change.
        if self.config.offline || (id.commit().is_some() && known.is_ok()) {
            return known;
        }
        match (Listing::get(&self.client, id, observer), known) {
            (Ok(listing), _) => self.download(id, variant, &listing, observer),
            (Err(error), Ok(model)) if error.is_unreachable() => {
                let reason = &error.to_string();
                tell(observer, HubEvent::Unreachable { reason })?;
                Ok(model)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Finds a model in the cache, as it was the last time. Nothing is sent.
    ///
    /// # Errors
    /// [`HubError::NotCached`] says what is missing; other errors are those of damaged files.
    pub fn cached(&self, id: &ModelId, variant: Option<&str>) -> Result<Model, HubError> {
        let missing = |missing: String| HubError::NotCached {
            id: id.to_string(),
            cache: self.config.cache.clone(),
            missing,
        };
        let cache = self.cache(id);
        let commit = cache
            .commit(id)
            .ok_or_else(|| missing(format!("the revision {:?}", id.revision())))?;
        let snapshot = cache.snapshot(&commit);
        let names = cache.files(&commit);
        let wanted = match &id.file {
            Some(file) => [file.clone()].into(),
            None if names.contains(MODEL_INDEX) || is_network(&names) => {
                let read = |file: &str| read_json(&snapshot.join(file));
                match choose(id, &names, variant, read) {
                    Err(HubError::Incomplete {
                        component,
                        expected,
                        ..
                    }) => return Err(missing(format!("{expected} of {component}"))),
                    other => other?,
                }
            }
            None => [MODEL_INDEX.to_owned()].into(),
        };
        if let Some(absent) = wanted.iter().find(|file| !names.contains(*file)) {
            return Err(missing(absent.clone()));
        }
        Ok(Model {
            path: place(&snapshot, id),
            commit,
        })
    }

    fn cache(&self, id: &ModelId) -> Cache {
        Cache::new(&self.config.cache, &id.repository)
    }

    fn download(
        &self,
        id: &ModelId,
        variant: Option<&str>,
        listing: &Listing,
        observer: &mut HubObserver<'_>,
    ) -> Result<Model, HubError> {
        let cache = self.cache(id);
        let names: BTreeSet<String> = listing.files.keys().cloned().collect();
        let snapshot = cache.snapshot(&listing.commit);
        let wanted = match &id.file {
            Some(file) if names.contains(file) => [file.clone()].into(),
            Some(file) => {
                return Err(HubError::NoFile {
                    repository: id.repository.clone(),
                    file: file.clone(),
                    weights: weight_files(names.iter()),
                });
            }
            None if names.contains(MODEL_INDEX) || is_network(&names) => {
                choose(id, &names, variant, |file| {
                    let one = [file.to_owned()].into();
                    self.bring(id, listing, &one, &mut |event| match event {
                        // What says which files there are is none that progress is counted by.
                        HubEvent::Chosen { .. } => ControlFlow::Continue(()),
                        HubEvent::Progress { file, .. } => {
                            observer(HubEvent::Waiting { what: file })
                        }
                        other => observer(other),
                    })?;
                    read_json(&snapshot.join(file))
                })?
            }
            None => {
                return Err(HubError::NotDiffusers {
                    repository: id.repository.clone(),
                    weights: weight_files(names.iter()),
                });
            }
        };
        self.bring(id, listing, &wanted, observer)?;
        if id.commit().is_none() {
            cache.remember(id, &listing.commit)?;
        }
        Ok(Model {
            path: place(&snapshot, id),
            commit: listing.commit.clone(),
        })
    }

    /// Brings files of the listing into the cache and into the commit's folder.
    fn bring(
        &self,
        id: &ModelId,
        listing: &Listing,
        files: &BTreeSet<String>,
        observer: &mut HubObserver<'_>,
    ) -> Result<(), HubError> {
        let cache = self.cache(id);
        let mut parts = Vec::new();
        for file in files {
            let url = file_url(&self.client, &id.repository, &listing.commit, file);
            let identity = match listing.files.get(file).cloned().flatten() {
                Some(identity) => identity,
                None => identify(&self.client, &url, file, observer)?,
            };
            parts.push((file, url, identity));
        }
        let commit = &listing.commit;
        let present = |file: &str, identity: &Identity| {
            cache.has(commit, file, identity) || cache.has_blob(identity)
        };
        // What is there comes first, so that progress starts with it.
        parts.sort_by_key(|(file, _, identity)| !present(file, identity));
        let missing = parts.iter().filter(|part| !present(part.0, &part.2));
        let mut meter = Meter {
            before: 0,
            total: parts.iter().map(|part| part.2.size).sum(),
            received: 0,
        };
        let chosen = HubEvent::Chosen {
            commit,
            files: files.len(),
            bytes: meter.total,
            missing: missing.map(|part| part.2.size).sum(),
        };
        tell(observer, chosen)?;
        for (file, url, identity) in &parts {
            if cache.has(commit, file, identity) {
                meter.tell(file, identity.size, observer)?;
            } else {
                let wanted = Wanted {
                    file,
                    url,
                    identity,
                };
                download(&self.client, &cache, &wanted, &mut meter, observer)?;
                cache.link(commit, file, &identity.etag)?;
            }
            meter.before += identity.size;
        }
        Ok(())
    }
}

/// The files of a model in diffusers' layout; `read` gives the content of those that name others.
fn choose(
    id: &ModelId,
    names: &BTreeSet<String>,
    variant: Option<&str>,
    mut read: impl FnMut(&str) -> Result<Value, HubError>,
) -> Result<BTreeSet<String>, HubError> {
    let selection = if names.contains(MODEL_INDEX) {
        select(&id.repository, names, &read(MODEL_INDEX)?, variant)?
    } else {
        select_network(&id.repository, names, variant)?
    };
    let mut files: BTreeSet<String> = selection.files.into_iter().collect();
    for path in &selection.indexes {
        let parts = shards(path, &read(path)?);
        let (component, index) = path.rsplit_once('/').unwrap_or_default();
        let incomplete = |expected: String| HubError::Incomplete {
            repository: id.repository.clone(),
            component: component.to_owned(),
            expected,
            found: vec![index.to_owned()],
        };
        let parts = parts.ok_or_else(|| incomplete(format!("usable weight_map in {index}")))?;
        if let Some(absent) = parts.iter().find(|part| !names.contains(*part)) {
            return Err(incomplete(absent.clone()));
        }
        files.extend(parts);
    }
    Ok(files)
}

fn place(snapshot: &Path, id: &ModelId) -> PathBuf {
    match &id.file {
        Some(file) => snapshot.join(file),
        None => snapshot.to_owned(),
    }
}

fn read_json(path: &Path) -> Result<Value, HubError> {
    let text = std::fs::read_to_string(path).map_err(HubError::disk("read", path, 0))?;
    serde_json::from_str(&text).map_err(|source| HubError::Json {
        path: path.to_owned(),
        source,
    })
}
