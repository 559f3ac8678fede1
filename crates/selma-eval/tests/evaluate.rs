//! From images to a result on disk and a comparison.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicUsize, Ordering},
};

use image::{Rgb, RgbImage};
use selma_durable::DurableError;
use selma_eval::{
    Answers, Bootstrap, By, DsgQuestion, EvalError, EvalOptions, EvalResult, ImageFolder, Progress,
    QuestionSet, Vqa, ask, compare, compare_by, compare_questions, evaluate, pool, score,
};

/// Sees one thing: which of red, green and blue is the strongest at the first pixel.
struct Primary {
    asked: AtomicUsize,
}

impl Vqa for Primary {
    fn name(&self) -> &str {
        "primary"
    }

    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        let Rgb([red, green, blue]) = *image.get_pixel(0, 0);
        let seen = [("red", red), ("green", green), ("blue", blue)];
        let strongest = seen
            .iter()
            .max_by_key(|(_, value)| value)
            .map(|(name, _)| *name);
        self.asked.fetch_add(questions.len(), Ordering::Relaxed);
        Ok(questions
            .iter()
            .map(|question| match strongest {
                _ if question.contains("sound") => String::new(),
                Some(name) if question.contains(name) => "yes".to_owned(),
                _ => "no".to_owned(),
            })
            .collect())
    }
}

fn primary() -> Primary {
    Primary {
        asked: AtomicUsize::new(0),
    }
}

/// Forgets to answer the last question.
struct Short;

impl Vqa for Short {
    fn name(&self) -> &str {
        "short"
    }

    fn answer(&self, _image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        Ok(questions.iter().skip(1).map(|_| "yes".to_owned()).collect())
    }
}

fn questions(items: &[(&str, &str)]) -> QuestionSet {
    let question =
        |item: &str, text: &str, id, dependency: &[u32], detailed: &str, question: String| {
            DsgQuestion {
                item_id: item.to_owned(),
                text: text.to_owned(),
                keywords: String::new(),
                proposition_id: id,
                dependency: dependency.to_vec(),
                category_broad: "attribute".to_owned(),
                category_detailed: detailed.to_owned(),
                tuple: String::new(),
                question,
            }
        };
    let mut all = Vec::new();
    for (item, colour) in items {
        let text = format!("something {colour} that sounds");
        all.push(question(
            item,
            &text,
            1,
            &[],
            "color",
            format!("Is it {colour}?"),
        ));
        all.push(question(
            item,
            &text,
            2,
            &[1],
            "sound",
            "Does it sound?".to_owned(),
        ));
    }
    QuestionSet::new(all).unwrap()
}

