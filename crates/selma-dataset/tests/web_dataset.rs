//! Reading tar archives, whole and torn.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use selma_dataset::{DatasetError, Layout, OpenOptions, Opened, Problem, open_any};
use tar::{Builder, EntryType, Header};

fn picture(value: u8, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    RgbImage::from_pixel(3, 2, Rgb([value; 3]))
        .write_to(&mut bytes, format)
        .unwrap();
    bytes.into_inner()
}

fn png(value: u8) -> Vec<u8> {
    picture(value, ImageFormat::Png)
}

/// Adds a member, whose name may be one that the library would refuse to write.
fn add(archive: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, content: &[u8]) {
    let mut header = Header::new_gnu();
    for (byte, letter) in header.as_old_mut().name.iter_mut().zip(name.bytes()) {
        *byte = letter;
    }
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_cksum();
    archive.append(&header, content).unwrap();
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, content) in members {
        add(&mut archive, name, EntryType::Regular, content);
    }
    archive.into_inner().unwrap()
}

fn open(path: &Path, skip_unusable: bool) -> Result<Opened, DatasetError> {
    let options = OpenOptions {
        caption: None,
        skip_unusable,
    };
    open_any(path, &options)
}

fn rows(opened: &Opened) -> Vec<(String, String)> {
    let pictures = &opened.pictures;
    (0..pictures.len())
        .map(|index| {
            let name = pictures.name(index).unwrap();
            (name.to_owned(), pictures.text(index).unwrap().to_owned())
        })
        .collect()
}

fn pair(name: &str, text: &str) -> (String, String) {
    (name.to_owned(), text.to_owned())
}

#[test]
fn shards_are_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{}/0002", "deep".repeat(40));
    let mut second = Builder::new(Vec::new());
    // As `tar` makes them of a folder: with `./`, folders, and members of a sample apart.
    add(&mut second, "./", EntryType::Directory, b"");
    add(&mut second, "./0001.txt", EntryType::Regular, b"two\n");
    add(&mut second, "._0001.jpg", EntryType::Regular, b"a Mac's");
    add(&mut second, "__meta__", EntryType::Regular, b"");
    add(&mut second, "0003.cls", EntryType::Regular, b"7");
    add(&mut second, "./0001.PNG", EntryType::Regular, &png(2));
    add(&mut second, "0001.seg.png", EntryType::Regular, b"a mask");
    let mut header = Header::new_gnu();
    for (ending, content) in [
        ("json", b"{\"caption\":\"three\",\"text\":null}".to_vec()),
        ("webp", picture(3, ImageFormat::WebP)),
    ] {
        header.set_size(content.len() as u64);
        let name = format!("{long}.{ending}");
        second
            .append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    fs::write(dir.path().join("b.tar"), second.into_inner().unwrap()).unwrap();
    let first = archive(&[
        ("0001.json", b"{\"text\":\"ignored\"}"),
        ("0001.jpeg", &picture(1, ImageFormat::Jpeg)),
        ("0001.txt", b"one"),
    ]);
    fs::write(dir.path().join("a.tar"), &first).unwrap();

    let opened = open(dir.path(), false).unwrap();
    assert_eq!(opened.layout, Layout::WebDataset);
    let third = format!("b.tar/{long}.webp");
    assert_eq!(
        rows(&opened),
        [
            pair("a.tar/0001.jpeg", "one"),
            pair("b.tar/0001.PNG", "two"),
            pair(&third, "three")
        ]
    );
    for (index, value) in [1, 2, 3].into_iter().enumerate() {
        let image = opened.pictures.image(index).unwrap();
        assert_eq!(
            (image.dimensions(), image.get_pixel(0, 0).0),
            ((3, 2), [value; 3])
        );
    }
    assert_eq!(opened.pictures.bytes(1).unwrap(), png(2));
    let error = opened.pictures.image(3).unwrap_err();
    assert!(matches!(error, DatasetError::Index { .. }), "{error}");

    // One archive alone, whatever its name is.
    fs::rename(dir.path().join("a.tar"), dir.path().join("a.bin")).unwrap();
    let opened = open(&dir.path().join("a.bin"), false).unwrap();
    assert_eq!(rows(&opened), [pair("a.bin/0001.jpeg", "one")]);
    assert_eq!(opened.pictures.image(0).unwrap().width(), 3);
}

