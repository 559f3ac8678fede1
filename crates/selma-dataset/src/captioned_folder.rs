//! Folders of pictures with a caption file beside each, and kohya's folders with repeats.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use selma_durable::DurableError;

use crate::picture::{PICTURE_ENDINGS, check_file};
use crate::skips::Skips;
use crate::source::path_of;
use crate::words::list;
use crate::{DatasetError, Pictures, Problem, caption};

/// The endings of caption files, without the dot.
const CAPTION_ENDINGS: [&str; 2] = ["txt", "caption"];

/// Pictures in a folder and the folders in it, in the order of their names without endings.
#[derive(Debug)]
pub(crate) struct CaptionedFolder {
    root: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    text: String,
    repeats: usize,
}

impl CaptionedFolder {
    /// Reads all captions. Their files end with `ending`, or else with `.txt` or `.caption`.
    pub(crate) fn open(
        root: PathBuf,
        ending: Option<&str>,
        skips: &mut Skips,
    ) -> Result<Self, DatasetError> {
        let endings = ending
            .as_ref()
            .map_or(CAPTION_ENDINGS.as_slice(), std::slice::from_ref);
        let mut stems = BTreeMap::new();
        let mut walk = Walk {
            root: &root,
            skips,
            files: Vec::new(),
            above: Vec::new(),
        };
        walk.folder(&root, "")?;
        for name in walk.files {
            let (stem, ending) = split_ending(&name);
            let beside: &mut Beside = stems.entry(stem.to_owned()).or_default();
            if PICTURE_ENDINGS.contains(&ending.as_str()) {
                beside.pictures.push(name);
            } else if endings.contains(&ending.as_str()) {
                beside.captions.push(name);
            } else {
                beside.others.push(name);
            }
        }
        let captioned: HashSet<String> = stems
            .iter()
            .filter(|(_, beside)| !beside.captions.is_empty())
            .filter_map(|(stem, _)| Some(stem.split_once('/')?.0.to_owned()))
            .collect();
        let mut entries = Vec::new();
        for (stem, beside) in &stems {
            let top = stem.split_once('/').map(|(top, _)| top);
            let (repeats, class) = top.and_then(repeats).unwrap_or((1, ""));
            // As in kohya's scripts, the name of a folder `N_name` without a single caption is the caption of all.
            let class = match top {
                Some(top) if !class.is_empty() && !captioned.contains(top) => Some(class),
                _ => None,
            };
            let entry = beside.entry(&root, stem, endings, class);
            if let Some((name, text)) = skips.take(entry)?.flatten() {
                entries.push(Entry {
                    name,
                    text,
                    repeats,
                });
            }
        }
        Ok(Self { root, entries })
    }
}

impl Pictures for CaptionedFolder {
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

    fn repeats(&self, index: usize) -> usize {
        self.entries.get(index).map_or(1, |entry| entry.repeats)
    }

    fn bytes(&self, index: usize) -> Result<Vec<u8>, DatasetError> {
        let path = path_of(self, index)?;
        Ok(fs::read(&path).map_err(DurableError::io("read", &path))?)
    }
}

/// The files of one stem.
#[derive(Debug, Default)]
struct Beside {
    pictures: Vec<String>,
    captions: Vec<String>,
    others: Vec<String>,
}

