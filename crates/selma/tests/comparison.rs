//! Files of evaluations that no run has made, side by side.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers outside of #[test] functions count as library code for clippy"
)]

use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;
use selma::report::{Comparison, Evaluation, ModelKind, Unit};
use selma_eval::dsg::{DsgQuestion, Quirks};
use selma_eval::{Answers, EvalOptions, QuestionSet, Reply, score};

const QUESTIONS: &str = "\
item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language
a,a red <script>alert(1)</script> star,star,1,0,entity,whole,star,Is there a star?
a,a red <script>alert(1)</script> star,red,2,1,attribute,color,red,Is the star red?
b,two rings,rings,1,0,entity,whole,rings,Are there rings?
c,a view,view,1,0,global,-,view,Is it a view?
";

/// The result of a model that gets the star's colour right or not.
fn dsg(folder: &Path, model: &str, red: &str) -> PathBuf {
    let annotations = folder.join("questions.csv");
    fs::write(&annotations, QUESTIONS).unwrap();
    let questions = QuestionSet::read(&annotations, Quirks::Strict).unwrap();
    let mut answers = Answers::default();
    for item in questions.items() {
        for DsgQuestion {
            item_id,
            proposition_id,
            ..
        } in &item.questions
        {
            let answer = if *proposition_id == 2 { red } else { "yes" };
            let reply = Reply {
                text: answer.to_owned(),
                ..Reply::default()
            };
            answers.insert(item_id, *proposition_id, reply);
        }
    }
    let result = score(
        model,
        "judge",
        &questions,
        &answers,
        &EvalOptions::default(),
    )
    .unwrap();
    let path = folder.join(format!("dsg-{model}.json"));
    result.save(&path).unwrap();
    path
}

