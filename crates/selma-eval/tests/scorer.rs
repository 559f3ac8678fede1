//! From pictures with captions to scores and their mean.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail by panicking, as tests do"
)]

use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use image::{Rgb, RgbImage};
use selma_dataset::{
    OpenOptions, PairRule, Pictures, Score, Scores, make_pairs, open_any, write_scores,
};
use selma_eval::{Bootstrap, EvalError, Scorer, mean_score, score_pictures};

/// How red a picture is, plus the length of its text; or as many as `gives` and no more.
struct Red {
    gives: usize,
}

impl Scorer for Red {
    fn name(&self) -> &str {
        "red"
    }

    fn score(&self, pictures: &[(&RgbImage, &str)]) -> Result<Vec<f64>, EvalError> {
        if pictures.iter().any(|(_, text)| text.is_empty()) {
            return Err(EvalError::Scorer {
                scorer: "red".to_owned(),
                source: "no text".into(),
            });
        }
        let red = |(image, text): &(&RgbImage, &str)| {
            f64::from(image.get_pixel(0, 0)[0]) + text.len() as f64
        };
        Ok(pictures.iter().map(red).take(self.gives).collect())
    }
}

const WHOLE: Red = Red { gives: usize::MAX };

/// Pictures of one red each, with their captions.
fn folder(path: &Path, pictures: &[(u8, &str)]) -> Box<dyn Pictures> {
    let mut rows = String::new();
    for (index, (red, text)) in pictures.iter().enumerate() {
        let image = RgbImage::from_pixel(2, 2, Rgb([*red, 0, 0]));
        image.save(path.join(format!("{index}.png"))).unwrap();
        rows += &format!("{{\"file_name\": \"{index}.png\", \"text\": \"{text}\"}}\n");
    }
    fs::write(path.join("metadata.jsonl"), rows).unwrap();
    open_any(path, &OpenOptions::default()).unwrap().pictures
}

fn score(
    pictures: &dyn Pictures,
    scorer: &dyn Scorer,
    batch: usize,
) -> Result<Vec<Score>, EvalError> {
    let batch = NonZeroUsize::new(batch).unwrap();
    score_pictures(pictures, scorer, batch, |_| ControlFlow::Continue(()))
}

const FOUR: [(u8, &str); 4] = [(10, "a"), (30, "b"), (50, "b"), (20, "c")];

#[test]
fn scores_do_not_depend_on_batches_and_rank_pairs() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = folder(dir.path(), &FOUR);
    let scores = score(&*pictures, &WHOLE, 3).unwrap();
    let values: Vec<f64> = scores.iter().map(|score| score.score).collect();
    assert_eq!(values, [11.0, 31.0, 51.0, 21.0]);
    assert_eq!(scores, score(&*pictures, &WHOLE, 1).unwrap());

    // Two pictures are of one prompt.
    let mean = mean_score(&*pictures, &scores, &Bootstrap::default()).unwrap();
    assert_eq!((mean.mean, mean.n, mean.clusters), (28.5, 4, 3));
    assert!(mean.low < mean.mean && mean.mean < mean.high, "{mean:?}");

    let path = dir.path().join("scores.jsonl");
    write_scores(&path, &scores).unwrap();
    let read = Scores::read(&path, &*pictures).unwrap();
    let (pairs, _) = make_pairs(&*pictures, &read, "red", PairRule::BestWorst).unwrap();
    assert_eq!((pairs[0].chosen, pairs[0].rejected), (2, 1));
}

#[test]
fn what_a_scorer_cannot_do_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let pictures = folder(dir.path(), &FOUR);
    let error = score(&*pictures, &Red { gives: 1 }, 2).unwrap_err();
    assert_eq!(error.to_string(), "scorer red gave 1 scores of 2 pictures");
    let batch = NonZeroUsize::new(3).unwrap();
    let stopped = score_pictures(&*pictures, &WHOLE, batch, |_| ControlFlow::Break(()));
    assert!(matches!(
        stopped,
        Err(EvalError::Cancelled { done: 3, total: 4 })
    ));
    let bytes = fs::read(dir.path().join("2.png")).unwrap();
    fs::write(dir.path().join("2.png"), &bytes[..bytes.len() / 2]).unwrap();
    let error = score(&*pictures, &WHOLE, 2).unwrap_err();
    assert!(error.to_string().contains("2.png"), "{error}");
    let none = mean_score(&*pictures, &[], &Bootstrap::default());
    assert!(matches!(none, Err(EvalError::Empty { .. })));
}
