//! Opening folders of other programs, and saying what is wrong with them.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use selma_dataset::{
    DatasetError, DatasetWriter, Layout, OpenOptions, Opened, Pictures, Problem, Provenance,
    open_any,
};

/// Writes a picture whose colour is `value`.
fn picture(root: &Path, name: &str, value: u8) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(3, 2, Rgb([value; 3]))
        .save(path)
        .unwrap();
}

fn text(root: &Path, name: &str, text: impl AsRef<[u8]>) {
    fs::write(root.join(name), text).unwrap();
}

fn strict(path: &Path) -> Result<Opened, DatasetError> {
    open_any(path, &OpenOptions::default())
}

fn captions_in(path: &Path, caption: &str) -> Result<Opened, DatasetError> {
    let options = OpenOptions {
        caption: Some(caption.into()),
        ..OpenOptions::default()
    };
    open_any(path, &options)
}

/// Name, caption and repeats of each picture.
fn rows(pictures: &dyn Pictures) -> Vec<(&str, &str, usize)> {
    (0..pictures.len())
        .map(|index| {
            let name = pictures.name(index).unwrap();
            (name, pictures.text(index).unwrap(), pictures.repeats(index))
        })
        .collect()
}

/// Sees that a strict opening fails with this error, and that a lenient one leaves out just as much.
fn fails(root: &Path, expected: &str, left: usize) {
    let shown = |error: &DatasetError| error.to_string().replace(&*root.to_string_lossy(), "R");
    assert_eq!(shown(&strict(root).unwrap_err()), expected);
    let options = OpenOptions {
        skip_unusable: true,
        ..OpenOptions::default()
    };
    let opened = open_any(root, &options).unwrap();
    assert_eq!(opened.pictures.len(), left);
    let skipped: Vec<String> = opened.skipped.iter().map(shown).collect();
    assert_eq!(skipped, [expected]);
}

#[test]
fn our_own_folders_open() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::open(dir.path()).unwrap();
    let image = RgbImage::from_pixel(2, 2, Rgb([7; 3]));
    let provenance = Provenance::default();
    writer.push("b.png", &image, "bee", provenance).unwrap();
    assert!(matches!(
        strict(dir.path()),
        Err(DatasetError::Unfinished { .. })
    ));
    writer.finish().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("metadata.jsonl")] {
        let Opened {
            pictures, layout, ..
        } = strict(&path).unwrap();
        assert_eq!(layout, Layout::ImageFolder);
        assert_eq!(rows(&*pictures), [("b.png", "bee", 1)]);
        assert_eq!(pictures.image(0).unwrap(), image);
        assert_eq!(pictures.image_sha256(0).unwrap().len(), 64);
        assert_eq!(
            pictures.bytes(0).unwrap(),
            fs::read(dir.path().join("b.png")).unwrap()
        );
        assert!(matches!(
            pictures.image(1),
            Err(DatasetError::Index {
                index: 1,
                len: 1,
                ..
            })
        ));
    }
}

#[test]
fn captions_may_be_in_another_column() {
    let dir = tempfile::tempdir().unwrap();
    picture(dir.path(), "a.png", 1);
    picture(dir.path(), "x/b.png", 2);
    text(
        dir.path(),
        "metadata.jsonl",
        "{\"file_name\":\"a.png\",\"caption\":\"A\",\"text\":\"no\"}\n{\"file_name\":\"x/b.png\",\"caption\":\"B\"}\n",
    );
    let opened = captions_in(dir.path(), "caption").unwrap();
    let expected = [("a.png", "A", 1), ("x/b.png", "B", 1)];
    assert_eq!(rows(&*opened.pictures), expected);
    let error = strict(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "line 2: field `text`: expected a string, found no such field among `caption`"
        ),
        "{error}"
    );

    fs::remove_file(dir.path().join("metadata.jsonl")).unwrap();
    text(
        dir.path(),
        "metadata.csv",
        "caption,file_name\nA,a.png\nB,x/b.png\n",
    );
    let opened = captions_in(dir.path(), "caption").unwrap();
    assert_eq!(opened.layout, Layout::ImageFolder);
    assert_eq!(rows(&*opened.pictures), expected);
    assert_eq!(opened.pictures.image(1).unwrap().get_pixel(0, 0).0, [2; 3]);

    text(dir.path(), "metadata.jsonl", "");
    let error = strict(dir.path()).unwrap_err();
    assert!(
        matches!(error, DatasetError::SeveralLayouts { .. }),
        "{error}"
    );
}

