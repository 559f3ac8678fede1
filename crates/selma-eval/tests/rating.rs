//! From pictures to a page, from answers to a result.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use image::{Rgb, RgbImage};
use selma_eval::{
    Bootstrap, EvalError, ImageFolder, ImageSource,
    rating::{
        Answer, AnswerFile, AnswerFormat, Choice, Key, KeyPair, RatingResult, Ratings, Study,
        StudyOptions, StudyPrompt,
    },
};

/// Names that are nowhere else in a page.
const MODELS: [&str; 3] = ["zebra-base", "zebra-tuned", "zebra-merged"];

fn prompts(count: usize) -> Vec<StudyPrompt> {
    (0..count)
        .map(|index| StudyPrompt {
            id: format!("secret-{index:02}"),
            text: format!("picture number {index}"),
            category: Some(if index % 4 == 0 { "rare" } else { "usual" }.to_owned()),
        })
        .collect()
}

/// Draws each prompt in a colour of its own.
fn painter(red: u8) -> impl Fn(&str) -> Result<RgbImage, EvalError> {
    move |item: &str| {
        let blue = item.bytes().last().unwrap_or(0);
        Ok(RgbImage::from_pixel(8, 8, Rgb([red, 0, blue])))
    }
}

fn study(models: usize, count: usize, options: &StudyOptions) -> Study {
    let painters = [painter(50), painter(150), painter(250)];
    let models: Vec<(&str, &dyn ImageSource)> = MODELS
        .into_iter()
        .zip(painters.iter().map(|painter| painter as &dyn ImageSource))
        .take(models)
        .collect();
    Study::new(&models, &prompts(count), options).unwrap()
}

fn options(seed: u64) -> StudyOptions {
    StudyOptions {
        seed,
        ..StudyOptions::default()
    }
}

fn answers(
    key: &Key,
    rater: &str,
    saved: u64,
    choose: impl Fn(usize, &KeyPair) -> Option<Choice>,
) -> AnswerFile {
    let answers = key
        .pairs
        .iter()
        .enumerate()
        .filter_map(|(pair, shown)| choose(pair, shown).map(|choice| Answer { pair, choice }));
    AnswerFile {
        format: AnswerFormat::V1,
        study: key.study.clone(),
        rater: rater.to_owned(),
        name: String::new(),
        saved,
        answers: answers.collect(),
    }
}

/// The side on which a model is.
fn side(pair: &KeyPair, model: &str) -> Choice {
    if pair.left == model {
        Choice::Left
    } else {
        Choice::Right
    }
}

/// Writes keys and answers and reads them back.
fn read(folder: &Path, keys: &[&Key], files: &[AnswerFile]) -> Result<Ratings, EvalError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        paths.push(folder.join(format!("answers-{index}.json")));
        fs::write(&paths[index], serde_json::to_string(file).unwrap()).unwrap();
    }
    for (index, key) in keys.iter().enumerate() {
        paths.push(folder.join(format!("{index}.key.json")));
        key.save(paths.last().unwrap()).unwrap();
    }
    Ratings::read(&paths)
}

fn result(keys: &[&Key], files: &[AnswerFile]) -> RatingResult {
    let dir = tempfile::tempdir().unwrap();
    let ratings = read(dir.path(), keys, files).unwrap();
    ratings.result(&Bootstrap::default()).unwrap()
}

fn text(error: &EvalError) -> String {
    let cause = error.source().map_or(String::new(), ToString::to_string);
    format!("{error}: {cause}")
}

#[test]
fn the_seed_decides_order_and_sides() {
    let first = study(2, 40, &options(1));
    assert_eq!(first, study(2, 40, &options(1)));
    let second = study(2, 40, &options(2));
    assert_ne!(first.key.study, second.key.study);
    let items = |study: &Study| -> Vec<String> {
        study
            .key
            .pairs
            .iter()
            .map(|pair| pair.item.clone())
            .collect()
    };
    assert_ne!(items(&first), items(&second));
    let mut sorted = items(&first);
    assert_ne!(
        sorted,
        prompts(40).into_iter().map(|p| p.id).collect::<Vec<_>>()
    );
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted.len(), 40);
    let left = |study: &Study, model: &str| {
        let pairs = study.key.pairs.iter();
        pairs.filter(|pair| pair.left == model).count()
    };
    assert_eq!((left(&first, MODELS[0]), left(&first, MODELS[1])), (20, 20));
}

