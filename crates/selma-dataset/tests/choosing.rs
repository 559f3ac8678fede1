//! Scores of pictures, and what is chosen by them.
#![allow(
    clippy::unwrap_used,
    reason = "in the helpers of a test a failure is the result"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use selma_dataset::{
    Dataset, DatasetError, DatasetWriter, OpenOptions, Pair, PairReport, PairRule, Pictures,
    Provenance, Score, Scores, SelectConfig, Subset, make_pairs, open_any, read_pairs, select,
    write_pairs, write_scores,
};
use tempfile::TempDir;

/// Pictures `0.png`, `1.png`, … of these prompts.
fn dataset(prompts: &[&str]) -> (TempDir, Dataset) {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = DatasetWriter::open(dir.path()).unwrap();
    for (number, prompt) in prompts.iter().enumerate() {
        let image = RgbImage::from_pixel(2, 2, Rgb([number as u8; 3]));
        let name = format!("{number}.png");
        writer
            .push(&name, &image, prompt, Provenance::default())
            .unwrap();
    }
    writer.finish().unwrap();
    let dataset = Dataset::open(dir.path()).unwrap();
    (dir, dataset)
}

/// Scores of the first pictures by `scorer`.
fn rows(pictures: &dyn Pictures, scorer: &str, scores: &[f64]) -> Vec<Score> {
    let row = |(index, &score)| Score::new(pictures, index, scorer, score).unwrap();
    scores.iter().enumerate().map(row).collect()
}

fn scores(pictures: &dyn Pictures, by: &[(&str, &[f64])]) -> Scores {
    let all = by
        .iter()
        .flat_map(|(scorer, scores)| rows(pictures, scorer, scores));
    let all: Vec<Score> = all.collect();
    Scores::from_rows(Path::new("scores.jsonl"), &all, pictures).unwrap()
}

#[test]
fn scores_are_written_and_read() {
    let (dir, dataset) = dataset(&["a", "b"]);
    let path = dir.path().join("scores.jsonl");
    let mut all = rows(&dataset, "clip", &[0.1 + 0.2, -1e-300]);
    all.extend(rows(&dataset, "dsg", &[1.0]));
    write_scores(&path, &all).unwrap();
    let hash = dataset.get(0).unwrap().image_sha256.as_ref().unwrap();
    let first = format!(
        r#"{{"file_name":"0.png","image_sha256":"{hash}","scorer":"clip","score":0.30000000000000004}}"#
    );
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().next(), Some(first.as_str()));
    let read = Scores::read(&path, &dataset).unwrap();
    assert_eq!(read.scorers().collect::<Vec<_>>(), ["clip", "dsg"]);
    assert_eq!(read.get("clip", 0), Some(0.1 + 0.2));
    assert_eq!(read.get("clip", 1), Some(-1e-300));
    assert_eq!(read.get("dsg", 1), None);
    assert_eq!(read.get("hps", 0), None);
    assert_eq!(read.of(&dataset, "dsg", 0).unwrap(), 1.0);
    let root = dataset.root().display();
    for (scorer, index, expected) in [
        (
            "dsg",
            1,
            format!("`1.png` in {root} has no score by `dsg`: found those of other pictures"),
        ),
        (
            "hps",
            0,
            format!("`0.png` in {root} has no score by `hps`: found scorers `clip` and `dsg`"),
        ),
        (
            "dsg",
            2,
            format!("sample 2 of {root} does not exist: there are 2"),
        ),
    ] {
        let error = read.of(&dataset, scorer, index).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }

    let infinite = Score {
        score: f64::INFINITY,
        ..all.remove(0)
    };
    let error = write_scores(&path, &[infinite]).unwrap_err().to_string();
    assert_eq!(
        error,
        "`score of `0.png``: expected a finite number, found inf"
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert!(Score::new(&dataset, 2, "clip", 0.0).is_err());
    assert!(Score::new(&dataset, 0, "clip", f64::NAN).is_err());
}

#[test]
fn scores_by_other_weights_are_not_mixed() {
    let (_dir, dataset) = dataset(&["a", "b"]);
    let row = |index, hash: Option<&str>| Score {
        scorer_sha256: hash.map(str::to_owned),
        ..Score::new(&dataset, index, "clip", 0.5).unwrap()
    };
    let read = |rows: &[Score]| Scores::from_rows(Path::new("s"), rows, &dataset);
    read(&[row(0, Some("1f")), row(1, Some("1f"))]).unwrap();
    for (second, found) in [(Some("2e"), "`2e`"), (None, "none")] {
        let error = read(&[row(0, Some("1f")), row(1, second)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "s, line 2: field `scorer_sha256`: expected one hash for all scores by a scorer, found `1f` and {found} of `clip`"
            )
        );
    }
}

