#![doc = include_str!("../README.md")]

mod atomic;
mod atomic_folder;
mod error;
mod folder;
mod hash;
mod journal;
mod json;
mod jsonl;

pub use atomic::{AtomicFile, atomic_write, sync_files, write_unsynced};
pub use atomic_folder::AtomicFolder;
pub use error::DurableError;
pub use folder::{create_folder, remove_temporaries};
pub use hash::sha256;
pub use journal::Journal;
pub use json::{script_json, to_json, write_json};
pub use jsonl::{parse_jsonl, read_jsonl, to_jsonl, write_jsonl};