impl Beside {
    /// The picture and its caption, if there are any. `class` stands for a caption that is missing.
    fn entry(
        &self,
        root: &Path,
        stem: &str,
        endings: &[&str],
        class: Option<&str>,
    ) -> Result<Option<(String, String)>, DatasetError> {
        let wrong = |name: &str, problem, expected, found| DatasetError::Entry {
            path: root.join(name),
            problem,
            expected,
            found,
        };
        let stem = stem.rsplit('/').next().unwrap_or(stem);
        let beside = |kind, endings: &[&str]| {
            let names: Vec<String> = endings
                .iter()
                .map(|ending| format!("{stem}.{ending}"))
                .collect();
            format!("{kind} {} beside it", list(&names, "or"))
        };
        let others = || list(&self.others, "and");
        for (names, one) in [
            (&self.pictures, "one picture of this stem"),
            (&self.captions, "one caption of this stem"),
        ] {
            if let [first, second, ..] = names.as_slice() {
                let found = format!("`{first}`, too");
                return Err(wrong(second, Problem::Duplicate, one.to_owned(), found));
            }
        }
        match (self.pictures.first(), self.captions.first(), class) {
            (None, None, _) => Ok(None),
            (None, Some(name), _) => {
                let expected = beside("a picture", &PICTURE_ENDINGS);
                Err(wrong(name, Problem::NoPicture, expected, others()))
            }
            (Some(name), None, None) => {
                let expected = beside("a caption", endings);
                Err(wrong(name, Problem::NoCaption, expected, others()))
            }
            (Some(name), None, Some(class)) => {
                check_file(&root.join(name))?;
                Ok(Some((name.clone(), class.to_owned())))
            }
            (Some(name), Some(text), _) => {
                let path = root.join(text);
                let bytes = fs::read(&path).map_err(DurableError::io("read", &path))?;
                let text = caption::of_text(&path, &bytes)?;
                check_file(&root.join(name))?;
                Ok(Some((name.clone(), text)))
            }
        }
    }
}

/// Lists files. What begins with a dot is passed over, as are folders `0_name`, which kohya's scripts repeat zero times.
struct Walk<'a> {
    root: &'a Path,
    skips: &'a mut Skips,
    /// Their names, with `/` between the parts.
    files: Vec<String>,
    /// The folders on the way, for finding links that lead back to one of them.
    above: Vec<PathBuf>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), DatasetError> {
        let real = fs::canonicalize(folder).map_err(DurableError::io("read", folder))?;
        if self.above.contains(&real) {
            return self.bad_name(folder, "a folder", "a link to one above it");
        }
        self.above.push(real);
        let read_error = || DurableError::io("read", folder);
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(read_error())? {
            names.push(entry.map_err(read_error())?.file_name());
        }
        // The system's order is any.
        names.sort_unstable();
        for name in names {
            let path = folder.join(&name);
            let Some(name) = name.to_str() else {
                self.bad_name(&path, "UTF-8", "other bytes")?;
                continue;
            };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            // Follows links.
            let kind =
                fs::metadata(&path).map_err(|error| DurableError::io("read", &path)(error).into());
            let Some(kind) = self.skips.take(kind)? else {
                continue;
            };
            if kind.is_dir() {
                if !(folder == self.root && repeats(&name).is_some_and(|(times, _)| times == 0)) {
                    self.folder(&path, &format!("{name}/"))?;
                }
            } else {
                self.files.push(name);
            }
        }
        self.above.pop();
        Ok(())
    }

    fn bad_name(&mut self, path: &Path, expected: &str, found: &str) -> Result<(), DatasetError> {
        let error = DatasetError::Entry {
            path: path.into(),
            problem: Problem::BadName,
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        self.skips.take(Err(error)).map(|_: Option<()>| ())
    }
}

/// The number and the name of a folder `N_name` of kohya's.
fn repeats(folder: &str) -> Option<(usize, &str)> {
    let (times, name) = folder.split_once('_')?;
    let digits = !times.is_empty() && times.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| times.parse().ok().map(|times| (times, name)))?
}

/// A name without its ending, and the ending without its dot in lower case.
fn split_ending(name: &str) -> (&str, String) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name.rfind('.').filter(|&dot| dot > base) {
        Some(dot) => {
            let (stem, ending) = name.split_at(dot);
            (stem, ending.trim_start_matches('.').to_lowercase())
        }
        None => (name, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_before_an_underscore_are_repeats() {
        assert_eq!(repeats("10_sks dog"), Some((10, "sks dog")));
        assert_eq!(repeats("1_a_b"), Some((1, "a_b")));
        assert_eq!(repeats("0_off"), Some((0, "off")));
        for name in ["10", "a_1", "_a", "+1_a", "-1_a", "99999999999999999999_a"] {
            assert_eq!(repeats(name), None, "{name}");
        }
    }

    #[test]
    fn endings_are_what_follows_the_last_dot() {
        for (name, stem, ending) in [
            ("a.PNG", "a", "png"),
            ("x.y/a.b.txt", "x.y/a.b", "txt"),
            ("x.y/a", "x.y/a", ""),
        ] {
            assert_eq!(split_ending(name), (stem, ending.to_owned()));
        }
    }
}