#[test]
fn rows_of_metadata_that_cannot_be_used_are_named_or_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    picture(root, "a.png", 1);
    text(root, "b.png", "<html>");
    let good = "{\"file_name\":\"a.png\",\"text\":\"A\"}\n";
    for (row, expected) in [
        (
            "{\"file_name\":\"b.png\",\"text\":\"B\"}",
            "R/b.png: bad picture: expected PNG, JPEG or WebP, found something else",
        ),
        (
            "{\"file_name\":\"b.png\",\"text\":\" \"}",
            "R/b.png: empty caption: expected a text as `text` in line 2 of metadata.jsonl, found \" \"",
        ),
        (
            "{\"file_name\":\"c.png\",\"text\":\"C\"}",
            "R/metadata.jsonl, line 2: there is no image R/c.png",
        ),
        (
            "{\"file_name\":\"a.png\",\"text\":\"A\"}",
            "R/metadata.jsonl, line 2: `a.png` is already named in line 1",
        ),
        (
            "{\"file_name\":\"a.png\"",
            "R/metadata.jsonl, line 2: EOF while parsing an object (column 20)",
        ),
    ] {
        text(root, "metadata.jsonl", format!("{good}{row}\n"));
        fails(root, expected, 1);
    }
}

#[test]
fn caption_files_beside_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    picture(root, "b.PNG", 2);
    text(root, "b.txt", "\u{feff}bee\n");
    picture(root, "a.jpg", 1);
    text(root, "a.caption", " an ant\non a leaf");
    picture(root, "more/a.b.webp", 3);
    text(root, "more/a.b.TXT", "dots");
    // What is no picture and no caption does not matter, nor what is hidden.
    text(root, "a.npz", "cache");
    fs::create_dir(root.join(".cache")).unwrap();
    picture(root, ".cache/c.png", 4);
    let opened = strict(root).unwrap();
    assert_eq!(opened.layout, Layout::CaptionFiles);
    assert_eq!(
        rows(&*opened.pictures),
        [
            ("a.jpg", "an ant\non a leaf", 1),
            ("b.PNG", "bee", 1),
            ("more/a.b.webp", "dots", 1)
        ]
    );
    for (index, value) in [(1, 2), (2, 3)] {
        let image = opened.pictures.image(index).unwrap();
        assert_eq!(image.get_pixel(0, 0).0, [value; 3]);
    }
    assert!(opened.pictures.image(3).is_err());
}

#[test]
fn kohyas_folders_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    picture(root, "10_sks dog/1.png", 1);
    picture(root, "10_sks dog/2.png", 2);
    picture(root, "2_style/1.png", 3);
    text(root, "2_style/1.txt", "a house");
    picture(root, "0_off/1.png", 4);
    let opened = strict(root).unwrap();
    assert_eq!(
        rows(&*opened.pictures),
        [
            ("10_sks dog/1.png", "sks dog", 10),
            ("10_sks dog/2.png", "sks dog", 10),
            ("2_style/1.png", "a house", 2)
        ]
    );
    // Among captions, one that is missing was forgotten.
    picture(root, "2_style/2.png", 5);
    fails(
        root,
        "R/2_style/2.png: no caption: expected a caption `2.txt` or `2.caption` beside it, found none",
        3,
    );
}

