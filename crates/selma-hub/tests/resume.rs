//! Downloads that break, and servers that send something else.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use common::{
    COMMIT, REPOSITORY, UNET, World, assert_whole, at_unet, etag, files, honest, names, sha256,
};
use selma_http::loopback::Act;
use selma_hub::{HubError, HubEvent};

#[test]
fn a_torn_body_is_continued() {
    let whole = files()[UNET].clone();
    let torn = at_unet(2, move |request| {
        // A third of what was asked for, under the length of all of it; the connection then closes.
        let Act::Send(bytes) = common::content(request, &whole) else {
            unreachable!()
        };
        Act::Send(bytes[..bytes.len() / 3].to_vec())
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), torn),
    );
    let (model, told) = world.fetch(cache.path(), REPOSITORY);
    assert_whole(&model.unwrap().path);
    let retries = told
        .iter()
        .filter(|event| event.starts_with("Retry"))
        .count();
    assert_eq!(retries, 2, "{told:?}");
    let ranges: Vec<usize> = world
        .cdn
        .seen()
        .iter()
        .filter(|seen| seen.path().contains(UNET))
        .filter_map(|seen| {
            seen.header("range")?
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse()
                .ok()
        })
        .collect();
    assert!(
        ranges.len() == 2 && ranges[0] > 60_000 && ranges[1] > ranges[0],
        "{ranges:?}"
    );
}

#[test]
fn an_earlier_download_is_continued_and_a_damaged_one_repeated() {
    let all = files();
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(all.clone()));
    let blobs = cache.path().join("models--owner--tiny-model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = |name: &str| blobs.join(format!("{}.incomplete", etag(name, &all[name])));
    let (text, vae) = (
        "text_encoder/model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    );
    fs::write(partial(text), &all[text][..150_000]).unwrap();
    fs::write(partial(UNET), vec![0; 150_000]).unwrap();
    fs::write(partial(vae), vec![0; 250_000]).unwrap();
    let (model, _) = world.fetch(cache.path(), REPOSITORY);
    assert_whole(&model.unwrap().path);
    let asked = |name: &str| -> Vec<Option<String>> {
        let seen = world
            .cdn
            .seen()
            .into_iter()
            .filter(|seen| seen.path().contains(name));
        seen.map(|seen| seen.header("range").map(str::to_owned))
            .collect()
    };
    let rest = Some("bytes=150000-".to_owned());
    assert_eq!(asked(text), std::slice::from_ref(&rest));
    assert_eq!(asked(UNET), [rest, None], "the sum was wrong");
    assert_eq!(asked(vae), [None], "it was longer than the file");
}

#[test]
fn a_server_that_ignores_ranges_is_read_from_the_start() {
    let all = files();
    let whole = all[UNET].clone();
    let ignorant = at_unet(usize::MAX, move |_| Act::answer("200 OK", "", &whole));
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), ignorant),
    );
    let blobs = cache.path().join("models--owner--tiny-model/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let partial = blobs.join(format!("{}.incomplete", sha256(&all[UNET])));
    fs::write(partial, &all[UNET][..150_000]).unwrap();
    let (model, _) = world.fetch(cache.path(), REPOSITORY);
    assert_whole(&model.unwrap().path);
    assert_eq!(
        world
            .downloads()
            .iter()
            .filter(|path| path.contains(UNET))
            .count(),
        1
    );
}

#[test]
fn odd_answers_to_ranges() {
    let all = files();
    for act in [
        Act::answer(
            "416 Range Not Satisfiable",
            "Content-Range: bytes */5\r\n",
            b"",
        ),
        Act::answer(
            "206 Partial Content",
            "Content-Range: bytes 7-9/10\r\n",
            b"abc",
        ),
        Act::answer("206 Partial Content", "Content-Range: pieces\r\n", b"abc"),
    ] {
        let odd = at_unet(1, move |_| act.clone());
        let (cache, world) = (
            tempfile::tempdir().unwrap(),
            World::twisted(files(), honest(), odd),
        );
        let blobs = cache.path().join("models--owner--tiny-model/blobs");
        fs::create_dir_all(&blobs).unwrap();
        let partial = blobs.join(format!("{}.incomplete", sha256(&all[UNET])));
        fs::write(partial, &all[UNET][..150_000]).unwrap();
        let (model, _) = world.fetch(cache.path(), REPOSITORY);
        assert_whole(&model.unwrap().path);
    }
}

