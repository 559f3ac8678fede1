//! Writing, being interrupted, and writing on.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use image::{Rgb, RgbImage};
use selma_dataset::{
    Dataset, DatasetError, DatasetWriter, JOURNAL_FILE, METADATA_FILE, Provenance,
};
use selma_durable::DurableError;

const SAMPLES: u32 = 6;

/// A number that a parser that is not exact reads as its neighbour.
const GUIDANCE: f64 = 3.828_633_905_082_601_3;

fn file_name(i: u32) -> String {
    format!("{}/{i:06}.png", if i < 2 { "a" } else { "b" })
}

fn image(i: u32) -> RgbImage {
    RgbImage::from_fn(9, 5, |x, y| {
        Rgb([(x * 20 + i) as u8, (y * 40) as u8, i as u8])
    })
}

fn provenance(i: u32) -> Provenance {
    Provenance {
        skill: "coco".into(),
        prompt_id: i.to_string(),
        seed: u64::MAX - u64::from(i),
        guidance: GUIDANCE,
        negative_prompt: i.is_multiple_of(2).then(|| "blurry".into()),
        ..Provenance::default()
    }
}

/// Writes what is missing, from the last sample to the first.
fn write_on(writer: &mut DatasetWriter, samples: u32) {
    for i in (0..samples).rev() {
        if !writer.contains(&file_name(i)) {
            writer
                .push(
                    &file_name(i),
                    &image(i),
                    &format!("caption\n{i} \u{2028}猫"),
                    provenance(i),
                )
                .unwrap();
        }
    }
}

/// Every file and its bytes.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(
                files(&path)
                    .into_iter()
                    .map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)),
            );
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

fn restore(root: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// An uninterrupted run: its files before and after it is finished.
fn reference(samples: u32) -> [BTreeMap<String, Vec<u8>>; 2] {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::open(dir.path()).unwrap();
    write_on(&mut writer, samples);
    let before = files(dir.path());
    writer.finish().unwrap();
    [before, files(dir.path())]
}

#[test]
fn a_finished_folder_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::open(dir.path()).unwrap();
    assert!(writer.is_empty());
    write_on(&mut writer, SAMPLES);
    assert!(matches!(
        Dataset::open(dir.path()),
        Err(DatasetError::Unfinished { .. })
    ));
    assert_eq!(writer.len(), SAMPLES as usize);
    writer.finish().unwrap();

    let dataset = Dataset::open(dir.path()).unwrap();
    assert_eq!(dataset.len(), SAMPLES as usize);
    for (i, sample) in (0..SAMPLES).zip(&dataset) {
        assert_eq!(sample.file_name, file_name(i));
        assert_eq!(sample.text, format!("caption\n{i} \u{2028}猫"));
        assert_eq!(sample.provenance, Some(provenance(i)));
        assert_eq!(dataset.image(i as usize).unwrap(), image(i));
        let text = dir.path().join(&sample.file_name).with_extension("txt");
        assert_eq!(fs::read_to_string(text).unwrap(), sample.text);
    }
    assert_eq!(files(dir.path()).len(), 2 * SAMPLES as usize + 1);
}

#[test]
fn a_journal_torn_anywhere_gives_the_same_bytes() {
    let [before, after] = reference(3);
    let journal = &before[JOURNAL_FILE];
    let ends = (0..journal.len()).filter(|&i| journal[i] == b'\n');
    let near_ends = ends
        .flat_map(|end| [end, end + 1, end + 2])
        .filter(|&cut| cut <= journal.len());
    for cut in near_ends.chain((0..journal.len()).step_by(101)) {
        let dir = tempfile::tempdir().unwrap();
        restore(dir.path(), &before);
        fs::write(dir.path().join(JOURNAL_FILE), &journal[..cut]).unwrap();
        fs::write(dir.path().join("b/.selma-x1y2z3.tmp"), b"half a pict").unwrap();
        let mut writer = DatasetWriter::open(dir.path()).unwrap();
        // A line that lacks nothing but its end is whole.
        let ends = (0..journal.len()).filter(|&at| journal[at] == b'\n' && at <= cut);
        assert_eq!(writer.len(), ends.count());
        write_on(&mut writer, 3);
        writer.finish().unwrap();
        assert_eq!(files(dir.path()), after, "cut at {cut}");
    }
}

#[test]
fn damaged_samples_are_written_again() {
    let [before, after] = reference(SAMPLES);
    // With the journal alone, with the metadata alone, and killed between writing one and removing the other.
    let mut both = before.clone();
    both.insert(METADATA_FILE.to_owned(), after[METADATA_FILE].clone());
    for state in [&before, &after, &both] {
        let dir = tempfile::tempdir().unwrap();
        restore(dir.path(), state);
        fs::remove_file(dir.path().join(file_name(0))).unwrap();
        fs::write(dir.path().join(file_name(1)), b"another picture").unwrap();
        fs::write(
            dir.path().join(file_name(2)).with_extension("txt"),
            b"another text",
        )
        .unwrap();
        // Interrupted once more: the journal now has two lines for some samples.
        let mut writer = DatasetWriter::open(dir.path()).unwrap();
        for i in 0..SAMPLES {
            assert_eq!(writer.contains(&file_name(i)), i > 2, "{i}");
        }
        write_on(&mut writer, SAMPLES);
        drop(writer);
        let writer = DatasetWriter::open(dir.path()).unwrap();
        assert_eq!(writer.len(), SAMPLES as usize);
        writer.finish().unwrap();
        assert_eq!(files(dir.path()), after);
    }
}

