//! Who sees the token, what errors say, and which of them are final.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking, as tests do"
)]

mod common;

use std::time::{Duration, Instant};

use common::{REPOSITORY, TOKEN, Twist, UNET, World, assert_whole, at_unet, files, honest};
use selma_http::loopback::Act;
use selma_hub::HubError;

#[test]
fn the_token_stays_with_the_endpoint() {
    let (cache, world) = (tempfile::tempdir().unwrap(), World::new(files()));
    let (model, told) = world.fetch(cache.path(), REPOSITORY);
    model.unwrap();
    let endpoint = world.endpoint.seen();
    assert!(endpoint.len() > 10);
    for seen in &endpoint {
        let expected = format!("Bearer {TOKEN}");
        assert_eq!(
            seen.header("authorization"),
            Some(expected.as_str()),
            "{}",
            seen.path()
        );
    }
    let elsewhere = world.cdn.seen();
    assert_eq!(elsewhere.len(), 3);
    for seen in &elsewhere {
        assert!(!seen.head.contains(TOKEN), "{}", seen.head);
        assert!(
            seen.path().ends_with("?Signature=s3cret"),
            "{}",
            seen.path()
        );
    }
    assert!(!told.join("\n").contains(TOKEN));
    assert!(!format!("{:?}", world.hub(cache.path())).contains(TOKEN));
}

#[test]
fn nothing_that_is_shown_holds_the_token_or_a_signature() {
    let echo = format!(r#"{{"error":"no access for {TOKEN}"}}"#);
    let answers: [(&str, &str); 6] = [
        ("401 Unauthorized", ""),
        ("403 Forbidden", "X-Error-Code: GatedRepo\r\n"),
        ("404 Not Found", ""),
        ("500 Internal Server Error", ""),
        ("302 Found", "Location: ftp://cdn/x?Signature=s3cret\r\n"),
        ("418 I'm a teapot", ""),
    ];
    for (status, headers) in answers {
        for twist_endpoint in [true, false] {
            let body = echo.clone();
            let act = move || Act::answer(status, headers, body.as_bytes());
            let twist: Twist = at_unet(usize::MAX, move |_| act());
            let world = match twist_endpoint {
                true => World::twisted(files(), twist, honest()),
                false => World::twisted(files(), honest(), twist),
            };
            let cache = tempfile::tempdir().unwrap();
            let (model, told) = world.fetch(cache.path(), REPOSITORY);
            let error = model.unwrap_err();
            let mut shown = format!("{error} {error:?} {told:?}");
            let mut cause = std::error::Error::source(&error);
            while let Some(source) = cause {
                shown += &format!("{source} {source:?}");
                cause = source.source();
            }
            assert!(!shown.contains("hf_very"), "{shown}");
            assert!(!shown.contains("s3cret"), "{shown}");
        }
    }
}

#[test]
fn refusals_say_what_they_are_and_are_final() {
    let gated = "X-Error-Code: GatedRepo\r\nX-Error-Message: Access to model is restricted.\r\n";
    type Check = fn(&HubError) -> bool;
    let cases: [(&str, &str, &str, Check); 4] = [
        (
            "401 Unauthorized",
            "",
            r#"{"error":"Invalid username or password."}"#,
            |error| matches!(error, HubError::Denied { status: 401, message, .. } if message == "Invalid username or password."),
        ),
        (
            "403 Forbidden",
            gated,
            "",
            |error| matches!(error, HubError::Gated { status: 403, message, .. } if message == "Access to model is restricted."),
        ),
        (
            "404 Not Found",
            "X-Error-Code: RevisionNotFound\r\n",
            "Invalid rev id: x",
            |error| matches!(error, HubError::NotFound { message, .. } if message == "Invalid rev id: x"),
        ),
        ("200 OK", "", r#"{"sha":"main"}"#, |error| {
            matches!(error, HubError::Answer { .. })
        }),
    ];
    for (status, headers, body, check) in cases {
        let refuse: Twist = Box::new(move |_| Some(Act::answer(status, headers, body.as_bytes())));
        let (cache, world) = (
            tempfile::tempdir().unwrap(),
            World::twisted(files(), refuse, honest()),
        );
        let (model, _) = world.fetch(cache.path(), REPOSITORY);
        let error = model.unwrap_err();
        assert!(check(&error), "{error:?}");
        assert!(
            error
                .to_string()
                .contains(&format!("/api/models/{REPOSITORY}/revision/main"))
        );
        assert_eq!(world.endpoint.seen().len(), 1, "{status}");
    }
}

