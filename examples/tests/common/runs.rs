//! A run of a model of a few thousand parameters.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Selma, copy_folder, tiny_sd};

pub const RECIPE: &str = r#"
name = "tiny"
seed = 7
model = "model"

[prompts]
writer = "mini"
skills = ["coco", "count_bench"]
count = 4

[images]
steps = 2
guidance = 2.0
batch_size = 2

[train]
union = false
checkpoint_every = 2
steps = 5
batch_size = 2
gradient_accumulation = 1
rank = 2
alpha = 2.0

[merge]
methods = ["mean", { method = "peft_ties", density = 0.5, weights = [1.0, 0.5], name = "ties-0.5" }]

[eval]
prompts = 1
validation = 1
guidances = [1.0, 2.0]
steps = 2
batch_size = 4
aggregation = "official"
"#;

/// A folder with the recipe and its model, whose pictures have the size that the oracle knows.
pub fn world() -> Selma {
    let selma = Selma::new();
    selma.write("recipe.toml", RECIPE);
    copy_folder(Path::new(&tiny_sd()), &selma.path("model"));
    let config = selma.path("model/unet/config.json");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains("\"sample_size\": 8"));
    fs::write(
        config,
        text.replace("\"sample_size\": 8", "\"sample_size\": 32"),
    )
    .unwrap();
    selma
}

/// All files below a folder, with their bytes.
pub fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            found.insert(path, bytes);
        }
    }
    found
}

/// Sees that two folders have the same files with the same bytes, but for what a kill may leave in the second.
pub fn assert_same_files(whole: &Path, again: &Path) {
    let relative = |root: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let strip = |(path, bytes): (PathBuf, Vec<u8>)| {
            (path.strip_prefix(root).unwrap().to_owned(), bytes)
        };
        files(root).into_iter().map(strip).collect()
    };
    let (whole, again) = (relative(whole), relative(again));
    let only = |a: &BTreeMap<PathBuf, Vec<u8>>, b: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<PathBuf> {
        a.keys()
            .filter(|path| !b.contains_key(*path))
            .cloned()
            .collect()
    };
    let none: [PathBuf; 0] = [];
    assert_eq!(only(&whole, &again), none, "lost");
    // A kill in the moment between an adapter's last byte and the removal of what it was made from leaves that.
    let mut left = only(&again, &whole);
    left.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        !name.starts_with('.') && !path.iter().any(|part| part == "checkpoints")
    });
    assert_eq!(left, none, "left over");
    for (path, bytes) in &whole {
        assert!(again[path] == *bytes, "{} differs", path.display());
    }
}
