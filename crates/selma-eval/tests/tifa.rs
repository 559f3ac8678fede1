//! TIFA from questions to scores; and, where `SELMA_TIFA_DIR` names the folder `sample` of the reference repository, its
//! figures.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::{fs, ops::ControlFlow, path::PathBuf, sync::Mutex};

use image::{Rgb, RgbImage};
use selma_eval::{
    Bootstrap, EvalError, ImageFolder, Vqa,
    tifa::{
        ChoiceMethod, TifaAnswer, TifaAnswers, TifaProgress, TifaPrompt, TifaQuestion, TifaResult,
        TifaSet, evaluate, score,
    },
};
use serde_json::{Value, json};

fn bootstrap() -> Bootstrap {
    Bootstrap {
        resamples: 200,
        ..Bootstrap::default()
    }
}

fn question(id: &str, text: &str, choices: &[&str], answer: &str, kind: &str) -> TifaQuestion {
    TifaQuestion {
        id: id.to_owned(),
        caption: format!("the caption of {id}"),
        question: text.to_owned(),
        choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
        answer: answer.to_owned(),
        element_type: kind.to_owned(),
        element: String::new(),
    }
}

fn set() -> TifaSet {
    let colours = &["red", "green", "blue"];
    TifaSet::new(vec![
        question("a_1", "what colour is it?", colours, "red", "color"),
        question("a_1", "is it red?", &["yes", "no"], "yes", "color"),
        question("a_1", "how many are there?", &["1", "2"], "1", "counting"),
        question("b_1", "what colour is it?", colours, "green", "color"),
    ])
    .unwrap()
}

/// Names the strongest channel in free words, and does not count.
#[derive(Default)]
struct Seer {
    asked: Mutex<Vec<String>>,
}

impl Vqa for Seer {
    fn name(&self) -> &str {
        "seer"
    }

    fn answer(&self, image: &RgbImage, questions: &[&str]) -> Result<Vec<String>, EvalError> {
        let red = image.get_pixel(0, 0)[0] > 128;
        let mut asked = self.asked.lock().unwrap();
        asked.extend(questions.iter().map(|&question| question.to_owned()));
        let answer = |question: &&str| match (*question, red) {
            (text, true) if text.contains("what colour") => "A bright red.",
            (text, false) if text.contains("what colour") => "bleu",
            (text, red) if text.contains("is it red") => {
                if red {
                    "yes"
                } else {
                    "No."
                }
            }
            _ => "",
        };
        Ok(questions.iter().map(answer).map(str::to_owned).collect())
    }
}

fn pictures() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (id, colour) in [("a_1", [200, 0, 0]), ("b_1", [0, 0, 200])] {
        let picture = RgbImage::from_pixel(2, 2, Rgb(colour));
        picture.save(dir.path().join(format!("{id}.png"))).unwrap();
    }
    dir
}

fn judged(prompt: TifaPrompt) -> (TifaResult, Vec<String>) {
    let (dir, seer) = (pictures(), Seer::default());
    let images = ImageFolder::new(dir.path());
    let mut last = None;
    let result = evaluate(
        "painter",
        &set(),
        &images,
        &seer,
        prompt,
        &bootstrap(),
        |state| {
            last = Some(state);
            ControlFlow::Continue(())
        },
    );
    let expected = TifaProgress {
        done: 2,
        total: 2,
        unanswered: 1,
    };
    assert_eq!(last, Some(expected));
    (result.unwrap(), seer.asked.into_inner().unwrap())
}