#[test]
fn passing_failures_are_tried_again() {
    for act in [
        Act::answer("429 Too Many Requests", "Retry-After: 0\r\n", b""),
        Act::answer("503 Service Unavailable", "", b"down"),
        Act::Hang,
        Act::Send(b"what?\r\n\r\n".to_vec()),
        // Closed without a word on the length, and too early.
        Act::Send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab".to_vec()),
    ] {
        for twist_endpoint in [true, false] {
            let act = act.clone();
            let twist = at_unet(2, move |_| act.clone());
            let world = match twist_endpoint {
                true => World::twisted(files(), twist, honest()),
                false => World::twisted(files(), honest(), twist),
            };
            let cache = tempfile::tempdir().unwrap();
            let (model, told) = world.fetch(cache.path(), REPOSITORY);
            assert_whole(&model.unwrap().path);
            assert!(
                told.iter().any(|event| event.starts_with("Retry")),
                "{told:?}"
            );
        }
    }
    // A signature that has run out: the endpoint gives a fresh address.
    let expired = at_unet(1, |_| Act::answer("403 Forbidden", "", b"expired"));
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), expired),
    );
    assert_whole(&world.fetch(cache.path(), REPOSITORY).0.unwrap().path);
}

#[test]
fn patience_ends_without_progress_alone() {
    let never = at_unet(usize::MAX, |_| {
        Act::answer("503 Service Unavailable", "", b"down")
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), honest(), never),
    );
    let (model, told) = world.fetch(cache.path(), REPOSITORY);
    assert!(
        matches!(
            model,
            Err(HubError::Status {
                status: 503,
                attempts: 3,
                ..
            })
        ),
        "{model:?}"
    );
    assert_eq!(
        told.iter()
            .filter(|event| event.starts_with("Retry"))
            .count(),
        2
    );

    // Twenty torn answers, of which each brings something.
    let whole = files()[UNET].clone();
    let slow = at_unet(20, move |request| {
        let Act::Send(bytes) = common::content(request, &whole) else {
            unreachable!()
        };
        Act::Send(bytes[..bytes.len().min(4096)].to_vec())
    });
    let world = World::twisted(files(), honest(), slow);
    assert_whole(&world.fetch(cache.path(), REPOSITORY).0.unwrap().path);
}

#[test]
fn retry_after_is_waited_for() {
    let busy = at_unet(1, |_| {
        Act::answer("429 Too Many Requests", "Retry-After: 0.3\r\n", b"")
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), busy, honest()),
    );
    let start = Instant::now();
    world.fetch(cache.path(), REPOSITORY).0.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
}

#[test]
fn redirects_within_the_endpoint_keep_the_token() {
    // A model that has moved.
    let moved: Twist = Box::new(|request| {
        let rest = request.path().strip_prefix("/api/models/old/name/")?;
        let location = format!("Location: /api/models/{REPOSITORY}/{rest}\r\n");
        Some(Act::answer("307 Temporary Redirect", &location, b""))
    });
    let (cache, world) = (
        tempfile::tempdir().unwrap(),
        World::twisted(files(), moved, honest()),
    );
    let error = world.fetch(cache.path(), "old/name").0.unwrap_err();
    // The listing came; the files of this test's server have not moved.
    assert!(error.to_string().contains("/old/name/resolve/"), "{error}");
    let seen = world.endpoint.seen();
    assert!(seen[1].path().contains(REPOSITORY) && seen[1].header("authorization").is_some());

    let circle: Twist = Box::new(|request| {
        let location = format!("Location: {}\r\n", request.path());
        Some(Act::answer("302 Found", &location, b""))
    });
    let world = World::twisted(files(), circle, honest());
    let error = world.fetch(cache.path(), REPOSITORY).0.unwrap_err();
    assert!(
        error.to_string().ends_with("after too many redirects"),
        "{error}"
    );
}