#[test]
fn the_page_does_not_say_who_drew_what() {
    let Study { page, key } = study(3, 6, &options(3));
    assert_eq!(key.pairs.len(), 18);
    for hidden in ["zebra", "secret", "rare", "usual"] {
        assert!(!page.contains(hidden), "{hidden}");
    }
    assert!(page.contains(&key.study) && page.contains("picture number 5"));
}

#[test]
fn pictures_of_a_pair_are_those_of_the_key() {
    let Study { page, key } = study(2, 10, &options(4));
    let (_, data) = page.split_once("id=\"study\">").unwrap();
    let (data, _) = data.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let red = |picture: &serde_json::Value| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let uri = data["pictures"][picture.as_u64().unwrap() as usize]["uri"]
            .as_str()
            .unwrap();
        let bytes = STANDARD
            .decode(uri.split_once("base64,").unwrap().1)
            .unwrap();
        image::load_from_memory(&bytes)
            .unwrap()
            .into_rgb8()
            .get_pixel(0, 0)[0]
    };
    let drawn = BTreeMap::from([(50, MODELS[0]), (150, MODELS[1])]);
    for (pair, shown) in key.pairs.iter().zip(data["pairs"].as_array().unwrap()) {
        assert_eq!(shown["text"], pair.text.as_str());
        assert_eq!(drawn[&red(&shown["left"])], pair.left);
        assert_eq!(drawn[&red(&shown["right"])], pair.right);
    }
}

#[test]
fn some_prompts_can_be_drawn_at_random() {
    let some = StudyOptions {
        prompts: Some(5),
        ..options(1)
    };
    let chosen = study(2, 40, &some);
    assert_eq!(chosen.key.pairs.len(), 5);
    let last = chosen
        .key
        .pairs
        .iter()
        .filter(|pair| pair.item.as_str() >= "secret-05");
    assert!(last.count() > 0);
    let none: &dyn ImageSource = &ImageFolder::new("no-such-folder");
    let two = [("a", none), ("b", none)];
    for (models, prompts, options, expected) in [
        (
            &two[..1],
            prompts(1),
            options(0),
            "models: expected at least two, found 1",
        ),
        (
            &[two[0], two[0]][..],
            prompts(1),
            options(0),
            "models: expected different names, found a twice",
        ),
        (&two[..], vec![], options(0), "no prompts"),
        (
            &two[..],
            [prompts(2), prompts(1)].concat(),
            options(0),
            "prompts: expected different ids, found secret-00 twice",
        ),
        (&two[..], prompts(4), some, "found 5 of 4"),
        (
            &two[..],
            prompts(4),
            StudyOptions {
                edge: 0,
                ..options(0)
            },
            "edge: expected at least 1",
        ),
        (
            &two[..],
            prompts(1),
            options(0),
            "item secret-00 has no image",
        ),
    ] {
        let error = Study::new(models, &prompts, &options).unwrap_err();
        assert!(text(&error).contains(expected), "{error}");
    }
}

#[test]
fn win_rates_follow_the_answers() {
    let key = study(2, 40, &options(5)).key;
    // The tuned model wins on rare prompts, ties on every other usual one, and loses the rest.
    let judge = |pair: &KeyPair| {
        let number: usize = pair.item.rsplit('-').next().unwrap().parse().unwrap();
        match (number % 4, number % 2) {
            (0, _) => side(pair, MODELS[1]),
            (_, 0) => Choice::Tie,
            _ => side(pair, MODELS[0]),
        }
    };
    let careful = answers(&key, "careful", 1, |_, pair| Some(judge(pair)));
    let hasty = answers(&key, "hasty", 1, |index, pair| {
        (index < 30).then(|| judge(pair))
    });
    let result = result(&[&key], &[careful, hasty]);
    assert_eq!((result.answers, result.unanswered), (70, 10));
    assert_eq!(
        (result.prompts, result.pairs, result.raters.len()),
        (40, 40, 2)
    );
    let [comparison] = result.comparisons.as_slice() else {
        panic!("{:?}", result.comparisons);
    };
    assert_eq!(comparison.first, MODELS[0]);
    let overall = comparison.overall;
    assert_eq!(overall.wins + overall.ties + overall.losses, 70);
    let rate = (overall.wins as f64 + overall.ties as f64 / 2.0) / 70.0;
    assert!((overall.rate.mean - rate).abs() < 1e-12);
    assert_eq!((overall.rate.n, overall.rate.clusters), (70, 40));
    assert!(overall.rate.low < rate && rate < overall.rate.high);
    let decided = overall.decided.unwrap();
    let share = overall.wins as f64 / (overall.wins + overall.losses) as f64;
    assert!((decided.mean - share).abs() < 1e-12 && decided.clusters == 30);
    let rare = comparison.by_category["rare"];
    assert_eq!((rare.preference.wins, rare.preference.ties), (0, 0));
    assert_eq!(rare.preference.rate.mean, 0.0);
    // Ten prompts, all in one direction; of the two categories the other has the smaller p.
    assert_eq!(
        (rare.preference.p, rare.p_holm),
        (2.0 / 1024.0, 2.0 / 1024.0)
    );
    let usual = comparison.by_category["usual"];
    assert_eq!(usual.p_holm, 2.0 * usual.preference.p);
    let agreement = result.agreement.unwrap();
    assert_eq!((agreement.alpha, agreement.agreement), (1.0, 1.0));
    assert_eq!((agreement.pairs, agreement.answers), (30, 60));
    assert!(result.ranking.is_none());
    let again: RatingResult =
        serde_json::from_str(&serde_json::to_string(&result).unwrap()).unwrap();
    assert_eq!(again, result);
}

