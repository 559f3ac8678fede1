//! Files that appear whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use selma_durable::AtomicFile;

/// A file that is being written. Create it before the work that fills it, so that a wrong path is an error at once.
///
/// The bytes go to a temporary file in the same folder, which takes the file's name when it is finished; dropped before
/// that, it leaves nothing. `-` is standard output; that, devices and pipes cannot be replaced and are written as
/// they are.
#[derive(Debug)]
pub struct Output {
    /// As the user wrote it.
    name: PathBuf,
    target: Target,
}

#[derive(Debug)]
enum Target {
    File(BufWriter<AtomicFile>),
    Device(BufWriter<File>),
    Stdout(BufWriter<io::Stdout>),
}

impl Output {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// If the path is a folder, or lies in one that does not exist or cannot be written.
    pub fn create(name: &Path) -> anyhow::Result<Self> {
        let target =
            Self::target(name).with_context(|| format!("cannot write {}", name.display()))?;
        let name = name.to_owned();
        Ok(Self { name, target })
    }

    fn target(name: &Path) -> anyhow::Result<Target> {
        if name == Path::new("-") {
            return Ok(Target::Stdout(BufWriter::new(io::stdout())));
        }
        let path = match fs::metadata(name) {
            Ok(found) if found.is_dir() => bail!("it is a folder"),
            Ok(found) if !found.is_file() => {
                let device = OpenOptions::new().write(true).open(name)?;
                return Ok(Target::Device(BufWriter::new(device)));
            }
            // What a symbolic link points to is replaced, not the link.
            Ok(_) => fs::canonicalize(name)?,
            Err(_) if fs::symlink_metadata(name).is_ok() => bail!("it is a broken symbolic link"),
            Err(_) => name.to_owned(),
        };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => bail!("{} is not a folder", folder.display()),
            Err(error) => return Err(error).context(format!("folder {}", folder.display())),
        }
        Ok(Target::File(BufWriter::new(AtomicFile::create(&path)?)))
    }

    /// Whether it is a file that appears when it is complete, and no device or standard output.
    pub fn is_file(&self) -> bool {
        matches!(self.target, Target::File(_))
    }

    /// Adds bytes.
    ///
    /// # Errors
    ///
    /// If they cannot be written, for example because the disk is full.
    pub fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = match &mut self.target {
            Target::File(writer) => writer.write_all(bytes),
            Target::Device(writer) => writer.write_all(bytes),
            Target::Stdout(writer) => writer.write_all(bytes),
        };
        written.with_context(|| format!("cannot write {}", self.name.display()))
    }

    /// Gives the file its name, once it is on the disk.
    ///
    /// # Errors
    ///
    /// If that fails; a file that had the name before is then as it was.
    pub fn finish(self) -> anyhow::Result<()> {
        let finish = || -> io::Result<()> {
            match self.target {
                Target::File(writer) => writer
                    .into_inner()
                    .map_err(io::IntoInnerError::into_error)?
                    .commit()?,
                Target::Device(mut writer) => writer.flush()?,
                Target::Stdout(mut writer) => writer.flush()?,
            }
            Ok(())
        };
        finish().with_context(|| format!("cannot write {}", self.name.display()))
    }

    /// Writes everything at once and finishes.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write) and [`finish`](Self::finish).
    pub fn finish_with(mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.write(bytes)?;
        self.finish()
    }
}

/// Checks, before the work, that a library will be able to write the ordinary file `name` after it.
///
/// # Errors
///
/// Those of [`Output::create`]; devices, pipes and standard output are refused, too.
pub fn check_file(name: &Path) -> anyhow::Result<()> {
    match Output::create(name)?.target {
        Target::File(_) => Ok(()),
        Target::Device(_) | Target::Stdout(_) => {
            bail!(
                "cannot write {}: it is not an ordinary file",
                name.display()
            )
        }
    }
}

/// Sees that no output would overwrite an input or another output.
///
/// # Errors
///
/// The first that would.
pub fn spare<'a>(
    inputs: impl IntoIterator<Item = &'a Path>,
    outputs: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<()> {
    let inputs: Vec<&Path> = inputs.into_iter().collect();
    let mut before: Vec<&Path> = Vec::new();
    for output in outputs {
        ensure!(
            !inputs.iter().any(|input| same_file(input, output)),
            "{} is an input; write to another file",
            output.display()
        );
        ensure!(
            !before.iter().any(|other| same_file(other, output)),
            "two outputs cannot both go to {}",
            output.display()
        );
        before.push(output);
    }
    Ok(())
}

/// Whether two names mean the same file, which need not exist.
fn same_file(a: &Path, b: &Path) -> bool {
    let resolve = |path: &Path| {
        let folder = path.parent().filter(|folder| *folder != Path::new(""));
        let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
        let named = || {
            folder
                .ok()
                .zip(path.file_name())
                .map(|(folder, name)| folder.join(name))
        };
        fs::canonicalize(path).ok().or_else(named)
    };
    a == b || resolve(a).is_some_and(|a| resolve(b).is_some_and(|b| a == b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_when_it_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "old").unwrap();
        let mut output = Output::create(&path).unwrap();
        output.write(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        output.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let mut dropped = Output::create(&path).unwrap();
        dropped.write(b"half").unwrap();
        drop(dropped);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_at_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for (name, cause) in [
            ("", "it is a folder"),
            ("no/a.txt", "folder "),
            ("file/a.txt", "file"),
        ] {
            let error = Output::create(&folder.path().join(name)).unwrap_err();
            let text = format!("{error:#}");
            assert!(
                text.starts_with("cannot write ") && text.contains(cause),
                "{text}"
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_device_is_written_and_not_replaced() {
        let full = Path::new("/dev/full");
        let error = Output::create(full).unwrap().finish_with(b"a").unwrap_err();
        assert!(
            format!("{error:#}").starts_with("cannot write /dev/full: No space"),
            "{error:#}"
        );
        assert!(!fs::metadata(full).unwrap().is_file());
        assert!(check_file(full).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        Output::create(&link).unwrap().finish_with(b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(same_file(&file, &link));
        fs::remove_file(&file).unwrap();
        assert!(Output::create(&link).is_err());
    }

    #[test]
    fn names_of_one_file_are_seen_through() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("in")).unwrap();
        assert!(same_file(&at("a"), &at("in/../a")));
        assert!(!same_file(&at("a"), &at("in/a")));
        assert!(same_file(Path::new("-"), Path::new("-")));
    }
}
