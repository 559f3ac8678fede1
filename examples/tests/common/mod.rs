//! Running the programs, and what all their failures have in common.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of this"
)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by a panic, in its helpers too"
)]

pub mod models;
pub mod runs;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// How a program ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr,
        }
    }

    /// It went well.
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// It failed with code 1 and a message that has all of `parts`.
    pub fn failed(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(1), "{}", self.stderr);
        let at = if self.stderr.starts_with("error: ") {
            0
        } else {
            self.stderr
                .rfind("\nerror: ")
                .unwrap_or_else(|| panic!("{}", self.stderr))
        };
        let message = &self.stderr[at..];
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
        self
    }

    /// The command line was wrong: code 2 and a text with all of `parts`.
    pub fn misused(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(2), "{}", self.stderr);
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "{part:?} is not in: {}",
                self.stderr
            );
        }
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// `selma` with these arguments, separated by white space, in a folder of its own.
pub struct Selma {
    pub folder: TempDir,
}

impl Selma {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Everything in the folder, by name, hidden files included.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn command(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selma"));
        command
            .args(args.split_whitespace())
            .current_dir(self.folder.path());
        command
    }

    pub fn run(&self, args: &str) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    pub fn run_with(&self, args: &str, more: &[&str]) -> Ended {
        Ended::of(self.command(args).args(more).output().unwrap())
    }

    pub fn run_on(&self, args: &str, input: &[u8]) -> Ended {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Ended::of(child.wait_with_output().unwrap())
    }
}

/// A file or folder among the fixtures of another crate, for example `selma-lora/tests/fixtures/expert_a.safetensors`.
pub fn fixture(name: &str) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates")
        .canonicalize()
        .unwrap();
    let path = crates.join(name);
    assert!(path.exists(), "{}", path.display());
    path.to_str().unwrap().to_owned()
}

pub fn tiny_sd() -> String {
    fixture("selma-diffusion/tests/fixtures/tiny-sd")
}

pub fn tiny_sdxl() -> String {
    fixture("selma-diffusion/tests/fixtures/tiny-sdxl")
}

pub fn expert(letter: char) -> String {
    fixture(&format!(
        "selma-lora/tests/fixtures/expert_{letter}.safetensors"
    ))
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