#[test]
fn who_always_says_left_is_seen() {
    let key = study(2, 40, &options(6)).key;
    let left = |rater| answers(&key, rater, 1, |_, _| Some(Choice::Left));
    let result = result(&[&key], &[left("a"), left("b")]);
    assert_eq!(result.left.unwrap().mean, 1.0);
    // All labels are the same: agreement by chance alone would be as high.
    assert!(result.agreement.is_none());
    assert!(result.comparisons[0].overall.p > 0.05);
}

#[test]
fn only_ties_prefer_nobody() {
    let key = study(2, 4, &options(6)).key;
    let result = result(&[&key], &[answers(&key, "a", 1, |_, _| Some(Choice::Tie))]);
    let overall = result.comparisons[0].overall;
    assert_eq!(
        (overall.rate.mean, overall.decided, overall.p),
        (0.5, None, 1.0)
    );
    assert!(result.left.is_none());
}

#[test]
fn three_models_are_ranked() {
    let key = study(3, 30, &options(7)).key;
    // The later in the list the stronger, but four times in ten the other way round.
    let stronger = |pair: &KeyPair| {
        let rank = |model: &str| MODELS.iter().position(|other| *other == model).unwrap();
        let upset = pair.text.bytes().last().unwrap_or(0).is_multiple_of(3);
        if (rank(&pair.left) > rank(&pair.right)) == upset {
            Choice::Right
        } else {
            Choice::Left
        }
    };
    let result = result(
        &[&key],
        &[answers(&key, "a", 1, |_, pair| Some(stronger(pair)))],
    );
    assert_eq!(result.comparisons.len(), 3);
    let ranking = result.ranking.unwrap();
    let order: Vec<&str> = ranking
        .models
        .iter()
        .map(|row| row.model.as_str())
        .collect();
    assert_eq!(order, [MODELS[2], MODELS[1], MODELS[0]]);
    for row in &ranking.models {
        assert!(
            row.low <= row.strength && row.strength <= row.high,
            "{row:?}"
        );
        assert_eq!(row.answers, 60);
    }
    let sum: f64 = ranking.models.iter().map(|row| row.strength).sum();
    assert!(sum.abs() < 1e-9);
}

#[test]
fn a_model_that_never_wins_has_no_rank() {
    let key = study(3, 6, &options(7)).key;
    let never = |pair: &KeyPair| match side(pair, MODELS[0]) {
        Choice::Left if pair.left == MODELS[0] => Choice::Right,
        _ if pair.right == MODELS[0] => Choice::Left,
        _ => Choice::Tie,
    };
    let result = result(
        &[&key],
        &[answers(&key, "a", 1, |_, pair| Some(never(pair)))],
    );
    assert!(result.ranking.is_none());
    assert_eq!(result.comparisons[0].overall.rate.mean, 0.0);
}

#[test]
fn two_studies_are_one_result() {
    let painters = [painter(50), painter(150), painter(250)];
    let pair = |a: usize, b: usize| {
        let models: [(&str, &dyn ImageSource); 2] =
            [(MODELS[a], &painters[a]), (MODELS[b], &painters[b])];
        Study::new(&models, &prompts(12), &options(8)).unwrap().key
    };
    let (first, second) = (pair(0, 1), pair(2, 1));
    let files = [
        answers(&first, "a", 1, |_, pair| Some(side(pair, MODELS[1]))),
        answers(&second, "a", 1, |_, pair| Some(side(pair, MODELS[2]))),
    ];
    let result = result(&[&first, &second, &first], &files);
    assert_eq!(result.studies.len(), 2);
    assert_eq!(result.models, MODELS);
    assert_eq!((result.raters.len(), result.raters[0].answers), (1, 24));
    assert_eq!((result.prompts, result.pairs), (12, 24));
    let sides: Vec<(&str, &str, f64)> = result
        .comparisons
        .iter()
        .map(|c| (c.first.as_str(), c.second.as_str(), c.overall.rate.mean))
        .collect();
    assert_eq!(
        sides,
        [(MODELS[0], MODELS[1], 0.0), (MODELS[1], MODELS[2], 0.0)]
    );
}