#[test]
fn captions_may_be_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let members: [(&str, &[u8]); 5] = [
        ("1.png", &png(1)),
        ("1.txt", b"alt text"),
        ("1.blip", b"a better caption"),
        ("2.png", &png(2)),
        (
            "2.json",
            b"{\"text\":\"alt text\",\"blip\":\"better, too\"}",
        ),
    ];
    fs::write(&path, archive(&members)).unwrap();
    let options = OpenOptions {
        caption: Some("blip".into()),
        ..OpenOptions::default()
    };
    let opened = open_any(&path, &options).unwrap();
    assert_eq!(
        rows(&opened),
        [
            pair("a.tar/1.png", "a better caption"),
            pair("a.tar/2.png", "better, too")
        ]
    );
    let error = open_any(
        &path,
        &OpenOptions {
            caption: Some(".BLIP".into()),
            ..options
        },
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.ends_with(
            "2.json: no caption: expected a caption as `.BLIP`, found `text` and `blip`"
        ),
        "{error}"
    );
}

#[test]
fn what_is_wrong_with_members_is_named_or_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let png = png(1);
    type Members<'a> = &'a [(&'a str, &'a [u8])];
    let cases: [(Members<'_>, &str); 13] = [
        (
            &[("b.png", &png)],
            "A/b.png: no caption: expected a caption .txt or .json of the same key, found none",
        ),
        (
            &[("x/b.txt", b"B")],
            "A/x/b.txt: no picture: expected a picture .jpg, .jpeg, .png or .webp of the same key, found none",
        ),
        (
            &[("b.png", &png), ("b.txt", b" ")],
            "A/b.txt: empty caption: expected some text, found none",
        ),
        (
            &[("b.png", &png), ("b.txt", b"\xff")],
            "A/b.txt: bad caption: expected UTF-8, found other bytes after 0",
        ),
        (
            &[("b.png", &png), ("b.json", b"{")],
            "A/b.json: bad caption: expected a JSON object, found EOF while parsing an object at line 1 column 1",
        ),
        (
            &[("b.png", &png), ("b.json", b"{\"url\":\"u\"}")],
            "A/b.json: no caption: expected a caption as `text` or `caption`, found `url`",
        ),
        (
            &[("b.png", &png), ("b.json", b"{\"text\":1}")],
            "A/b.json: bad caption: expected a string as `text`, found 1",
        ),
        (
            &[("b.png", b"<html>"), ("b.txt", b"B")],
            "A/b.png: bad picture: expected PNG, JPEG or WebP, found something else",
        ),
        (
            &[("b.png", b""), ("b.txt", b"B")],
            "A/b.png: bad picture: expected PNG, JPEG or WebP, found an empty file",
        ),
        (
            &[("b.png", &png), ("b.jpg", &png), ("b.txt", b"B")],
            "A/b.jpg: twice: expected one picture, one text and one JSON a key, found a second one",
        ),
        (
            &[("b.png", &png), ("b.txt", b"B"), ("b.txt", b"C")],
            "A/b.txt: twice: expected one picture, one text and one JSON a key, found a second one",
        ),
        (
            &[("../b.png", &png)],
            "A/../b.png: bad name: expected a plain relative path, found `../b.png`",
        ),
        (
            &[("/b.png", &png)],
            "A/b.png: bad name: expected a plain relative path, found `/b.png`",
        ),
    ];
    for (members, expected) in cases {
        let mut all: Vec<(&str, &[u8])> = vec![("a.png", &png), ("a.txt", b"A")];
        all.extend(members);
        fs::write(&path, archive(&all)).unwrap();
        let shown = |error: &DatasetError| error.to_string().replace(&*path.to_string_lossy(), "A");
        assert_eq!(shown(&open(&path, false).unwrap_err()), expected);
        let opened = open(&path, true).unwrap();
        assert_eq!(rows(&opened), [pair("a.tar/a.png", "A")]);
        let skipped: Vec<String> = opened.skipped.iter().map(shown).collect();
        assert_eq!(skipped, [expected]);
    }

    let mut links = Builder::new(Vec::new());
    add(&mut links, "a.png", EntryType::Symlink, b"");
    fs::write(&path, links.into_inner().unwrap()).unwrap();
    let error = open(&path, false).unwrap_err().to_string();
    assert!(
        error.ends_with("a.png: bad name: expected a file or a folder, found Symlink"),
        "{error}"
    );
}