#[test]
fn what_is_wrong_with_caption_files_is_named_or_skipped() {
    type Spoil = fn(&Path);
    let cases: [(Spoil, &str); 9] = [
        (
            |root| picture(root, "b.png", 2),
            "R/b.png: no caption: expected a caption `b.txt` or `b.caption` beside it, found none",
        ),
        (
            |root| text(root, "x/b.txt", "B"),
            "R/x/b.txt: no picture: expected a picture `b.jpg`, `b.jpeg`, `b.png` or `b.webp` beside it, found none",
        ),
        (
            |root| {
                text(root, "b.txt", "B");
                text(root, "b.bmp", "BM");
            },
            "R/b.txt: no picture: expected a picture `b.jpg`, `b.jpeg`, `b.png` or `b.webp` beside it, found `b.bmp`",
        ),
        (
            |root| {
                picture(root, "b.png", 2);
                text(root, "b.txt", " \n");
            },
            "R/b.txt: empty caption: expected some text, found none",
        ),
        (
            |root| {
                picture(root, "b.png", 2);
                text(root, "b.txt", b"B\xe9");
            },
            "R/b.txt: bad caption: expected UTF-8, found other bytes after 1",
        ),
        (
            |root| {
                text(root, "b.png", "");
                text(root, "b.txt", "B");
            },
            "R/b.png: bad picture: expected PNG, JPEG or WebP, found an empty file",
        ),
        (
            |root| {
                picture(root, "b.png", 2);
                picture(root, "b.jpg", 2);
                text(root, "b.txt", "B");
            },
            "R/b.png: twice: expected one picture of this stem, found `b.jpg`, too",
        ),
        (
            |root| {
                picture(root, "b.png", 2);
                text(root, "b.txt", "B");
                text(root, "b.caption", "C");
            },
            "R/b.txt: twice: expected one caption of this stem, found `b.caption`, too",
        ),
        (|root| fs::create_dir(root.join("b.png")).unwrap(), ""),
    ];
    for (spoil, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("x")).unwrap();
        picture(dir.path(), "a.png", 1);
        text(dir.path(), "a.txt", "A");
        spoil(dir.path());
        if expected.is_empty() {
            // A folder with the name of a picture is a folder.
            assert_eq!(strict(dir.path()).unwrap().pictures.len(), 1);
        } else {
            fails(dir.path(), expected, 1);
        }
    }
}

#[test]
fn one_of_two_captions_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    picture(dir.path(), "b.png", 2);
    text(dir.path(), "b.txt", "tags");
    text(dir.path(), "b.caption", "a sentence");
    for (ending, expected) in [("txt", "tags"), (".CAPTION", "a sentence")] {
        let opened = captions_in(dir.path(), ending).unwrap();
        assert_eq!(rows(&*opened.pictures), [("b.png", expected, 1)]);
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_but_not_in_circles() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let far = tempfile::tempdir().unwrap();
    picture(far.path(), "a.png", 1);
    symlink(far.path(), dir.path().join("3_a cat")).unwrap();
    let opened = strict(dir.path()).unwrap();
    assert_eq!(rows(&*opened.pictures), [("3_a cat/a.png", "a cat", 3)]);
    symlink(dir.path(), far.path().join("round")).unwrap();
    fails(
        dir.path(),
        "R/3_a cat/round: bad name: expected a folder, found a link to one above it",
        1,
    );
}

#[test]
fn what_is_no_dataset_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let found = |path: &Path| match strict(path).unwrap_err() {
        DatasetError::NotADataset { found, .. } => found,
        other => panic!("{other}"),
    };
    assert_eq!(found(dir.path()), "nothing");
    text(dir.path(), "a.parquet", "PAR1");
    text(dir.path(), ".hidden", "");
    assert_eq!(found(dir.path()), "`a.parquet`");
    text(dir.path(), "b.parquet", "PAR1");
    assert_eq!(found(dir.path()), "`a.parquet` and 1 more");
    assert_eq!(
        found(&dir.path().join("a.parquet")),
        "a file of another kind"
    );
    text(dir.path(), "a.tar.gz", [0x1f, 0x8b, 8]);
    assert_eq!(
        found(&dir.path().join("a.tar.gz")),
        "a file compressed with gzip"
    );
    let nowhere = dir.path().join("nowhere");
    let error = strict(&nowhere).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot read {}: ", nowhere.display())),
        "{error}"
    );
    text(dir.path(), "a.tar", "");
    picture(dir.path(), "a.png", 1);
    let error = strict(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("found archives such as `a.tar` and pictures such as `a.png`"),
        "{error}"
    );
}

#[test]
fn problems_can_be_counted() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        picture(dir.path(), name, 1);
    }
    text(dir.path(), "c.txt", "C");
    let options = OpenOptions {
        skip_unusable: true,
        ..OpenOptions::default()
    };
    let opened = open_any(dir.path(), &options).unwrap();
    let of = |wanted| {
        let matching = |error: &&DatasetError| matches!(error, DatasetError::Entry { problem, .. } if *problem == wanted);
        opened.skipped.iter().filter(matching).count()
    };
    assert_eq!((of(Problem::NoCaption), of(Problem::NoPicture)), (2, 1));
    assert!(opened.pictures.is_empty());
}
