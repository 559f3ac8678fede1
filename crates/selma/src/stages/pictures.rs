//! The pictures that an adapter is trained on.

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma_dataset::{
    Dataset, DatasetWriter, METADATA_FILE, OpenOptions, PairRule, Pictures, Provenance, Score,
    Scores, SelectConfig, Subset, make_pairs, open_any, select,
};
use selma_llm::read_prompts;

use crate::adapters::PlannedTraining;
use crate::draw::file_name;
use crate::further::TrainingPictures;
use crate::{DataEncoder, Run, RunObserver, SelmaError, TrainingData};

/// What the judge's scores are called.
const JUDGE: &str = "faithfulness";

/// Collects and encodes what an adapter is trained on.
pub(super) fn training_data(
    run: &Run,
    training: &PlannedTraining,
    encoder: DataEncoder<'_>,
    observer: &mut RunObserver<'_>,
) -> Result<TrainingData, SelmaError> {
    let own = || training.skills.iter().map(|skill| drawn(run, skill));
    let mut keep: &dyn Fn(&RgbImage, &str) -> Result<bool, SelmaError> = &|_, _| Ok(true);
    let datasets: Vec<Box<dyn Pictures>> = match &training.pictures {
        TrainingPictures::Own => own().collect::<Result<_, _>>()?,
        TrainingPictures::Faultless => {
            keep = &|image, text| Ok(faithfulness(image, text)? == Some(1.0));
            own().collect::<Result<_, _>>()?
        }
        TrainingPictures::Best(minimum) => own()
            .map(|pictures| best(pictures?, *minimum))
            .collect::<Result<_, _>>()?,
        TrainingPictures::Pairs => {
            // Planned for one skill alone.
            let skill = training.skills.first().map_or("", String::as_str);
            let pictures = drawn(run, skill)?;
            let scores = scores(&*pictures)?;
            let (pairs, _) = make_pairs(&*pictures, &scores, JUDGE, PairRule::BestWorst)?;
            let set = encoder.pairs(&*pictures, &pairs, observer)?;
            return Ok(TrainingData::Pairs(set));
        }
        TrainingPictures::Truth => {
            let skills = training.skills.iter();
            skills
                .map(|skill| truth(run, skill))
                .collect::<Result<_, _>>()?
        }
        TrainingPictures::Folder(path) => {
            vec![open_any(path, &OpenOptions::default())?.pictures]
        }
    };
    let pictures: Vec<&dyn Pictures> = datasets.iter().map(|data| &**data).collect();
    let set = encoder.datasets(&pictures, keep, observer)?;
    Ok(TrainingData::Pictures(set))
}

/// The pictures that were drawn for a skill.
fn drawn(run: &Run, skill: &str) -> Result<Box<dyn Pictures>, SelmaError> {
    let folder = run.layout.images_of(skill);
    if !folder.join(METADATA_FILE).is_file() {
        return Err(SelmaError::MissingStage {
            path: folder.join(METADATA_FILE),
            stage: "images",
        });
    }
    Ok(Box::new(Dataset::open(&folder)?))
}

/// The best picture of each prompt, if it is good enough.
fn best(pictures: Box<dyn Pictures>, minimum: f64) -> Result<Box<dyn Pictures>, SelmaError> {
    let scores = scores(&*pictures)?;
    let config = SelectConfig {
        minimums: [(JUDGE.to_owned(), minimum)].into(),
        rank_by: Some(JUDGE.to_owned()),
        ..SelectConfig::default()
    };
    let selection = select(&*pictures, &scores, &config)?;
    Ok(Box::new(Subset::new(pictures, selection.kept)?))
}

/// What the judge says of every picture; 0 for those about whose captions it has no questions.
fn scores(pictures: &dyn Pictures) -> Result<Scores, SelmaError> {
    let rows = (0..pictures.len()).map(|index| {
        let image = pictures.image(index)?;
        let text = pictures.text(index).unwrap_or_default();
        let score = faithfulness(&image, text)?.unwrap_or(0.0);
        Ok(Score::new(pictures, index, JUDGE, score)?)
    });
    let rows = rows.collect::<Result<Vec<Score>, SelmaError>>()?;
    Ok(Scores::from_rows(pictures.root(), &rows, pictures)?)
}

/// The share of the questions that the caption implies to which the oracle says yes. Captions outside the miniature's language have none.
fn faithfulness(image: &RgbImage, text: &str) -> Result<Option<f64>, SelmaError> {
    let Some(spec) = selma_mini::parse_caption(text) else {
        return Ok(None);
    };
    let questions = selma_mini::questions("item", text, &spec);
    let questions: Vec<&str> = questions.iter().map(|row| row.question.as_str()).collect();
    let answers = selma_eval::Vqa::answer(&selma_mini::OracleVqa, image, &questions)?;
    let yes = answers.iter().filter(|answer| *answer == "yes").count();
    Ok(Some(yes as f64 / answers.len().max(1) as f64))
}

/// The prompts of a skill as the miniature world itself draws them: a data set that is made when it is first needed.
fn truth(run: &Run, skill: &str) -> Result<Box<dyn Pictures>, SelmaError> {
    let folder = run.layout.truth_of(skill);
    if !folder.join(METADATA_FILE).is_file() {
        let path = run.layout.prompts_of(skill);
        if !path.is_file() {
            return Err(SelmaError::MissingStage {
                path,
                stage: "prompts",
            });
        }
        let mut writer = DatasetWriter::open(&folder)?;
        for (prompt, number) in read_prompts(&path)?.iter().zip(0..) {
            let name = file_name(&prompt.id);
            let Some(spec) = selma_mini::parse_caption(&prompt.text) else {
                continue;
            };
            if writer.contains(&name) {
                continue;
            }
            // What the prompt leaves open is drawn at random.
            let seed = run.seed(&format!("truth of {skill}"), &[number]);
            let scene = selma_mini::layout(&spec, &mut ChaCha8Rng::seed_from_u64(seed))?;
            let provenance = Provenance {
                skill: skill.to_owned(),
                prompt_id: prompt.id.clone(),
                model: "the miniature world".to_owned(),
                seed,
                ..Provenance::default()
            };
            writer.push(&name, &selma_mini::render(&scene), &prompt.text, provenance)?;
        }
        writer.finish()?;
    }
    Ok(Box::new(Dataset::open(&folder)?))
}
