//! Offline, single files, revisions, and models that are not what they seem.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::fs;
use std::ops::ControlFlow;

use common::{COMMIT, REPOSITORY, Twist, World, files, honest};
use selma_http::loopback::Act;
use selma_hub::{Hub, HubConfig, HubError, Model};

fn offline(cache: &std::path::Path, id: &str, variant: Option<&str>) -> Result<Model, HubError> {
    let mut config = HubConfig::new(cache);
    config.endpoint = "http://127.0.0.1:1".to_owned();
    config.offline = true;
    let never = &mut |event: selma_hub::HubEvent<'_>| panic!("{event:?}");
    Hub::new(config)
        .unwrap()
        .fetch(&id.parse().unwrap(), variant, never)
}

#[test]
fn offline_with_and_without_the_model() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let error = offline(cache.path(), REPOSITORY, None)
        .unwrap_err()
        .to_string();
    let expected = format!(
        "{REPOSITORY} is not in the cache {}: the revision \"main\" is missing, and nothing is downloaded offline",
        cache.path().display()
    );
    assert_eq!(error, expected);
    let model = world.fetch(cache.path(), REPOSITORY).0.unwrap();
    assert_eq!(offline(cache.path(), REPOSITORY, None).unwrap(), model);
    let by_commit = format!("{REPOSITORY}@{COMMIT}");
    assert_eq!(offline(cache.path(), &by_commit, None).unwrap(), model);

    for (id, variant, missing) in [
        (
            format!("{REPOSITORY}@other"),
            None,
            "the revision \"other\"",
        ),
        (format!("{REPOSITORY}:x.safetensors"), None, "x.safetensors"),
        (
            REPOSITORY.to_owned(),
            Some("fp16"),
            "weights of the variant \"fp16\" of no part",
        ),
    ] {
        let error = offline(cache.path(), &id, variant).unwrap_err().to_string();
        assert!(
            error.contains(missing) && error.contains("is missing"),
            "{error}"
        );
    }
    // A blob that somebody has deleted.
    let weights = model.path.join("unet/diffusion_pytorch_model.safetensors");
    fs::remove_file(fs::canonicalize(&weights).unwrap()).unwrap();
    let error = offline(cache.path(), REPOSITORY, None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("diffusion_pytorch_model.safetensors"),
        "{error}"
    );
    // Online, it is brought back.
    world.fetch(cache.path(), REPOSITORY).0.unwrap();
    assert!(offline(cache.path(), REPOSITORY, None).is_ok());
}

#[test]
fn an_older_copy_is_better_than_nothing() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let model = world.fetch(cache.path(), REPOSITORY).0.unwrap();
    for down in [Act::Hang, Act::answer("502 Bad Gateway", "", b"")] {
        let twist: Twist = Box::new(move |_| Some(down.clone()));
        let world = World::twisted(files(), twist, honest());
        let (found, told) = world.fetch(cache.path(), REPOSITORY);
        assert_eq!(found.unwrap(), model);
        assert!(told.last().unwrap().starts_with("Unreachable"), "{told:?}");
        // What is not there is an error as before.
        let error = world.fetch(cache.path(), "owner/other").0.unwrap_err();
        assert!(error.is_unreachable(), "{error}");
    }
    // A model that is no longer open to us is not used behind its owner's back.
    let closed: Twist = Box::new(|_| Some(Act::answer("401 Unauthorized", "", b"")));
    let world = World::twisted(files(), closed, honest());
    assert!(matches!(
        world.fetch(cache.path(), REPOSITORY).0,
        Err(HubError::Denied { .. })
    ));
}

#[test]
fn a_commit_that_is_there_is_not_asked_for() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let id = format!("{REPOSITORY}@{COMMIT}");
    let model = world.fetch(cache.path(), &id).0.unwrap();
    let before = world.endpoint.seen().len();
    assert_eq!(world.fetch(cache.path(), &id).0.unwrap(), model);
    assert_eq!(world.endpoint.seen().len(), before);
    let refs = cache.path().join("models--owner--tiny-model/refs");
    assert!(!refs.exists(), "a commit is no branch");
}

