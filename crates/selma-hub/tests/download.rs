//! Downloads: what lies where, several at once, mirrors and disks.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread;

use common::{
    COMMIT, NEEDED, REPOSITORY, Twist, UNET, World, assert_whole, etag, files, honest, names,
    sha256,
};
use selma_http::loopback::Act;
use selma_hub::HubEvent;

#[test]
fn a_model_lies_where_huggingface_hub_would_put_it() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let (model, told) = world.fetch(cache.path(), REPOSITORY);
    let model = model.unwrap();
    let root = cache.path().join("models--owner--tiny-model");
    assert_eq!(model.path, root.join("snapshots").join(COMMIT));
    assert_eq!(model.commit, COMMIT);
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert_whole(&model.path);
    // Nothing else, and nothing half-written.
    let blobs: Vec<String> = names(&root.join("blobs"));
    let all = files();
    let mut expected: Vec<String> = NEEDED.iter().map(|name| etag(name, &all[*name])).collect();
    expected.sort();
    assert_eq!(blobs, expected);
    let bytes: usize = NEEDED.iter().map(|name| all[*name].len()).sum();
    let first = format!("files: 10, bytes: {bytes}, missing: ");
    assert!(told.len() == 1 && told[0].contains(&first), "{told:?}");

    // The second time, only the listing is asked for.
    let before = world.endpoint.seen().len() + world.cdn.seen().len();
    let (again, told) = world.fetch(cache.path(), REPOSITORY);
    assert_eq!(again.unwrap(), model);
    assert!(told[0].contains("missing: 0"), "{told:?}");
    assert_eq!(
        world.endpoint.seen().len() + world.cdn.seen().len(),
        before + 1
    );
}

#[test]
fn two_at_once_download_everything_once() {
    let (cache, world) = (tempfile::tempdir().unwrap(), Arc::new(World::new(files())));
    let path = cache.path().to_owned();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let (world, path) = (Arc::clone(&world), path.clone());
            thread::spawn(move || world.fetch(&path, REPOSITORY).0.unwrap())
        })
        .collect();
    for worker in workers {
        assert_whole(&worker.join().unwrap().path);
    }
    let mut counts = BTreeMap::new();
    for path in world.downloads() {
        *counts.entry(path).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn a_mirror_without_identities_is_asked_file_by_file() {
    let names: Vec<String> = files()
        .keys()
        .map(|name| format!(r#"{{"rfilename":"{name}"}}"#))
        .collect();
    let body = format!(r#"{{"sha":"{COMMIT}","siblings":[{}]}}"#, names.join(","));
    let plain: Twist = Box::new(move |request| {
        let listing = request.path().starts_with("/api/");
        listing.then(|| Act::answer("200 OK", "", body.as_bytes()))
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), plain, honest()),
    );
    let model = world.fetch(cache.path(), REPOSITORY).0.unwrap();
    assert_whole(&model.path);
    let blobs = names_of_blobs(cache.path());
    assert!(blobs.contains(&sha256(&files()[UNET])), "{blobs:?}");
    let heads = world
        .endpoint
        .seen()
        .iter()
        .filter(|seen| seen.method() == "HEAD")
        .count();
    assert!(heads >= NEEDED.len(), "{heads}");
    assert!(world.cdn.seen().iter().all(|seen| seen.method() == "GET"));
}

fn names_of_blobs(cache: &std::path::Path) -> Vec<String> {
    names(&cache.join("models--owner--tiny-model/blobs"))
}

#[test]
fn disks_that_refuse_are_named() {
    let cache = tempfile::tempdir().unwrap();
    let world = World::new(files());
    // A file where the folder of the blobs should be.
    let root = cache.path().join("models--owner--tiny-model");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("blobs"), "").unwrap();
    let error = world
        .fetch(cache.path(), REPOSITORY)
        .0
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot create the folder {}", root.display())),
        "{error}"
    );
    // A folder where a partial file should be.
    fs::remove_file(root.join("blobs")).unwrap();
    let partial = root
        .join("blobs")
        .join(format!("{}.incomplete", sha256(&files()[UNET])));
    fs::create_dir_all(&partial).unwrap();
    let error = world
        .fetch(cache.path(), REPOSITORY)
        .0
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot open {}", partial.display())),
        "{error}"
    );
}

#[test]
fn progress_counts_all_files_together() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let total: usize = NEEDED.iter().map(|name| files()[*name].len()).sum();
    let total = total as u64;
    let mut last = (0, 0);
    let id = REPOSITORY.parse().unwrap();
    let model = world.hub(cache.path()).fetch(&id, None, &mut |event| {
        if let HubEvent::Progress {
            done,
            total: all,
            received,
            ..
        } = event
        {
            assert!(done >= last.0 && received >= last.1 && all == total);
            last = (done, received);
        }
        ControlFlow::Continue(())
    });
    model.unwrap();
    // The index came before it was known what else there is.
    let index = files()["model_index.json"].len() as u64;
    assert_eq!(last, (total, total - index));
}