#[test]
fn finishing_twice_changes_nothing() {
    let [_, after] = reference(2);
    let dir = tempfile::tempdir().unwrap();
    restore(dir.path(), &after);
    let metadata = dir.path().join(METADATA_FILE);
    let written = fs::metadata(&metadata).unwrap().modified().unwrap();
    let writer = DatasetWriter::open(dir.path()).unwrap();
    assert!(writer.contains(&file_name(0)) && writer.contains(&file_name(1)));
    writer.finish().unwrap();
    assert_eq!(files(dir.path()), after);
    assert_eq!(
        fs::metadata(&metadata).unwrap().modified().unwrap(),
        written
    );
}

#[test]
fn a_dataset_without_samples_is_one() {
    let dir = tempfile::tempdir().unwrap();
    DatasetWriter::open(dir.path()).unwrap().finish().unwrap();
    assert!(Dataset::open(dir.path()).unwrap().is_empty());
}

#[test]
fn bad_samples_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::open(dir.path()).unwrap();
    let outside = dir.path().join("outside.png");
    let absolute = outside.to_string_lossy().into_owned();
    for name in [
        "../a.png",
        "a.jpg",
        "a",
        "",
        ".a.png",
        "x/.y/a.png",
        "http://x/a.png",
        "a\\b.png",
        &absolute,
    ] {
        let error = writer.push(name, &image(0), "", provenance(0)).unwrap_err();
        assert!(
            matches!(error, DatasetError::FileName { .. }),
            "{name}: {error}"
        );
    }
    let infinite = Provenance {
        guidance: f64::INFINITY,
        ..Provenance::default()
    };
    let error = writer
        .push("a.png", &image(0), "", infinite)
        .unwrap_err()
        .to_string();
    assert!(
        error.ends_with("`guidance` is inf, expected a finite number"),
        "{error}"
    );
    let error = writer
        .push("a.png", &RgbImage::new(0, 3), "", provenance(0))
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("cannot encode the image "), "{error}");
    assert_eq!(
        files(dir.path()).into_keys().collect::<Vec<_>>(),
        [JOURNAL_FILE]
    );

    writer.push("a.png", &image(0), "", provenance(0)).unwrap();
    let error = writer
        .push("a.png", &image(1), "", provenance(1))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!(
            "cannot add `a.png` to {}: it is already there",
            dir.path().display()
        )
    );
    // A file where a folder is needed.
    let error = writer
        .push("a.png/b.png", &image(1), "", provenance(1))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot create the folder ") && error.contains("a.png"),
        "{error}"
    );
    writer.finish().unwrap();
    assert_eq!(Dataset::open(dir.path()).unwrap().len(), 1);
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    for root in [file.clone(), file.join("inside")] {
        let error = DatasetWriter::open(&root).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot create the folder {}: ", root.display())),
            "{error}"
        );
    }
    // A folder where the metadata goes.
    let root = dir.path().join("set");
    let writer = DatasetWriter::open(&root).unwrap();
    let metadata = root.join(METADATA_FILE);
    fs::create_dir(&metadata).unwrap();
    let error = writer.finish().unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot write {}: ", metadata.display())),
        "{error}"
    );
    assert!(root.join(JOURNAL_FILE).exists());
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _writer = DatasetWriter::open(dir.path()).unwrap();
    let error = DatasetWriter::open(dir.path()).unwrap_err();
    assert!(
        matches!(error, DatasetError::Durable(DurableError::Locked { .. })),
        "{error}"
    );
}

#[test]
fn a_journal_that_points_outside_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join(JOURNAL_FILE);
    fs::write(&journal, "{\"file_name\":\"../x.png\",\"text\":\"\"}\n").unwrap();
    let error = DatasetWriter::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "{}, line 1: field `file_name`: ",
            journal.display()
        )),
        "{error}"
    );
}

const FOLDER_OF_THE_KILLED: &str = "SELMA_DATASET_TEST_FOLDER";
const SAMPLES_OF_THE_KILLED: u32 = 40;

/// Not a test of its own: the process that `killed_at_any_instant_it_continues` kills.
#[test]
#[ignore = "run by another test"]
fn the_killed() {
    if let Some(root) = std::env::var_os(FOLDER_OF_THE_KILLED) {
        let mut writer = DatasetWriter::open(root).unwrap();
        write_on(&mut writer, SAMPLES_OF_THE_KILLED);
        writer.finish().unwrap();
    }
}

#[test]
fn killed_at_any_instant_it_continues() {
    let [_, after] = reference(SAMPLES_OF_THE_KILLED);
    let dir = tempfile::tempdir().unwrap();
    let mut kills = 0;
    loop {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_killed", "--ignored"])
            .env(FOLDER_OF_THE_KILLED, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Later each time, so that it comes to an end on any machine.
        std::thread::sleep(Duration::from_millis(10 + 7 * kills));
        child.kill().unwrap();
        kills += 1;
        if child.wait().unwrap().success() {
            break;
        }
    }
    assert!(kills > 1, "the first run was over before it was killed");
    assert_eq!(files(dir.path()), after);
}