#[test]
fn a_hash_stands_for_the_content_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let image = RgbImage::from_pixel(2, 2, Rgb([9; 3]));
    for name in ["a", "b", "c"] {
        let other = RgbImage::new(1, 1);
        let image = if name == "c" { &other } else { &image };
        image.save(dir.path().join(format!("{name}.png"))).unwrap();
        fs::write(dir.path().join(format!("{name}.txt")), name).unwrap();
    }
    // This layout records no hashes.
    let opened = open_any(dir.path(), &OpenOptions::default()).unwrap();
    let (_own, recorded) = dataset(&["x"]);
    assert_eq!(opened.pictures.image_sha256(0), None);
    let hash = selma_durable::sha256(&dir.path().join("a.png")).unwrap();
    let row = Score {
        file_name: None,
        image_sha256: Some(hash.iter().map(|byte| format!("{byte:02X}")).collect()),
        scorer: "clip".into(),
        scorer_sha256: None,
        score: 0.5,
    };
    let path = Path::new("s");
    let scores = Scores::from_rows(path, std::slice::from_ref(&row), &*opened.pictures).unwrap();
    let found: Vec<_> = (0..3).map(|index| scores.get("clip", index)).collect();
    assert_eq!(found, [Some(0.5), Some(0.5), None]);
    let error = Scores::from_rows(path, &[row], &recorded).unwrap_err();
    assert!(
        error.to_string().starts_with("s, line 1: field `image_sha256`: expected the hash of a picture of the dataset, found `"),
        "{error}"
    );
}