#[test]
fn one_file_of_a_repository() {
    let mut all = files();
    all.insert("sub/one file.ckpt".to_owned(), vec![7; 1000]);
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(all));
    // Its server decodes no names, so this one does.
    let error = world
        .fetch(cache.path(), &format!("{REPOSITORY}:sub/one file.ckpt"))
        .0
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("/sub/one%20file.ckpt does not exist"),
        "{error}"
    );

    let id = format!("{REPOSITORY}:unet/diffusion_pytorch_model.bin");
    let model = world.fetch(cache.path(), &id).0.unwrap();
    assert!(model.path.ends_with(format!(
        "snapshots/{COMMIT}/unet/diffusion_pytorch_model.bin"
    )));
    assert_eq!(
        fs::read(&model.path).unwrap(),
        files()["unet/diffusion_pytorch_model.bin"]
    );
    assert_eq!(world.downloads().len(), 1);
    assert_eq!(offline(cache.path(), &id, None).unwrap(), model);

    let error = world
        .fetch(cache.path(), &format!("{REPOSITORY}:unet.safetensors"))
        .0
        .unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("owner/tiny-model has no file \"unet.safetensors\"; its weight files are safety_checker/"), "{text}");
}

#[test]
fn repositories_that_are_no_folder_of_diffusers() {
    let single = [
        ("README.md".to_owned(), vec![]),
        ("model.safetensors".to_owned(), vec![1]),
    ];
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(single.into()));
    let error = world
        .fetch(cache.path(), REPOSITORY)
        .0
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "owner/tiny-model has no model_index.json; its weight files are model.safetensors, and owner/tiny-model:FILE names one"
    );

    let mut broken = files();
    broken.insert("model_index.json".to_owned(), b"{".to_vec());
    let cache = tempfile::tempdir().unwrap();
    let error = World::new(broken)
        .fetch(cache.path(), REPOSITORY)
        .0
        .unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("model_index.json cannot be understood"),
        "{error}"
    );
}

#[test]
fn weights_in_parts_and_variants() {
    let mut all = files();
    let unet = all
        .remove("unet/diffusion_pytorch_model.safetensors")
        .unwrap();
    let (first, second) = unet.split_at(70_000);
    let part = |i| format!("diffusion_pytorch_model-0000{i}-of-00002.safetensors");
    all.insert(format!("unet/{}", part(1)), first.to_vec());
    all.insert(format!("unet/{}", part(2)), second.to_vec());
    let index = format!(
        r#"{{"weight_map":{{"a":"{}","b":"{}"}}}}"#,
        part(1),
        part(2)
    );
    // No large file: it is called `.index.json`.
    all.insert(
        "unet/diffusion_pytorch_model.safetensors.index.json".to_owned(),
        index.into_bytes(),
    );
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(all.clone()));
    let model = world.fetch(cache.path(), REPOSITORY).0.unwrap();
    assert_eq!(
        fs::read(model.path.join("unet").join(part(2))).unwrap(),
        second
    );
    assert_eq!(offline(cache.path(), REPOSITORY, None).unwrap(), model);

    let id = REPOSITORY.parse().unwrap();
    let go_on = &mut |_: selma_hub::HubEvent<'_>| ControlFlow::Continue(());
    let half = world
        .hub(cache.path())
        .fetch(&id, Some("fp16"), go_on)
        .unwrap();
    assert!(
        half.path
            .join("unet/diffusion_pytorch_model.fp16.safetensors")
            .is_file()
    );
    assert_eq!(
        offline(cache.path(), REPOSITORY, Some("fp16")).unwrap(),
        half
    );

    // A part that the repository does not have.
    all.remove(&format!("unet/{}", part(2)));
    let cache = tempfile::tempdir().unwrap();
    let error = World::new(all)
        .fetch(cache.path(), REPOSITORY)
        .0
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("unet has no unet/{}", part(2))),
        "{error}"
    );
}

#[test]
fn a_cache_without_links_is_used_as_it_is() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let model = world.fetch(cache.path(), REPOSITORY).0.unwrap();
    let downloads = world.downloads().len();
    // As Python leaves it where links are not to be had: files in the folder of the commit, and no blobs.
    for name in common::NEEDED {
        let path = model.path.join(name);
        let content = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
    }
    fs::remove_dir_all(cache.path().join("models--owner--tiny-model/blobs")).unwrap();
    assert_eq!(world.fetch(cache.path(), REPOSITORY).0.unwrap(), model);
    assert_eq!(offline(cache.path(), REPOSITORY, None).unwrap(), model);
    assert_eq!(world.downloads().len(), downloads);
}