#[test]
fn free_words_become_choices_and_choices_scores() {
    let (result, asked) = judged(TifaPrompt::Choices);
    assert_eq!(
        asked[0],
        "Answer the multiple-choice question. Question: what colour is it? Choices: red, green, blue Answer:"
    );
    assert_eq!(
        (result.model.as_str(), result.vqa.as_str()),
        ("painter", "seer")
    );
    assert_eq!(
        (result.questions, result.unanswered, result.prompt),
        (4, 1, Some(TifaPrompt::Choices))
    );
    // 2 of 3, and none of 1.
    assert!((result.overall.mean - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!(result.overall.clusters, 2);
    assert!((result.stdev.unwrap() - (2.0_f64 / 3.0) / 2.0_f64.sqrt()).abs() < 1e-12);
    assert!((result.by_type["color"].mean - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(
        (
            result.by_type["color"].clusters,
            result.by_type["counting"].mean
        ),
        (2, 0.0)
    );
    let methods: Vec<_> = result
        .methods
        .iter()
        .map(|(method, count)| (*method, *count))
        .collect();
    assert_eq!(
        methods,
        [
            (ChoiceMethod::Exact, 1),
            (ChoiceMethod::Contained, 1),
            (ChoiceMethod::EditDistance, 1)
        ]
    );
    let wrong = &result.items[1].questions[0];
    assert_eq!(
        (
            wrong.answer.as_deref(),
            wrong.choice.as_deref(),
            wrong.score
        ),
        (Some("bleu"), Some("blue"), 0.0)
    );
    let open = &result.items[0].questions[2];
    assert_eq!(
        (&open.answer, &open.choice, open.method),
        (&None, &None, None)
    );

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tifa.json");
    result.save(&path).unwrap();
    assert_eq!(TifaResult::load(&path).unwrap(), result);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(
        TifaResult::load(&path),
        Err(EvalError::Json { .. })
    ));
}

#[test]
fn there_are_three_ways_to_ask() {
    let (_, asked) = judged(TifaPrompt::FreeForm);
    assert_eq!(
        asked[1],
        "Answer the question. Question: is it red? Answer:"
    );
    let (_, asked) = judged(TifaPrompt::Question);
    assert_eq!(asked[1], "is it red?");
}

#[test]
fn a_missing_picture_is_known_before_the_first_question() {
    let (dir, seer) = (pictures(), Seer::default());
    fs::remove_file(dir.path().join("b_1.png")).unwrap();
    let images = ImageFolder::new(dir.path());
    let prompt = TifaPrompt::Question;
    let go_on = |_| ControlFlow::Continue(());
    let error = evaluate("m", &set(), &images, &seer, prompt, &bootstrap(), go_on).unwrap_err();
    assert!(
        matches!(&error, EvalError::MissingImage { item, .. } if item == "b_1"),
        "{error}"
    );
    assert!(seer.asked.into_inner().unwrap().is_empty());
}

#[test]
fn choices_that_are_given_are_taken_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("result.json");
    let answer = |free: &str, choice: Option<&str>| json!({"free_form_vqa": free, "multiple_choice_vqa": choice, "scores": 1});
    let file = json!({"tifa_average": 1, "question_details": {
        "a_1": {
            "what colour is it?": answer("pink", Some("red")),
            "is it red?": answer("Yes", None),
        },
        "b_1": {"what colour is it?": answer("grue", Some("green"))},
    }});
    let write = |file: &Value| fs::write(&path, file.to_string()).unwrap();
    write(&file);
    let answers = TifaAnswers::read(&path).unwrap();
    let result = score("sd", "mplug-large", None, &set(), &answers, &bootstrap()).unwrap();
    assert_eq!(
        (result.questions, result.unanswered, result.prompt),
        (4, 1, None)
    );
    assert!((result.overall.mean - 5.0 / 6.0).abs() < 1e-12);
    assert_eq!(result.methods[&ChoiceMethod::Given], 2);
    assert_eq!(result.methods[&ChoiceMethod::Normalised], 1);

    let mut other = answers;
    other.insert("a_1", "why?", TifaAnswer::default());
    let error = score("sd", "v", None, &set(), &other, &bootstrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is an answer to \"why?\" about item a_1, but no such question"
    );
    write(&json!({"question_details": {}}));
    assert!(matches!(
        TifaAnswers::read(&path),
        Err(EvalError::Empty { .. })
    ));
    write(&json!({"question_details": {"a_1": {"why?": {}}}}));
    let error = TifaAnswers::read(&path).unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("result.json is not a result of TIFA's program"),
        "{error}"
    );
    let error = TifaAnswers::read(&dir.path().join("none.json")).unwrap_err();
    assert!(matches!(error, EvalError::Io { .. }));
}

/// The figures that the reference program left beside its sample, from its own answers.
#[test]
fn the_sample_of_the_reference_program_has_its_scores() {
    let Some(folder) = std::env::var_os("SELMA_TIFA_DIR").map(PathBuf::from) else {
        return;
    };
    let path = folder.join("sample_evaluation_result.json");
    let expected: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let answers = TifaAnswers::read(&path).unwrap();
    let questions = TifaSet::read(&folder.join("sample_question_answers.json")).unwrap();
    let result = score(
        "sd",
        "mplug-large",
        None,
        &questions,
        &answers,
        &bootstrap(),
    )
    .unwrap();
    let near = |value: f64, key: &Value| {
        assert!(
            (value - key.as_f64().unwrap()).abs() < 1e-12,
            "{value} {key}"
        )
    };
    near(result.overall.mean, &expected["tifa_average"]);
    near(result.stdev.unwrap(), &expected["tifa_stdev"]);
    let types = expected["accuracy_by_type"].as_object().unwrap();
    assert_eq!(types.len(), result.by_type.len());
    for (name, accuracy) in types {
        near(result.by_type[name].mean, accuracy);
    }
    for item in &result.items {
        near(item.score, &expected["caption_scores"][&item.item_id]);
    }
}