fn scores(folder: &Path, model: &str, scores: &[(&str, f64)]) -> PathBuf {
    let lines = scores.iter().map(|(id, score)| {
        format!("{{\"file_name\":\"{id}.png\",\"scorer\":\"pickscore\",\"score\":{score}}}\n")
    });
    let path = folder.join(format!("{model}.jsonl"));
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

fn read(path: &Path, model: Option<&str>) -> Vec<Evaluation> {
    Evaluation::read(path, model).unwrap()
}

fn comparison(folder: &Path) -> Comparison {
    let one = [("a", 21.0), ("b", 20.0), ("c", 22.0)];
    let two = [("a", 21.5), ("b", 20.1), ("c", 22.6)];
    let files = [
        read(&dsg(folder, "old", "no"), None),
        read(&dsg(folder, "new", "yes"), None),
        read(&scores(folder, "x", &one), Some("old")),
        read(&scores(folder, "y", &two), Some("new")),
    ];
    Comparison {
        title: "Two models".to_owned(),
        evaluations: files.concat(),
        ..Comparison::default()
    }
}

#[test]
fn models_and_metrics_become_one_report() {
    let dir = tempfile::tempdir().unwrap();
    let report = comparison(dir.path()).report().unwrap();
    let names: Vec<&str> = report
        .models
        .iter()
        .map(|model| model.name.as_str())
        .collect();
    assert_eq!(names, ["old", "new"]);
    assert_eq!(report.models[0].kind, ModelKind::Base);
    let difference = report.models[1].difference_to_base.unwrap();
    assert!(
        (difference.difference - 0.5 / 3.0).abs() < 1e-12,
        "{difference:?}"
    );
    assert!(report.models[0].by_category.contains_key("global"));
    let [dsg, pickscore] = report.metrics.as_slice() else {
        panic!("{:?}", report.metrics)
    };
    assert_eq!(
        (dsg.name.as_str(), dsg.detail.as_str(), dsg.unit),
        ("DSG", "judge", Unit::Share)
    );
    assert_eq!(
        (pickscore.name.as_str(), pickscore.unit),
        ("pickscore", Unit::Plain)
    );
    let row = &pickscore.rows[1];
    assert!((row.overall.mean - 21.4).abs() < 1e-12);
    assert!((row.difference_to_base.unwrap().difference - 0.4).abs() < 1e-12);
    assert_eq!(row.values["a"], 21.5);
    assert_eq!(report.hashes.len(), 4);
    // Without pictures there are none to show, and nobody knows the guidance.
    let html = report.html();
    assert!(!html.contains("<section id=\"pictures\"") && !html.contains("Guidance"));
    assert!(!report.table().contains("guidance"), "{}", report.table());
}

#[test]
fn scores_by_other_weights_are_not_compared() {
    let dir = tempfile::tempdir().unwrap();
    let mut comparison = comparison(dir.path());
    let weigh = |evaluations: &mut [Evaluation], model: &str, hash: &str| {
        let mut scored = evaluations.iter_mut();
        let found = scored.find(|e| e.model == model && e.metric == "pickscore");
        found.unwrap().weights = Some(hash.to_owned());
    };
    weigh(&mut comparison.evaluations, "old", "1f");
    // A file that does not say may be of the same.
    let hashes = comparison.report().unwrap().hashes;
    assert!(hashes.contains(&("scorer pickscore".to_owned(), "1f".to_owned())));
    weigh(&mut comparison.evaluations, "new", "2e");
    let error = comparison.report().unwrap_err().to_string();
    for part in ["pickscore", "other weights", "x.jsonl", "y.jsonl"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // Nor may a file mix them.
    let path = dir.path().join("mixed.jsonl");
    let row = |id: &str, hash: &str| {
        format!(
            "{{\"file_name\":\"{id}.png\",\"scorer\":\"clip\",\"scorer_sha256\":\"{hash}\",\"score\":1}}\n"
        )
    };
    fs::write(&path, row("a", "1f") + &row("b", "1f")).unwrap();
    assert_eq!(read(&path, None)[0].weights.as_deref(), Some("1f"));
    fs::write(&path, row("a", "1f") + &row("b", "2e")).unwrap();
    let error = Evaluation::read(&path, None).unwrap_err().to_string();
    assert!(
        error.contains("line 2: `clip` had other weights"),
        "{error}"
    );
}

#[test]
fn another_base_may_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut comparison = comparison(dir.path());
    comparison.base = Some("new".to_owned());
    let report = comparison.report().unwrap();
    assert_eq!(report.models[1].kind, ModelKind::Base);
    assert!(report.models[0].difference_to_base.unwrap().difference < 0.0);
    comparison.base = Some("none".to_owned());
    let error = comparison.report().unwrap_err().to_string();
    assert!(
        error.contains("none: ") && error.contains("new, old"),
        "{error}"
    );
}

#[test]
fn pictures_are_shown_with_their_answers_and_prompts_stay_text() {
    let dir = tempfile::tempdir().unwrap();
    let mut comparison = comparison(dir.path());
    let folder = dir.path().join("drawn");
    fs::create_dir(&folder).unwrap();
    for id in ["a", "b"] {
        RgbImage::new(8, 8)
            .save(folder.join(format!("{id}.png")))
            .unwrap();
    }
    comparison.images = vec![("old".to_owned(), folder.clone())];
    let report = comparison.report().unwrap();
    let ids: Vec<&str> = report
        .samples
        .iter()
        .map(|sample| sample.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let image = &report.samples[0].images[0];
    assert_eq!((image.score, image.answers.len()), (0.5, 2));
    assert_eq!(image.answers[1].category, "color");
    let html = report.html();
    assert!(html.contains("a red &lt;script&gt;alert(1)&lt;/script&gt; star"));
    assert_eq!(html.matches("<script").count(), 2);

    comparison.images = vec![("unknown".to_owned(), folder)];
    let error = comparison.report().unwrap_err().to_string();
    assert!(error.contains("unknown"), "{error}");
    comparison.images = vec![("old".to_owned(), dir.path().join("nowhere"))];
    let error = comparison.report().unwrap_err().to_string();
    assert!(
        error.contains("nowhere") && error.contains("ID.png"),
        "{error}"
    );
}

#[test]
fn other_prompts_are_not_compared_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut comparison = comparison(dir.path());
    let fewer = scores(dir.path(), "z", &[("a", 21.0)]);
    comparison.evaluations.truncate(3);
    comparison.evaluations.extend(read(&fewer, Some("new")));
    let report = comparison.report().unwrap();
    assert_eq!(report.metrics[1].rows[1].difference_to_base, None);
    assert!(
        report
            .notes
            .iter()
            .any(|note| note.contains("pickscore of new")),
        "{:?}",
        report.notes
    );
}

#[test]
fn scores_alone_make_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let file = scores(dir.path(), "only", &[("a", 1.0), ("b", 3.0)]);
    let comparison = Comparison {
        evaluations: read(&file, None),
        ..Comparison::default()
    };
    let report = comparison.report().unwrap();
    assert!(report.models.is_empty());
    assert_eq!(report.metrics[0].rows[0].model, "only");
    assert!(report.table().starts_with("metrics"), "{}", report.table());
    assert!(report.html().contains("<section id=\"metrics\""));
}

#[test]
fn what_is_no_evaluation_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("file.json");
        fs::write(&path, text).unwrap();
        Evaluation::read(&path, None).unwrap_err().to_string()
    };
    assert!(
        file("{\"a\": 1}").contains("file.json: expected a result"),
        "{}",
        file("{\"a\": 1}")
    );
    assert!(file("").contains("found nothing"), "{}", file(""));
    assert!(
        file("not json").contains("file.json"),
        "{}",
        file("not json")
    );
    let twice = "{\"file_name\":\"a.png\",\"scorer\":\"s\",\"score\":1}\n".repeat(2);
    assert!(
        file(&twice).contains("line 2: a second score of `a.png`"),
        "{}",
        file(&twice)
    );
    let nameless = "{\"image_sha256\":\"00\",\"scorer\":\"s\",\"score\":1}\n";
    assert!(
        file(nameless).contains("line 1: expected `file_name`"),
        "{}",
        file(nameless)
    );
    assert!(file("{\"aggregation\": \"official\"}").contains("file.json"));
    let missing = Evaluation::read(&dir.path().join("none.json"), None).unwrap_err();
    assert!(missing.to_string().contains("none.json"), "{missing}");

    let mut comparison = comparison(dir.path());
    comparison.evaluations.extend_from_within(..1);
    let error = comparison.report().unwrap_err().to_string();
    assert!(
        error.contains("dsg-old.json: a second evaluation of `old` by DSG, judge"),
        "{error}"
    );
    comparison.evaluations.clear();
    assert!(comparison.report().is_err());
}
