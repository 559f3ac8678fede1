//! What the judge of `[selection]` says of the pictures to train on.

use std::collections::HashMap;

use image::RgbImage;
use selma_dataset::{Pictures, Score, Scores};
use selma_durable::create_folder;
use selma_eval::dsg::{Item, Quirks};
use selma_eval::rating::StudyPrompt;
use selma_eval::{
    CachedVqa, ChatPrompt, DsgQuestion, EvalError, EvalOptions, ImageSource, QuestionSet, Vqa,
    evaluate, vqa_score,
};

use super::scores::by_scorer;
use crate::{Judge, Run, RunEvent, RunObserver, Selector, SelmaError};

/// What the judge's scores are called.
pub(super) const JUDGE: &str = "faithfulness";

/// What a scorer that chooses pictures is called among the inputs of a run.
pub(super) const SCORER: &str = "selection.judge";

/// What the judge says of every picture; 0 for those about whose captions it has no questions, or to which it has no answer. `task` is the name of the training.
pub(super) fn scores(
    run: &Run,
    pictures: &dyn Pictures,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<Scores, SelmaError> {
    let scores: Vec<f64> = match &run.recipe.selection.judge {
        Selector::Oracle => (0..pictures.len())
            .map(|index| {
                let image = pictures.image(index)?;
                let text = pictures.text(index).unwrap_or_default();
                Ok(faithfulness(&image, text)?.unwrap_or(0.0))
            })
            .collect::<Result<_, SelmaError>>()?,
        Selector::Scorer(settings) => {
            let scorer = settings.load_as(settings.unchanged(run, SCORER)?, &run.device)?;
            let scores = by_scorer(pictures, &scorer, task, observer)?;
            scores.into_iter().map(|score| score.score).collect()
        }
        Selector::Openai(config) => {
            let judge = Judge::Openai(config.clone());
            by_asking(run, &judge, pictures, task, observer)?
        }
        Selector::Blip(blip) => {
            let judge = Judge::Blip(blip.clone());
            by_asking(run, &judge, pictures, task, observer)?
        }
    };
    let rows = scores
        .into_iter()
        .enumerate()
        .map(|(index, score)| Score::new(pictures, index, JUDGE, score));
    let rows: Vec<Score> = rows.collect::<Result<_, _>>()?;
    Ok(Scores::from_rows(pictures.root(), &rows, pictures)?)
}

/// The share of the questions that the caption implies to which the oracle says yes. Captions outside the miniature's language have none.
pub(super) fn faithfulness(image: &RgbImage, text: &str) -> Result<Option<f64>, SelmaError> {
    let Some(spec) = selma_mini::parse_caption(text) else {
        return Ok(None);
    };
    let questions = selma_mini::questions("item", text, &spec);
    let questions: Vec<&str> = questions.iter().map(|row| row.question.as_str()).collect();
    let answers = Vqa::answer(&selma_mini::OracleVqa, image, &questions)?;
    let yes = answers.iter().filter(|answer| *answer == "yes").count();
    Ok(Some(yes as f64 / answers.len().max(1) as f64))
}

/// A dataset's pictures by their numbers, as text.
struct ByNumber<'a>(&'a dyn Pictures);

impl ImageSource for ByNumber<'_> {
    fn load(&self, id: &str) -> Result<RgbImage, EvalError> {
        let index = id.parse().unwrap_or(usize::MAX);
        Ok(self.0.image(index)?)
    }
}

/// What a vision model says, by the questions of the recipe, or of each prompt as a whole. What it has answered is kept.
fn by_asking(
    run: &Run,
    judge: &Judge,
    pictures: &dyn Pictures,
    task: &str,
    observer: &mut RunObserver<'_>,
) -> Result<Vec<f64>, SelmaError> {
    let selection = &run.recipe.selection;
    let prompt = match selection.questions.is_empty() {
        true => ChatPrompt::Figure,
        false => ChatPrompt::YesNo,
    };
    let vqa = judge.vqa(run, "selection", prompt, selection.jpeg)?;
    let path = run.layout.selection_of(task);
    if let Some(folder) = path.parent() {
        create_folder(folder)?;
    }
    let vqa = CachedVqa::open(&*vqa, &path)?;
    let mut tell = |done, total| {
        observer(RunEvent::Progress {
            task,
            done,
            total,
            unit: "pictures",
            note: None,
        })
    };
    let mut scores = vec![0.0; pictures.len()];
    let mut set = |id: &str, score: f64| {
        if let Some(slot) = id
            .parse()
            .ok()
            .and_then(|index: usize| scores.get_mut(index))
        {
            *slot = score;
        }
    };
    let source = ByNumber(pictures);
    let options = EvalOptions {
        answer_match: judge.answer_match(),
        ..EvalOptions::default()
    };
    if selection.questions.is_empty() {
        let prompts: Vec<StudyPrompt> = (0..pictures.len())
            .map(|index| StudyPrompt {
                id: index.to_string(),
                text: pictures.text(index).unwrap_or_default().to_owned(),
                category: None,
            })
            .collect();
        let observe = |p: selma_eval::VqaScoreProgress| tell(p.done, p.total);
        let result = vqa_score(task, &prompts, &source, &vqa, &options.bootstrap, observe);
        for item in result?.items {
            set(&item.item_id, item.yes.map_or(0.0, |yes| yes.probability));
        }
    } else {
        let questions = questions(run, pictures)?;
        let observe = |p: selma_eval::Progress<'_>| tell(p.done, p.total);
        let result = evaluate(task, &questions, &source, &vqa, &options, observe);
        for item in result?.items {
            set(&item.item_id, item.score);
        }
    }
    Ok(scores)
}

/// The questions of the recipe's files about the captions of the pictures, whose numbers are the ids.
fn questions(run: &Run, pictures: &dyn Pictures) -> Result<QuestionSet, SelmaError> {
    let mut by_text: HashMap<String, Vec<DsgQuestion>> = HashMap::new();
    for path in &run.recipe.selection.questions {
        let set = QuestionSet::read(path, Quirks::Strict)?;
        let items = set.items().iter();
        by_text.extend(items.map(
            |Item {
                 text, questions, ..
             }| (text.clone(), questions.clone()),
        ));
    }
    let rows = (0..pictures.len()).flat_map(|index| {
        let text = pictures.text(index).unwrap_or_default();
        let rows = by_text.get(text).into_iter().flatten();
        rows.map(move |row| DsgQuestion {
            item_id: index.to_string(),
            ..row.clone()
        })
    });
    let rows: Vec<DsgQuestion> = rows.collect();
    if rows.is_empty() {
        return Err(SelmaError::Setting {
            field: "selection.questions".to_owned(),
            expected: format!("questions about captions of {}", pictures.root().display()),
            found: "questions about other texts".to_owned(),
        });
    }
    Ok(QuestionSet::new(rows)?)
}
