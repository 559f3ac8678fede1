//! Answers that are kept on disk, so that nothing is asked twice.

use std::{
    collections::HashMap,
    fmt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use image::RgbImage;
use selma_durable::Journal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{EvalError, Reply, Told, Vqa, YesProbability, texts_of_replies};

/// What an answer belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Key {
    /// SHA-256 of the picture's size and pixels.
    image: String,
    model: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    settings: String,
    question: String,
}

/// A line of the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    key: Key,
    answer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    yes: Option<YesProbability>,
}

/// A [`Vqa`] that remembers: the same question about the same pixels is asked once, in this and every later process.
///
/// The answers are in an append-only file ([`selma_durable::Journal`]), one a line, each on the disk before the next
/// question is asked, so a process killed at any time loses none that it had; what a kill tore is cut off. An answer belongs to the
/// SHA-256 of the picture's pixels (width and height as little-endian `u32`, then RGB bytes), the question, the model's
/// name and its [`settings`](Vqa::settings); the name of the picture's file does not matter. Questions that got no answer
/// are not recorded: they are asked again the next time. One process at a time holds the file.
pub struct CachedVqa<'a> {
    vqa: &'a dyn Vqa,
    store: Mutex<Store>,
}

struct Store {
    file: Journal<Entry>,
    known: HashMap<Key, Reply>,
    replayed: usize,
}

impl fmt::Debug for CachedVqa<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedVqa")
            .field("vqa", &self.vqa.name())
            .field("file", &self.store().file.path())
            .finish_non_exhaustive()
    }
}

impl<'a> CachedVqa<'a> {
    /// Asks `vqa` for what is not in the file at `path`, which is made if need be. Its folder must exist.
    ///
    /// # Errors
    /// [`EvalError::Durable`] if the file cannot be read and written, if another process holds it, or if a whole line is
    /// no answer.
    pub fn open(vqa: &'a dyn Vqa, path: &Path) -> Result<Self, EvalError> {
        let (file, entries) = Journal::<Entry>::open(path)?;
        let known = entries.into_iter().map(|entry| {
            let reply = Reply {
                text: entry.answer,
                yes: entry.yes,
                failure: None,
            };
            (entry.key, reply)
        });
        Ok(Self {
            vqa,
            store: Mutex::new(Store {
                known: known.collect(),
                file,
                replayed: 0,
            }),
        })
    }

    /// Number of answers in the file.
    pub fn len(&self) -> usize {
        self.store().known.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many questions were answered from the file since it was opened.
    pub fn replayed(&self) -> usize {
        self.store().replayed
    }

    /// Bytes of a torn last line that [`open`](Self::open) cut off; 0 if the file was whole.
    pub fn repaired_bytes(&self) -> u64 {
        self.store().file.repaired_bytes()
    }

    /// The map has an answer only after the file has it, so a panic elsewhere spoils nothing.
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, key: &Key, reply: &Reply) -> Result<(), EvalError> {
        let mut store = self.store();
        store.file.append(&Entry {
            key: key.clone(),
            answer: reply.text.clone(),
            yes: reply.yes,
        })?;
        store.known.insert(key.clone(), reply.clone());
        Ok(())
    }
}

impl Vqa for CachedVqa<'_> {
    fn name(&self) -> &str {
        self.vqa.name()
    }

    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        texts_of_replies(self, image, questions)
    }

    fn replies(
        &self,
        image: &RgbImage,
        questions: &[&str],
        told: &mut Told<'_>,
    ) -> Result<(), EvalError> {
        let (image_hash, settings) = (sha256(image), self.vqa.settings());
        let keys: Vec<Key> = questions
            .iter()
            .map(|question| Key {
                image: image_hash.clone(),
                model: self.vqa.name().to_owned(),
                settings: settings.clone(),
                question: (*question).to_owned(),
            })
            .collect();
        let mut replies: Vec<Option<Reply>> = {
            let mut store = self.store();
            let replies: Vec<_> = keys
                .iter()
                .map(|key| store.known.get(key).cloned())
                .collect();
            store.replayed += replies.iter().flatten().count();
            replies
        };
        let open: Vec<usize> = (0..keys.len())
            .filter(|&index| replies.get(index).is_some_and(Option::is_none))
            .collect();
        if !open.is_empty() {
            let texts: Vec<&str> = open
                .iter()
                .filter_map(|&i| questions.get(i).copied())
                .collect();
            let mut slots = open.iter();
            self.vqa.replies(image, &texts, &mut |reply| {
                let slot = slots.next().and_then(|&index| {
                    let slot = replies.get_mut(index)?;
                    Some((keys.get(index)?, slot))
                });
                match slot {
                    Some((key, slot)) => {
                        if reply.is_answered() {
                            self.record(key, &reply)?;
                        }
                        *slot = Some(reply);
                    }
                    // One too many: whoever asks sees that the numbers differ.
                    None => replies.push(Some(reply)),
                }
                Ok(())
            })?;
        }
        replies.into_iter().flatten().try_for_each(told)
    }

    fn settings(&self) -> String {
        self.vqa.settings()
    }

    fn jobs(&self) -> usize {
        self.vqa.jobs()
    }
}

fn sha256(image: &RgbImage) -> String {
    let mut hash = Sha256::new();
    hash.update(image.width().to_le_bytes());
    hash.update(image.height().to_le_bytes());
    hash.update(image.as_raw());
    hex::encode(hash.finalize())
}