#[test]
fn what_is_not_what_the_server_says_is_refused() {
    let mut damaged = files()[UNET].clone();
    damaged[1000] ^= 1;
    let found = sha256(&damaged);
    let lying = at_unet(usize::MAX, move |_| Act::answer("200 OK", "", &damaged));
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), lying),
    );
    let (model, _) = world.fetch(cache.path(), REPOSITORY);
    let error = model.unwrap_err();
    let expected = sha256(&files()[UNET]);
    assert_eq!(
        error.to_string(),
        format!(
            "{}/{REPOSITORY}/resolve/{COMMIT}/{UNET}: expected SHA-256 {expected}, found {found}; the damaged download was removed",
            world.endpoint.url()
        )
    );
    assert_eq!(
        world
            .downloads()
            .iter()
            .filter(|path| path.contains(UNET))
            .count(),
        2
    );
    let root = cache.path().join("models--owner--tiny-model");
    assert!(
        !names(&root.join("blobs"))
            .iter()
            .any(|name| name.starts_with(&expected))
    );
    assert!(!root.join("refs").exists(), "the model is not whole");

    let mut longer = files()[UNET].clone();
    longer.push(0);
    let lying = at_unet(usize::MAX, move |_| Act::answer("200 OK", "", &longer));
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), lying),
    );
    let (model, _) = world.fetch(cache.path(), REPOSITORY);
    assert!(
        matches!(
            model,
            Err(HubError::Size {
                expected: 200_000,
                ..
            })
        ),
        "{model:?}"
    );
}

#[test]
fn slow_is_not_silent() {
    let whole = files()[UNET].clone();
    let drip = at_unet(usize::MAX, move |request| {
        let Act::Send(bytes) = common::content(request, &whole) else {
            unreachable!()
        };
        // Longer in all than a silence may be.
        Act::Drip(bytes, 8_000, Duration::from_millis(100))
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), drip),
    );
    let mut config = world.config(cache.path());
    config.stall_timeout_s = 2.0;
    let hub = selma_hub::Hub::new(config).unwrap();
    let mut steps = 0;
    let start = Instant::now();
    let model = hub.fetch(&REPOSITORY.parse().unwrap(), None, &mut |event| {
        match event {
            HubEvent::Progress {
                file, done, total, ..
            } => {
                steps += usize::from(file == UNET);
                assert!(done <= total);
            }
            HubEvent::Retry { reason, .. } => panic!("{reason}"),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    assert_whole(&model.unwrap().path);
    assert!(steps >= 2, "{steps}");
    assert!(start.elapsed() > Duration::from_secs(2));

    let silent = at_unet(1, |_| {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\nabc".to_vec();
        Act::Stall(head, Duration::from_secs(5))
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), silent),
    );
    let mut config = world.config(cache.path());
    config.stall_timeout_s = 0.2;
    let start = Instant::now();
    let hub = selma_hub::Hub::new(config).unwrap();
    // "abc" is no beginning of the file: the sum is wrong, and it is loaded again.
    let model = hub.fetch(&REPOSITORY.parse().unwrap(), None, &mut |_| {
        ControlFlow::Continue(())
    });
    assert_whole(&model.unwrap().path);
    assert!(start.elapsed() < Duration::from_secs(4));
}

#[test]
fn an_observer_stops_and_the_next_time_goes_on() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let id = REPOSITORY.parse().unwrap();
    let stopped = world
        .hub(cache.path())
        .fetch(&id, None, &mut |event| match event {
            HubEvent::Progress { file, .. } if file == UNET => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
    assert!(matches!(stopped, Err(HubError::Cancelled)));
    assert_whole(&world.fetch(cache.path(), REPOSITORY).0.unwrap().path);
    let seen = world.cdn.seen();
    let last = seen
        .iter()
        .rfind(|seen| seen.path().contains(UNET))
        .unwrap();
    let from = last
        .header("range")
        .unwrap()
        .strip_prefix("bytes=")
        .unwrap();
    assert!(from.strip_suffix('-').unwrap().parse::<u64>().unwrap() > 0);
}
