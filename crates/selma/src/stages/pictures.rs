//! The pictures that an adapter is trained on.

use std::cell::RefCell;

use image::RgbImage;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use selma_dataset::{
    Dataset, DatasetWriter, METADATA_FILE, OpenOptions, PairRule, Pictures, Provenance, Scores,
    SelectConfig, Subset, make_pairs, open_any, select,
};
use selma_llm::read_prompts;
use selma_train::TrainError;

use super::chosen::{self, Chosen};
use super::held_back::Part;
use super::selection::{self, JUDGE, faithfulness};
use crate::adapters::PlannedTraining;
use crate::draw::file_name;
use crate::further::TrainingPictures;
use crate::{DataEncoder, Run, RunObserver, Selector, SelmaError, TrainingData};

/// Collects and encodes what an adapter is trained on, or watched by.
pub(super) fn training_data(
    run: &Run,
    training: &PlannedTraining,
    part: Part,
    encoder: DataEncoder<'_>,
    observer: &mut RunObserver<'_>,
) -> Result<TrainingData, SelmaError> {
    let drawn = |skill: &String| part.of(run, drawn(run, skill)?);
    let own = || training.skills.iter().map(drawn);
    let own_by_skill = || training.skills.iter().zip(own());
    let mut chosen = Vec::new();
    let is_oracle = run.recipe.selection.judge == Selector::Oracle;
    let mut score =
        |pictures: &dyn Pictures| selection::scores(run, pictures, &training.name, observer);
    // What the oracle said, in the order of the pictures.
    let said = RefCell::new(Vec::new());
    let ask_oracle = |image: &RgbImage, text: &str| {
        let is_faultless = faithfulness(image, text)? == Some(1.0);
        said.borrow_mut().push(is_faultless);
        Ok(is_faultless)
    };
    let mut keep: &dyn Fn(&RgbImage, &str) -> Result<bool, SelmaError> = &|_, _| Ok(true);
    let datasets: Vec<Box<dyn Pictures>> = match &training.pictures {
        TrainingPictures::Own => own().collect::<Result<_, _>>()?,
        TrainingPictures::Faultless if is_oracle => {
            keep = &ask_oracle;
            own().collect::<Result<_, _>>()?
        }
        TrainingPictures::Faultless | TrainingPictures::Best(_) => own_by_skill()
            .map(|(skill, pictures)| {
                let (pictures, of_skill) = match training.pictures {
                    TrainingPictures::Best(minimum) => best(skill, pictures?, minimum, &mut score)?,
                    _ => faultless(skill, pictures?, &mut score)?,
                };
                chosen.push(of_skill);
                Ok(pictures)
            })
            .collect::<Result<_, SelmaError>>()?,
        TrainingPictures::Pairs => {
            // Planned for one skill alone.
            let mut own = own_by_skill();
            let (skill, pictures) = own.next().ok_or(TrainError::NoData)?;
            let pictures = pictures?;
            let scores = score(&*pictures)?;
            let (pairs, _) = make_pairs(&*pictures, &scores, JUDGE, PairRule::BestWorst)?;
            let of_skill = Chosen {
                skill: skill.clone(),
                drawn: pictures.len(),
                passed: pictures.len(),
                used: 2 * pairs.len(),
            };
            chosen::keep(run, training, part, &[of_skill])?;
            let set = encoder.pairs(&*pictures, &pairs, observer)?;
            return Ok(TrainingData::Pairs(set));
        }
        TrainingPictures::Truth => {
            let skills = training.skills.iter();
            skills
                .map(|skill| part.of(run, truth(run, skill)?))
                .collect::<Result<_, _>>()?
        }
        TrainingPictures::Folder(path) => {
            let pictures = open_any(path, &OpenOptions::default())?.pictures;
            vec![part.of(run, pictures)?]
        }
    };
    let pictures: Vec<&dyn Pictures> = datasets.iter().map(|data| &**data).collect();
    let set = encoder.datasets(&pictures, keep, observer)?;
    let said = said.into_inner();
    if !said.is_empty() {
        let mut said = said.into_iter();
        for (skill, pictures) in training.skills.iter().zip(&pictures) {
            let of_skill = said.by_ref().take(pictures.len());
            let kept = of_skill.filter(|is_faultless| *is_faultless).count();
            chosen.push(Chosen {
                skill: skill.clone(),
                drawn: pictures.len(),
                passed: kept,
                used: kept,
            });
        }
    }
    chosen::keep(run, training, part, &chosen)?;
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

/// Asks the judge about the pictures of a data set.
type Score<'a> = dyn FnMut(&dyn Pictures) -> Result<Scores, SelmaError> + 'a;

/// Pictures that were chosen, and how many they are.
type Choice = (Box<dyn Pictures>, Chosen);

/// The pictures in which the judge finds no fault.
fn faultless(
    skill: &str,
    pictures: Box<dyn Pictures>,
    score: &mut Score<'_>,
) -> Result<Choice, SelmaError> {
    let scores = score(&*pictures)?;
    let is_faultless = |index: &usize| scores.get(JUDGE, *index) == Some(1.0);
    let kept: Vec<usize> = (0..pictures.len()).filter(is_faultless).collect();
    let chosen = Chosen {
        skill: skill.to_owned(),
        drawn: pictures.len(),
        passed: kept.len(),
        used: kept.len(),
    };
    Ok((Box::new(Subset::new(pictures, kept)?), chosen))
}

/// The best picture of each prompt, if it is good enough.
fn best(
    skill: &str,
    pictures: Box<dyn Pictures>,
    minimum: f64,
    score: &mut Score<'_>,
) -> Result<Choice, SelmaError> {
    let scores = score(&*pictures)?;
    let config = SelectConfig {
        minimums: [(JUDGE.to_owned(), minimum)].into(),
        rank_by: Some(JUDGE.to_owned()),
        ..SelectConfig::default()
    };
    let selection = select(&*pictures, &scores, &config)?;
    let chosen = Chosen {
        skill: skill.to_owned(),
        drawn: selection.report.pictures,
        passed: selection.report.pictures - selection.report.failed,
        used: selection.report.kept,
    };
    let pictures = Subset::new(pictures, selection.kept)?;
    Ok((Box::new(pictures), chosen))
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
