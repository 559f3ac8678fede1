//! Archives of pictures and captions in the layout of the library `webdataset`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use selma_durable::DurableError;

use crate::picture::{HEAD, PICTURE_ENDINGS, check_head};
use crate::shard::{self, Member};
use crate::skips::Skips;
use crate::source::path_of;
use crate::{DatasetError, Pictures, Problem, caption};

/// Pictures in tar archives, archive after archive and in the order of the archives. Where they are is found out once, and
/// each is read by jumping to it.
#[derive(Debug)]
pub(crate) struct WebDataset {
    root: PathBuf,
    shards: Vec<PathBuf>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    text: String,
    shard: usize,
    offset: u64,
    len: u64,
}

impl WebDataset {
    /// Lists the archives `shards` in the folder `root`. Captions are members with the ending `caption` or JSON under that
    /// key, or else `.txt`, or `.json` with `text` or `caption`.
    pub(crate) fn open(
        root: PathBuf,
        shards: &[String],
        caption: Option<&str>,
        skips: &mut Skips,
    ) -> Result<Self, DatasetError> {
        let mut entries = Vec::new();
        let paths: Vec<PathBuf> = shards.iter().map(|shard| root.join(shard)).collect();
        for (number, (shard, path)) in shards.iter().zip(&paths).enumerate() {
            for sample in samples(path, caption, skips)? {
                let entry = sample.entry(path, caption);
                if let Some((picture, text)) = skips.take(entry)?.flatten() {
                    entries.push(Entry {
                        name: format!("{shard}/{}", picture.name),
                        text,
                        shard: number,
                        offset: picture.offset,
                        len: picture.len,
                    });
                }
            }
        }
        Ok(Self {
            root,
            shards: paths,
            entries,
        })
    }
}

impl Pictures for WebDataset {
    fn root(&self) -> &Path {
        &self.root
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn name(&self, index: usize) -> Option<&str> {
        self.entries.get(index).map(|entry| entry.name.as_str())
    }

    fn text(&self, index: usize) -> Option<&str> {
        self.entries.get(index).map(|entry| entry.text.as_str())
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError> {
        let path = path_of(self, index)?;
        let mut bytes = Vec::new();
        let entry = self.entries.get(index);
        let Some((entry, shard)) = entry.and_then(|it| Some((it, self.shards.get(it.shard)?)))
        else {
            return Ok(bytes);
        };
        let mut file = File::open(shard).map_err(DurableError::io("open", shard))?;
        file.seek(SeekFrom::Start(entry.offset))
            .and_then(|_| file.take(entry.len).read_to_end(&mut bytes))
            .map_err(DurableError::io("read", &path))?;
        if bytes.len() as u64 != entry.len {
            return Err(DatasetError::Entry {
                path,
                problem: Problem::Torn,
                expected: format!("{} bytes", entry.len),
                found: bytes.len().to_string(),
            });
        }
        Ok(bytes)
    }
}

/// The members of one key.
#[derive(Debug, Default)]
struct Sample {
    picture: Option<Member>,
    text: Option<Member>,
    json: Option<Member>,
    /// Name of a member for whose place there was one already.
    second: Option<String>,
}

/// The samples of an archive, in the order of their first members.
fn samples(
    path: &Path,
    caption: Option<&str>,
    skips: &mut Skips,
) -> Result<Vec<Sample>, DatasetError> {
    let keep = |name: &str| match role(name, caption) {
        Some((_, Role::Picture)) => HEAD,
        Some((_, Role::Text | Role::Json)) => u64::MAX,
        None => 0,
    };
    let mut samples: Vec<Sample> = Vec::new();
    let mut places = HashMap::new();
    for member in shard::list(path, keep, skips)? {
        let Some((key, role)) = role(&member.name, caption) else {
            continue;
        };
        let place = *places.entry(key.to_owned()).or_insert(samples.len());
        if place == samples.len() {
            samples.push(Sample::default());
        }
        if let Some(sample) = samples.get_mut(place) {
            let slot = match role {
                Role::Picture => &mut sample.picture,
                Role::Text => &mut sample.text,
                Role::Json => &mut sample.json,
            };
            if slot.is_some() {
                sample.second = Some(member.name);
            } else {
                *slot = Some(member);
            }
        }
    }
    Ok(samples)
}

/// What a member is in its sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Picture,
    Text,
    Json,
}

/// The key of a member, which is its name up to the first dot after the last slash, and what it is.
fn role<'a>(name: &'a str, caption: Option<&str>) -> Option<(&'a str, Role)> {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = base + name.get(base..)?.find('.')?;
    let (key, ending) = name.split_at_checked(dot)?;
    let ending = ending.strip_prefix('.')?.to_lowercase();
    let role = if PICTURE_ENDINGS.contains(&ending.as_str()) {
        Role::Picture
    } else if ending == ending_of(caption) {
        Role::Text
    } else if ending == "json" {
        Role::Json
    } else {
        return None;
    };
    Some((key, role))
}

/// The ending of members that hold captions, without the dot and in lower case.
fn ending_of(caption: Option<&str>) -> String {
    let ending = caption.unwrap_or("txt");
    ending.trim_start_matches('.').to_lowercase()
}

impl Sample {
    /// The picture and its caption. Text goes before JSON.
    fn entry(
        self,
        shard: &Path,
        caption: Option<&str>,
    ) -> Result<Option<(Member, String)>, DatasetError> {
        let wrong = |name: &str, problem, expected: &str, found: &str| DatasetError::Entry {
            path: shard.join(name),
            problem,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        if let Some(name) = &self.second {
            let expected = "one picture, one text and one JSON a key";
            return Err(wrong(name, Problem::Duplicate, expected, "a second one"));
        }
        let Some(picture) = self.picture else {
            return match self.text.or(self.json) {
                Some(caption) => {
                    let expected = "a picture .jpg, .jpeg, .png or .webp of the same key";
                    Err(wrong(&caption.name, Problem::NoPicture, expected, "none"))
                }
                None => Ok(None),
            };
        };
        let path = |member: &Member| shard.join(&member.name);
        let text = match (&self.text, &self.json) {
            (Some(text), _) => caption::of_text(&path(text), &text.start)?,
            (None, Some(json)) => caption::of_json(&path(json), &json.start, caption)?,
            (None, None) => {
                let ending = ending_of(caption);
                let expected = format!("a caption .{ending} or .json of the same key");
                return Err(wrong(&picture.name, Problem::NoCaption, &expected, "none"));
            }
        };
        check_head(&path(&picture), &picture.start)?;
        Ok(Some((picture, text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_last_part() {
        for (name, caption, expected) in [
            ("a.jpg", None, Some(("a", Role::Picture))),
            ("x.y/0001.JPEG", None, Some(("x.y/0001", Role::Picture))),
            ("0001.txt", None, Some(("0001", Role::Text))),
            ("0001.json", None, Some(("0001", Role::Json))),
            ("0001.txt", Some("blip"), None),
            ("0001.blip", Some("blip"), Some(("0001", Role::Text))),
            ("0001.json", Some("blip"), Some(("0001", Role::Json))),
            ("0001.seg.png", None, None),
            ("0001.cls", None, None),
            ("LICENSE", None, None),
        ] {
            assert_eq!(role(name, caption), expected, "{name}");
        }
    }
}