fn paint(colours: &[(&str, [u8; 3])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (item, colour) in colours {
        let image = RgbImage::from_pixel(2, 2, Rgb(*colour));
        image.save(dir.path().join(format!("{item}.png"))).unwrap();
    }
    dir
}

const RED: [u8; 3] = [200, 10, 10];
const GREEN: [u8; 3] = [10, 200, 10];

fn go_on(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn options() -> EvalOptions {
    EvalOptions {
        bootstrap: Bootstrap {
            resamples: 500,
            ..Bootstrap::default()
        },
        ..EvalOptions::default()
    }
}

fn result(model: &str, colours: &[(&str, [u8; 3])], wanted: &[(&str, &str)]) -> EvalResult {
    let dir = paint(colours);
    let images = ImageFolder::new(dir.path());
    evaluate(
        model,
        &questions(wanted),
        &images,
        &primary(),
        &options(),
        go_on,
    )
    .unwrap()
}

const WANTED: [(&str, &str); 3] = [("warm_1", "red"), ("warm_2", "red"), ("cold_1", "green")];

#[test]
fn evaluates_a_folder_and_survives_the_disk() {
    let result = result(
        "painter",
        &[("warm_1", RED), ("warm_2", GREEN), ("cold_1", GREEN)],
        &WANTED,
    );
    assert_eq!(
        (result.model.as_str(), result.vqa.as_str()),
        ("painter", "primary")
    );
    assert_eq!((result.questions, result.unanswered), (6, 3));
    assert!((result.overall.mean - 1.0 / 3.0).abs() < 1e-12);
    assert!((result.by_detailed["color"].mean - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(result.by_detailed["sound"].mean, 0.0);
    assert_eq!(result.by_group["cold"].mean, 0.5);
    assert_eq!(result.by_group["warm"].mean, 0.25);
    assert_eq!(result.items[1].questions[0].answer.as_deref(), Some("no"));
    assert_eq!(result.items[1].questions[1].answer, None);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dsg.json");
    result.save(&path).unwrap();
    assert_eq!(EvalResult::load(&path).unwrap(), result);

    let text = std::fs::read_to_string(&path).unwrap();
    let refused = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let error = EvalResult::load(&path).unwrap_err();
        assert!(error.to_string().contains("dsg.json"), "{error}");
        error
    };
    assert!(matches!(
        refused(&text[..text.len() / 2]),
        EvalError::Json { .. }
    ));
    assert!(matches!(
        refused(&text.replacen("\"model\"", "\"mode\"", 1)),
        EvalError::Json { .. }
    ));
    assert!(matches!(
        refused(&text.replacen('{', "{\"extra\": 1,", 1)),
        EvalError::Json { .. }
    ));
    assert!(matches!(
        refused(&text.replace("warm_2", "warm_1")),
        EvalError::DuplicateItem { .. }
    ));
    let error = EvalResult::load(&dir.path().join("none.json")).unwrap_err();
    assert!(matches!(error, EvalError::Io { .. }), "{error}");
    let error = result.save(&dir.path().join("none/dsg.json")).unwrap_err();
    assert!(
        matches!(
            error,
            EvalError::Durable(DurableError::Io {
                action: "write",
                ..
            })
        ),
        "{error}"
    );
}

#[test]
fn a_missing_image_is_known_before_the_first_question() {
    let dir = paint(&[("warm_1", RED), ("warm_2", RED)]);
    let vqa = primary();
    let images = ImageFolder::new(dir.path());
    let error = evaluate("m", &questions(&WANTED), &images, &vqa, &options(), go_on).unwrap_err();
    match &error {
        EvalError::MissingImage { item, path } => {
            assert_eq!(item, "cold_1");
            assert!(path.ends_with("cold_1.png"));
        }
        _ => panic!("{error}"),
    }
    assert_eq!(vqa.asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_closure_can_draw_the_images() {
    let draw = |_: &str| Ok(RgbImage::from_pixel(1, 1, Rgb(RED)));
    let result = evaluate(
        "m",
        &questions(&WANTED),
        &draw,
        &primary(),
        &options(),
        go_on,
    )
    .unwrap();
    assert!((result.by_detailed["color"].mean - 2.0 / 3.0).abs() < 1e-12);
    let fail = |item: &str| {
        Err(EvalError::ItemId {
            item: item.to_owned(),
        })
    };
    let error = evaluate(
        "m",
        &questions(&WANTED),
        &fail,
        &primary(),
        &options(),
        go_on,
    )
    .unwrap_err();
    assert!(matches!(error, EvalError::ItemId { .. }), "{error}");
}

#[test]
fn stopped_work_is_resumed_without_asking_twice() {
    let dir = paint(&[("warm_1", RED), ("warm_2", GREEN), ("cold_1", GREEN)]);
    let images = ImageFolder::new(dir.path());
    let set = questions(&WANTED);
    let mut known = Answers::new();
    let first = primary();
    let error = ask(&set, &images, &first, Answers::new(), |progress| {
        for (proposition, answer) in progress.answers {
            known.insert(&progress.item.id, *proposition, answer.clone());
        }
        if progress.done == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })
    .unwrap_err();
    assert!(
        matches!(error, EvalError::Cancelled { done: 2, total: 3 }),
        "{error}"
    );
    assert_eq!(known.len(), 4);

    let mut heard = Vec::new();
    let second = primary();
    let resumed = ask(&set, &images, &second, known, |progress| {
        heard.push((progress.item.id.clone(), progress.done, progress.total));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(heard, [("cold_1".to_owned(), 3, 3)]);
    assert_eq!(second.asked.load(Ordering::Relaxed), 2);
    assert_eq!(
        resumed,
        ask(&set, &images, &primary(), Answers::new(), go_on).unwrap()
    );
}

#[test]
fn a_model_must_answer_every_question() {
    let dir = paint(&[("warm_1", RED), ("warm_2", RED), ("cold_1", RED)]);
    let images = ImageFolder::new(dir.path());
    let error = evaluate("m", &questions(&WANTED), &images, &Short, &options(), go_on).unwrap_err();
    assert!(
        matches!(
            error,
            EvalError::AnswerCount {
                expected: 2,
                found: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn compares_two_models_prompt_by_prompt() {
    let good = result(
        "good",
        &[("warm_1", RED), ("warm_2", RED), ("cold_1", GREEN)],
        &WANTED,
    );
    let bad = result(
        "bad",
        &[("warm_1", RED), ("warm_2", GREEN), ("cold_1", RED)],
        &WANTED,
    );
    let paired = compare(&good, &bad).unwrap();
    // Two of three prompts gained half a point.
    assert!((paired.difference - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!((paired.n, paired.clusters), (3, 3));
    assert_eq!((paired.low, paired.high), (0.0, 0.5));
    assert_eq!(paired.p, 0.5);
    assert!((paired.difference - (good.overall.mean - bad.overall.mean)).abs() < 1e-12);
    let groups = compare_by(&good, &bad, By::Group).unwrap();
    let gain = |group: &str| groups[group].difference;
    assert_eq!(
        (gain("cold").difference, gain("warm").difference),
        (0.5, 0.25)
    );
    // One prompt, and two of which one differs: no exchange is more extreme.
    assert_eq!((gain("cold").p, groups["cold"].p_holm), (1.0, 1.0));
    let detailed = compare_by(&good, &bad, By::Detailed).unwrap();
    assert_eq!(detailed["sound"].difference.difference, 0.0);
    assert_eq!(compare_by(&good, &bad, By::Broad).unwrap().len(), 1);
    let questions = compare_questions(&good, &bad).unwrap();
    assert_eq!((questions.only_first, questions.only_second), (2, 0));
    assert!((questions.p_exact - 0.5).abs() < 1e-12);
    let itself = compare(&good, &good).unwrap();
    assert_eq!(
        (itself.difference, itself.low, itself.high, itself.p),
        (0.0, 0.0, 0.0, 1.0)
    );
}

#[test]
fn the_order_of_the_items_does_not_matter() {
    let colours = [("warm_1", RED), ("warm_2", GREEN), ("cold_1", GREEN)];
    let good = result(
        "good",
        &[("warm_1", RED), ("warm_2", RED), ("cold_1", GREEN)],
        &WANTED,
    );
    let forwards = result("bad", &colours, &WANTED);
    let mut reversed = WANTED;
    reversed.reverse();
    let backwards = result("bad", &colours, &reversed);
    assert_eq!(
        compare(&good, &forwards).unwrap(),
        compare(&good, &backwards).unwrap()
    );
}

#[test]
fn refuses_to_compare_what_is_not_comparable() {
    let colours = [("warm_1", RED), ("warm_2", RED), ("cold_1", GREEN)];
    let a = result("a", &colours, &WANTED);
    let fewer = result("b", &colours, &WANTED[..2]);
    let error = compare(&a, &fewer).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot compare: item cold_1 is in the result of a and not in that of b"
    );
    let error = compare(&fewer, &a).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot compare: item cold_1 is in the result of a and not in that of b"
    );
    let other = result("b", &colours, &[WANTED[0], ("warm_2", "green"), WANTED[2]]);
    let error = compare(&a, &other).unwrap_err();
    assert!(
        matches!(&error, EvalError::QuestionsDiffer { item, proposition: 1 } if item == "warm_2"),
        "{error}"
    );
    let mut shorter = a.clone();
    shorter.items[2].questions.pop();
    for error in [
        compare(&a, &shorter).unwrap_err(),
        compare(&shorter, &a).unwrap_err(),
    ] {
        assert!(
            matches!(&error, EvalError::QuestionsDiffer { proposition: 2, .. }),
            "{error}"
        );
    }
    let mut judged = a.clone();
    judged.vqa = "another judge".to_owned();
    let error = compare(&a, &judged).unwrap_err();
    assert!(
        matches!(
            error,
            EvalError::SettingsDiffer {
                what: "VQA model",
                ..
            }
        ),
        "{error}"
    );
    let mut scored = a.clone();
    scored.aggregation = selma_eval::dsg::Aggregation::Selma;
    assert!(matches!(
        compare(&a, &scored),
        Err(EvalError::SettingsDiffer {
            what: "aggregation",
            ..
        })
    ));
    let mut grouped = a.clone();
    grouped.items[0].group = "other".to_owned();
    assert!(matches!(
        compare(&a, &grouped),
        Err(EvalError::SettingsDiffer { .. })
    ));
}

#[test]
fn unknown_options_are_refused() {
    assert!(serde_json::from_str::<EvalOptions>(r#"{"aggregation": "selma"}"#).is_ok());
    for bad in [
        r#"{"aggregation": "mean"}"#,
        r#"{"agregation": "selma"}"#,
        r#"{"bootstrap": {"b": 3}}"#,
    ] {
        assert!(serde_json::from_str::<EvalOptions>(bad).is_err(), "{bad}");
    }
    let mut options = EvalOptions::default();
    options.bootstrap.resamples = 0;
    let error = score("m", "v", &questions(&WANTED), &Answers::new(), &options).unwrap_err();
    assert!(matches!(error, EvalError::Setting { .. }), "{error}");
}

#[test]
fn pools_repetitions_of_an_evaluation() {
    let first = result(
        "m",
        &[("warm_1", RED), ("warm_2", RED), ("cold_1", GREEN)],
        &WANTED,
    );
    let second = result(
        "m",
        &[("warm_1", RED), ("warm_2", GREEN), ("cold_1", RED)],
        &WANTED,
    );
    let named = |results: [&EvalResult; 2]| {
        let names = ["a".to_owned(), "b".to_owned()];
        pool(names.into_iter().zip(results)).unwrap()
    };
    let both = named([&first, &second]);
    assert_eq!(both.questions, first.questions + second.questions);
    assert_eq!(both.overall.clusters, 6);
    let mean = f64::midpoint(first.overall.mean, second.overall.mean);
    assert!((both.overall.mean - mean).abs() < 1e-12);
    assert_eq!(
        both.items[3].item_id,
        format!("b/{}", second.items[0].item_id)
    );
    // Pools of the same repetitions are compared prompt by prompt within each.
    let paired = compare(&named([&first, &first]), &both).unwrap();
    assert_eq!(paired.clusters, 6);
    let apart = compare(&first, &second).unwrap().difference;
    assert!((paired.difference - apart / 2.0).abs() < 1e-12);

    let none: [(String, &EvalResult); 0] = [];
    assert_eq!(
        pool(none).unwrap_err().to_string(),
        "no evaluations: nothing to evaluate"
    );
    let twice = ["a", "a"].map(|name| (name.to_owned(), &first));
    let error = pool(twice).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot pool: two evaluations are called a"
    );
    let judged = EvalResult {
        vqa: "another judge".to_owned(),
        ..first.clone()
    };
    let error = pool([("a".to_owned(), &first), ("b".to_owned(), &judged)]).unwrap_err();
    assert!(matches!(error, EvalError::SettingsDiffer { .. }), "{error}");
}