#[test]
fn bad_scores_are_named() {
    let (dir, dataset) = dataset(&["a", "b"]);
    let path = dir.path().join("scores.jsonl");
    let good = "{\"file_name\":\"0.png\",\"scorer\":\"clip\",\"score\":1}\n";
    for (row, expected) in [
        (
            r#"{"file_name":"2.png","scorer":"clip","score":1}"#,
            "field `file_name`: expected a picture of the dataset, found `2.png`",
        ),
        (
            r#"{"file_name":"1.png","image_sha256":"00","scorer":"clip","score":1}"#,
            "field `image_sha256`: expected the hash of the picture that is there now, found `00`, but `1.png` has `",
        ),
        (
            r#"{"scorer":"clip","score":1}"#,
            "field `file_name`: expected `file_name` or `image_sha256`, found neither",
        ),
        (
            r#"{"file_name":"0.png","scorer":"clip","score":2}"#,
            "field `scorer`: expected one score of a picture by a scorer, found a second one of `0.png` by `clip`",
        ),
        (
            r#"{"file_name":"1.png","scorer":" ","score":2}"#,
            "field `scorer`: expected a name, found \" \"",
        ),
        (
            r#"{"file_name":"1.png","scorer":"clip"}"#,
            "missing field `score`",
        ),
        (
            r#"{"file_name":"1.png","scorer":"clip","score":null}"#,
            "invalid type: null, expected f64",
        ),
        (
            r#"{"file_name":"1.png","scorer":"clip","score":1e999}"#,
            "number out of range",
        ),
        (
            r#"{"file_name":"1.png","scorer":"clip","score":1,"sha":""}"#,
            "unknown field `sha`",
        ),
        (r#"{"file_name":"1.png""#, "EOF while parsing an object"),
    ] {
        fs::write(&path, format!("{good}{row}\n")).unwrap();
        let error = Scores::read(&path, &dataset).unwrap_err().to_string();
        let expected = format!("{}, line 2: {expected}", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
    fs::remove_file(&path).unwrap();
    let error = Scores::read(&path, &dataset).unwrap_err().to_string();
    assert!(error.starts_with("cannot read "), "{error}");
}

#[test]
fn pairs_are_the_best_and_the_worst_or_the_first_two() {
    let prompts = ["a", "b", "a", "c", "a", "b", "a", "d", "d"];
    let (_dir, dataset) = dataset(&prompts);
    let values = [0.2, 0.5, 0.9, 0.0, 0.1, 0.5, 0.9, 3.0, 4.0];
    let scores = scores(&dataset, &[("clip", &values)]);
    let pair = |chosen: usize, rejected: usize| Pair {
        chosen,
        rejected,
        scores: Some([values[chosen], values[rejected]]),
    };
    let report = PairReport {
        prompts: 4,
        pairs: 2,
        ties: 1,
        single: 1,
    };
    for (rule, of_a) in [
        (PairRule::BestWorst, pair(2, 4)),
        (PairRule::FirstTwo, pair(2, 0)),
    ] {
        let made = make_pairs(&dataset, &scores, "clip", rule).unwrap();
        assert_eq!(made, (vec![of_a, pair(8, 7)], report));
    }
    let error = make_pairs(&dataset, &scores, "hps", PairRule::BestWorst).unwrap_err();
    assert!(matches!(error, DatasetError::NoScore { .. }), "{error}");
}

#[test]
fn pairs_are_written_and_read() {
    let (dir, dataset) = dataset(&["a", "a", "b \"\n", "b \"\n"]);
    let path = dir.path().join("pairs.jsonl");
    let pairs = [
        Pair {
            chosen: 1,
            rejected: 0,
            scores: Some([0.5, 0.1 + 0.2]),
        },
        Pair {
            chosen: 2,
            rejected: 3,
            scores: None,
        },
    ];
    write_pairs(&path, &dataset, &pairs).unwrap();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        "{\"prompt\":\"a\",\"chosen\":\"1.png\",\"rejected\":\"0.png\",\"chosen_score\":0.5,\"rejected_score\":0.30000000000000004}\n\
         {\"prompt\":\"b \\\"\\n\",\"chosen\":\"2.png\",\"rejected\":\"3.png\"}\n"
    );
    assert_eq!(read_pairs(&path, &dataset).unwrap(), pairs);
    let missing = Pair {
        rejected: 4,
        ..pairs[0]
    };
    let error = write_pairs(&path, &dataset, &[missing]).unwrap_err();
    assert!(
        matches!(error, DatasetError::Index { index: 4, .. }),
        "{error}"
    );
    assert_eq!(read_pairs(&path, &dataset).unwrap(), pairs);
}

#[test]
fn bad_pairs_are_named() {
    let (dir, dataset) = dataset(&["a", "a", "b", "a"]);
    let path = dir.path().join("pairs.jsonl");
    let good = "{\"prompt\":\"a\",\"chosen\":\"0.png\",\"rejected\":\"1.png\"}\n";
    for (row, expected) in [
        (
            r#"{"prompt":"a","chosen":"9.png","rejected":"1.png"}"#,
            "field `chosen`: expected a picture of the dataset, found `9.png`",
        ),
        (
            r#"{"prompt":"a","chosen":"3.png","rejected":"2.png"}"#,
            "field `rejected`: expected a picture of the prompt, found `2.png`, whose caption is \"b\"",
        ),
        (
            r#"{"prompt":"a","chosen":"3.png","rejected":"3.png"}"#,
            "field `rejected`: expected another picture, found `3.png`, which was chosen",
        ),
        (
            r#"{"prompt":"a","chosen":"3.png","rejected":"1.png","chosen_score":1,"rejected_score":1}"#,
            "field `chosen_score`: expected the higher score, found 1 against 1",
        ),
        (
            r#"{"prompt":"a","chosen":"3.png","rejected":"1.png","chosen_score":1}"#,
            "field `rejected_score`: expected a score, found none",
        ),
        (
            r#"{"prompt":"a","chosen":"3.png","rejected":"1.png","rejected_score":1}"#,
            "field `chosen_score`: expected a score, found none",
        ),
        (
            r#"{"prompt":"a","chosen":"1.png","rejected":"0.png"}"#,
            "field `chosen`: expected two pictures that are no pair yet, found the two of line 1",
        ),
        (
            r#"{"chosen":"1.png","rejected":"0.png"}"#,
            "missing field `prompt`",
        ),
        (
            r#"{"prompt":"a","chosen":"1.png","rejected":"0.png","margin":1}"#,
            "unknown field `margin`",
        ),
    ] {
        fs::write(&path, format!("{good}{row}\n")).unwrap();
        let error = read_pairs(&path, &dataset).unwrap_err().to_string();
        let expected = format!("{}, line 2: {expected}", path.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn the_best_of_those_that_pass_are_kept() {
    let prompts = ["a", "a", "a", "b", "b", "c", "c", "c"];
    let (_dir, dataset) = dataset(&prompts);
    let scores = scores(
        &dataset,
        &[
            ("dsg", &[0.9, 1.0, 1.0, 0.8, 0.89, 1.0, 1.0, 1.0]),
            ("beauty", &[0.9, 0.6, 0.9, 0.9, 0.5, 0.7, 0.5, 0.7]),
        ],
    );
    let dreamsync = SelectConfig {
        minimums: BTreeMap::from([("beauty".into(), 0.6), ("dsg".into(), 0.9)]),
        rank_by: Some("dsg".into()),
        ..SelectConfig::default()
    };
    // Of a: 0 passes at the limit, 1 and 2 are equal, and 1 is earlier. Of c: 6 is not beautiful.
    let selection = select(&dataset, &scores, &dreamsync).unwrap();
    assert_eq!(selection.kept, [1, 5]);
    let report = serde_json::to_string(&selection.report).unwrap();
    assert_eq!(
        report,
        r#"{"prompts":3,"prompts_kept":2,"pictures":8,"not_looked_at":0,"failed":3,"failed_by":{"beauty":2,"dsg":2},"outdone":3,"kept":2}"#
    );

    let by_beauty = SelectConfig {
        rank_by: Some("beauty".into()),
        per_prompt: 2,
        ..dreamsync.clone()
    };
    let selection = select(&dataset, &scores, &by_beauty).unwrap();
    assert_eq!(selection.kept, [0, 2, 5, 7]);

    let of_two = SelectConfig {
        best_of: Some(2),
        ..dreamsync
    };
    let selection = select(&dataset, &scores, &of_two).unwrap();
    assert_eq!(
        (selection.kept.as_slice(), selection.report.not_looked_at),
        ([1, 5].as_slice(), 2)
    );

    let first = SelectConfig::default();
    let selection = select(&dataset, &scores, &first).unwrap();
    assert_eq!(
        (selection.kept.as_slice(), selection.report.outdone),
        ([0, 3, 5].as_slice(), 5)
    );

    let kept = Subset::new(Box::new(dataset), vec![5, 1]).unwrap();
    assert_eq!(
        (kept.len(), kept.name(0), kept.text(1)),
        (2, Some("5.png"), Some("a"))
    );
    assert_eq!(kept.image(0).unwrap().get_pixel(0, 0).0, [5; 3]);
    assert_eq!((kept.name(2), kept.repeats(0)), (None, 1));
    assert!(kept.image_sha256(1).is_some());
    assert!(matches!(
        kept.image(2),
        Err(DatasetError::Index {
            index: 2,
            len: 2,
            ..
        })
    ));
    let twice = Subset::new(Box::new(kept), vec![1, 1]).unwrap_err();
    assert_eq!(
        twice.to_string(),
        "`numbers`: expected each picture once, found 1 twice"
    );
    let (_dir, kept) = self::dataset(&["a", "b"]);
    assert!(matches!(
        Subset::new(Box::new(kept), vec![2]),
        Err(DatasetError::Index {
            index: 2,
            len: 2,
            ..
        })
    ));
}

#[test]
fn selections_that_make_no_sense_are_refused() {
    let (_dir, dataset) = dataset(&["a", "a"]);
    let scores = scores(&dataset, &[("dsg", &[0.5])]);
    let config = |text: &str| serde_json::from_str::<SelectConfig>(text);
    for (settings, expected) in [
        (
            r#"{"per_prompt":0}"#,
            "`per_prompt`: expected at least 1, found 0",
        ),
        (
            r#"{"best_of":0}"#,
            "`best_of`: expected at least 1, found 0",
        ),
        (
            r#"{"minimums":{"dsg":0}}"#,
            "has no score by `dsg`: found those of other pictures",
        ),
        (
            r#"{"rank_by":"clip","best_of":1}"#,
            "has no score by `clip`: found scorers `dsg`",
        ),
    ] {
        let error = select(&dataset, &scores, &config(settings).unwrap()).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
    }
    let nan = SelectConfig {
        minimums: BTreeMap::from([("dsg".into(), f64::NAN)]),
        ..SelectConfig::default()
    };
    let error = select(&dataset, &scores, &nan).unwrap_err().to_string();
    assert_eq!(error, "`minimums.dsg`: expected a number, found NaN");
    assert!(config(r#"{"minimum":{}}"#).is_err());
    // What is not looked at needs no score.
    let one = config(r#"{"minimums":{"dsg":0.5},"best_of":1}"#).unwrap();
    assert_eq!(select(&dataset, &scores, &one).unwrap().kept, [0]);
}