#[test]
fn an_archive_cut_anywhere_is_refused_and_its_whole_samples_can_be_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let long = "l".repeat(150);
    let mut builder = Builder::new(Vec::new());
    for name in ["1", "2", long.as_str()] {
        for (ending, content) in [("png", png(1)), ("txt", b"text".to_vec())] {
            let mut header = Header::new_ustar();
            header.set_size(content.len() as u64);
            let mut header = if name == long {
                Header::new_gnu()
            } else {
                header
            };
            header.set_size(content.len() as u64);
            builder
                .append_data(&mut header, format!("{name}.{ending}"), content.as_slice())
                .unwrap();
        }
    }
    let whole = builder.into_inner().unwrap();
    fs::write(&path, &whole).unwrap();
    assert_eq!(open(&path, false).unwrap().pictures.len(), 3);
    let content = whole.len() - 1024;
    let mut seen = [false; 4];
    for cut in (0..content + 512)
        .step_by(67)
        .chain((0..=content).step_by(512))
    {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = open(&path, false).unwrap_err();
        let opened = open(&path, true).unwrap();
        // One half of a sample may be there, and is left out before the damage is told or after.
        assert!(!opened.skipped.is_empty(), "{cut}");
        let torn = |error: &DatasetError| matches!(error, DatasetError::Entry { problem: Problem::Torn, path: at, .. } if *at == path);
        assert!(torn(&error), "{cut}: {error}");
        assert!(opened.skipped.iter().any(torn), "{cut}");
        for index in 0..opened.pictures.len() {
            assert_eq!(opened.pictures.text(index), Some("text"));
            assert_eq!(opened.pictures.image(index).unwrap().width(), 3);
        }
        seen[opened.pictures.len()] = true;
    }
    assert_eq!(seen, [true; 4]);
    // One block of zeros is an end mark, if not the usual one.
    fs::write(&path, &whole[..content + 512]).unwrap();
    assert_eq!(open(&path, false).unwrap().pictures.len(), 3);
}

#[test]
fn damage_within_an_archive_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let whole = archive(&[("1.png", &png(1)), ("1.txt", b"one")]);
    let found = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match open(&path, false).unwrap_err() {
            DatasetError::Entry {
                problem: Problem::Torn,
                found,
                ..
            } => found,
            other => panic!("{other}"),
        }
    };
    let second_header = 1024;
    let mut flipped = whole.clone();
    flipped[second_header + 3] ^= 1;
    assert_eq!(
        found(&flipped),
        "none after `1.png`: archive header checksum mismatch"
    );
    assert_eq!(
        found(b"no archive"),
        "none after its beginning: failed to read entire block"
    );
    assert_eq!(found(b""), "no end mark after its beginning");
    assert_eq!(found(&whole[..1536]), "0 of the 3 bytes of `1.txt`");
    assert_eq!(found(&whole[..2048]), "no end mark after `1.txt`");
    // Two archives, one behind the other: readers stop at the first end, and what follows would be lost.
    assert_eq!(
        found(&[whole.as_slice(), &whole].concat()),
        "more after the end mark behind `1.txt`"
    );
    // Any byte of a header may be wrong: an error or another dataset, never a panic.
    for at in (0..512).chain(1024..1536) {
        let mut damaged = whole.clone();
        damaged[at] = damaged[at].wrapping_add(1);
        fs::write(&path, damaged).unwrap();
        assert!(open(&path, false).is_err(), "{at}");
        open(&path, true).unwrap();
    }
}

#[test]
fn an_archive_that_shrinks_later_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    let whole = archive(&[("1.png", &png(1)), ("1.txt", b"one")]);
    fs::write(&path, &whole).unwrap();
    let opened = open(&path, false).unwrap();
    fs::write(&path, &whole[..530]).unwrap();
    let error = opened.pictures.image(0).unwrap_err().to_string();
    assert!(
        error.contains("a.tar/1.png: torn archive: expected "),
        "{error}"
    );
    fs::remove_file(&path).unwrap();
    let error = opened.pictures.image(0).unwrap_err().to_string();
    assert!(error.starts_with("cannot open "), "{error}");
}

#[test]
fn what_python_writes_is_read_as_by_hugging_face() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let expected = fs::read(fixtures.join("webdataset.json")).unwrap();
    let expected: Vec<serde_json::Value> = serde_json::from_slice(&expected).unwrap();
    let opened = open(&fixtures.join("webdataset.tar"), false).unwrap();
    assert_eq!(opened.pictures.len(), expected.len());
    for (index, sample) in expected.iter().enumerate() {
        let name = format!("webdataset.tar/{}.png", sample["key"].as_str().unwrap());
        assert_eq!(opened.pictures.name(index), Some(name.as_str()));
        assert_eq!(opened.pictures.text(index), sample["text"].as_str());
        let grey = opened.pictures.image(index).unwrap().get_pixel(0, 0).0[0];
        assert_eq!(Some(u64::from(grey)), sample["grey"].as_u64());
    }
}