#[test]
fn what_was_saved_last_counts() {
    let dir = tempfile::tempdir().unwrap();
    let key = study(2, 8, &options(9)).key;
    let early = answers(&key, "a", 1, |index, _| (index < 3).then_some(Choice::Left));
    let late = answers(&key, "a", 2, |_, pair| Some(side(pair, MODELS[1])));
    for files in [[early.clone(), late.clone()], [late.clone(), early.clone()]] {
        let ratings = read(dir.path(), &[&key], &files).unwrap();
        let result = ratings.result(&Bootstrap::default()).unwrap();
        assert_eq!((result.answers, result.raters.len()), (8, 1));
        assert_eq!(result.comparisons[0].overall.losses, 8);
        assert_eq!(result.superseded.len(), 1);
    }
    // A copy is no second rater.
    let ratings = read(dir.path(), &[&key], &[late.clone(), late.clone()]).unwrap();
    assert_eq!(ratings.result(&Bootstrap::default()).unwrap().answers, 8);
    let other = AnswerFile { saved: 2, ..early };
    let error = read(dir.path(), &[&key], &[late, other]).unwrap_err();
    assert!(matches!(error, EvalError::RatingConflict { .. }), "{error}");
    assert!(
        error.to_string().contains("answers-1.json contradicts")
            && error
                .to_string()
                .contains("answers-0.json: answers of rater a"),
        "{error}"
    );
}

#[test]
fn wrong_files_are_refused_with_file_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let key = study(2, 8, &options(9)).key;
    let good = answers(&key, "a", 1, |_, _| Some(Choice::Tie));
    let refused =
        |keys: &[&Key], files: &[AnswerFile]| text(&read(dir.path(), keys, files).unwrap_err());
    let change = |change: &dyn Fn(&mut AnswerFile)| {
        let mut file = good.clone();
        change(&mut file);
        file
    };
    let unknown = refused(&[&key], &[change(&|file| file.study = "f00".to_owned())]);
    assert!(
        unknown.contains("answers-0.json, field study: expected that of a key: "),
        "{unknown}"
    );
    assert!(unknown.contains("found f00"), "{unknown}");
    let outside = refused(&[&key], &[change(&|file| file.answers[7].pair = 8)]);
    assert!(
        outside.contains("answers-0.json, field answers[7].pair: expected a pair below 8, found 8"),
        "{outside}"
    );
    let twice = refused(&[&key], &[change(&|file| file.answers[7].pair = 2)]);
    assert!(
        twice.contains("answers[7].pair: expected a pair that is not answered above, found 2"),
        "{twice}"
    );
    assert!(refused(&[], std::slice::from_ref(&good)).contains("no rating keys"));
    assert!(refused(&[&key], &[]).contains("no answers"));
    let changed = Key {
        seed: 1,
        ..key.clone()
    };
    let conflict = refused(&[&key, &changed], std::slice::from_ref(&good));
    assert!(
        conflict.contains("1.key.json contradicts") && conflict.contains("the key of study"),
        "{conflict}"
    );

    let ratings = read(dir.path(), &[&key], &[change(&|file| file.answers.clear())]).unwrap();
    let error = ratings.result(&Bootstrap::default()).unwrap_err();
    assert!(
        matches!(error, EvalError::Empty { what: "answers" }),
        "{error}"
    );

    let path = dir.path().join("other.json");
    for (content, expected) in [
        ("", "EOF"),
        ("{\"format\":\"selma-rating-key/1\",\"study\":", "EOF"),
        ("{\"answers\":[]}", "missing field `format`"),
        ("{\"format\":\"other\"}", "unknown variant `other`"),
        (
            "{\"format\":\"selma-rating-answers/1\"}",
            "missing field `study`",
        ),
        ("\u{0}PNG", "expected value"),
    ] {
        fs::write(&path, content).unwrap();
        let error = text(&Ratings::read(&[&path]).unwrap_err());
        assert!(
            error.contains("other.json") && error.contains(expected),
            "{error}"
        );
    }
    let missing = Ratings::read(&[dir.path().join("none.json")]).unwrap_err();
    assert!(matches!(missing, EvalError::Io { .. }), "{missing}");
}
