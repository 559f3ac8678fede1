//! All adapters of a run: what is trained on which data, and what is merged of it.

use std::collections::BTreeSet;

use selma_train::{TrainConfig, ValidTrainConfig};

use crate::further::{FurtherMerge, FurtherTraining, TrainingPictures};
use crate::recipe::FILTERED;
use crate::report::ModelKind;
use crate::{MergeMethod, Recipe, SelmaError};

/// Name of the adapter on the data of all skills.
const UNION: &str = "union";

/// An adapter to train.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTraining {
    pub(crate) name: String,
    /// Of whose data; none for a data set from elsewhere.
    pub(crate) skills: Vec<String>,
    pub(crate) pictures: TrainingPictures,
    pub(crate) config: ValidTrainConfig,
    /// The part it plays in the comparison, if it is compared by itself.
    pub(crate) kind: Option<ModelKind>,
    /// What it is called together with others.
    set: Option<String>,
}

/// A model to merge.
#[derive(Debug, Clone)]
pub(crate) struct PlannedMerge {
    /// Name of the file; the model is called `merged-NAME`.
    pub(crate) name: String,
    /// Names of trained adapters.
    pub(crate) of: Vec<String>,
    pub(crate) method: MergeMethod,
}

/// What a recipe trains, in order: the experts, the union, the experts on faultless pictures, and what else it asks for.
///
/// # Errors
///
/// [`SelmaError::Setting`] for skills that are not the recipe's, and settings that cannot be used.
pub(crate) fn trainings(
    recipe: &Recipe,
    skills: &[String],
    seed: u64,
) -> Result<Vec<PlannedTraining>, SelmaError> {
    let stage = &recipe.train;
    // One seed for all, so that all experts start from the same factors.
    let common = |factor: usize| TrainConfig {
        steps: stage.settings.steps * factor,
        data_weights: Vec::new(),
        seed,
        ..stage.settings.clone()
    };
    let mut trainings = Vec::new();
    for &arm in stage.arms() {
        let filtered = arm == FILTERED;
        for skill in skills {
            trainings.push(PlannedTraining {
                name: format!("{skill}{arm}"),
                skills: vec![skill.clone()],
                pictures: match filtered {
                    true => TrainingPictures::Faultless,
                    false => TrainingPictures::Own,
                },
                config: common(1).validate()?,
                kind: (!filtered).then_some(ModelKind::Expert),
                set: None,
            });
        }
        if !filtered && stage.union {
            trainings.push(PlannedTraining {
                name: UNION.to_owned(),
                skills: skills.to_vec(),
                pictures: TrainingPictures::Own,
                config: TrainConfig {
                    data_weights: stage.settings.data_weights.clone(),
                    ..common(skills.len())
                }
                .validate()?,
                kind: Some(ModelKind::Union),
                set: None,
            });
        }
    }
    for further in &recipe.trainings {
        trainings.extend(planned(further, skills, common)?);
    }
    Ok(trainings)
}

/// The adapters of one entry of `[[trainings]]`.
fn planned(
    further: &FurtherTraining,
    all: &[String],
    common: impl Fn(usize) -> TrainConfig,
) -> Result<Vec<PlannedTraining>, SelmaError> {
    let wrong = |field: &str, expected: &str, found: String| SelmaError::Setting {
        field: format!("trainings, {}: {field}", further.name),
        expected: expected.to_owned(),
        found,
    };
    if let Some(unknown) = further.skills.iter().find(|skill| !all.contains(skill)) {
        return Err(wrong("skills", &all.join(", "), unknown.clone()));
    }
    let training = |name: String, skills: &[String], kind| {
        let config = further.config(&common(skills.len().max(1)))?;
        let weights = config.data_weights.len();
        if weights != 0 && weights != skills.len() {
            let expected = format!("a weight for each of {} skills", skills.len());
            return Err(wrong("data_weights", &expected, weights.to_string()));
        }
        Ok(PlannedTraining {
            name,
            skills: skills.to_vec(),
            pictures: further.data.clone(),
            config,
            kind,
            set: further.each.then(|| further.name.clone()),
        })
    };
    let other = Some(ModelKind::Other);
    if let TrainingPictures::Folder(_) = further.data {
        if further.each || !further.skills.is_empty() {
            let expected = "none, as the pictures of a folder belong to none";
            return Err(wrong("skills and each", expected, "some".to_owned()));
        }
        return Ok(vec![training(further.name.clone(), &[], other)?]);
    }
    let skills = match further.skills.as_slice() {
        [] => all,
        some => some,
    };
    if further.each {
        let each = skills.iter().map(|skill| {
            let name = format!("{skill}-{}", further.name);
            training(name, std::slice::from_ref(skill), None)
        });
        return each.collect();
    }
    if further.data == TrainingPictures::Pairs && skills.len() > 1 {
        let expected = "true for pairs, which are those of one skill";
        return Err(wrong("each", expected, "false".to_owned()));
    }
    Ok(vec![training(further.name.clone(), skills, other)?])
}

/// What a recipe merges, in order: the experts by every method, those on faultless pictures likewise, and what else it asks for.
///
/// # Errors
///
/// [`SelmaError::Setting`] for adapters that are not trained, and methods that cannot be used for as many as there are.
pub(crate) fn merges(
    recipe: &Recipe,
    skills: &[String],
    trainings: &[PlannedTraining],
) -> Result<Vec<PlannedMerge>, SelmaError> {
    let mut merges = Vec::new();
    for arm in recipe.train.arms() {
        for method in &recipe.merge.methods {
            merges.push(PlannedMerge {
                name: format!("{}{arm}", method.name),
                of: skills.iter().map(|skill| format!("{skill}{arm}")).collect(),
                method: method.clone(),
            });
        }
    }
    for further in &recipe.merges {
        let of = members(further, trainings)?;
        further.method.validate(of.len())?;
        merges.push(PlannedMerge {
            name: further.name.clone(),
            of,
            method: further.method.clone(),
        });
    }
    Ok(merges)
}

/// The adapters that one entry of `[[merges]]` is made of.
fn members(
    further: &FurtherMerge,
    trainings: &[PlannedTraining],
) -> Result<Vec<String>, SelmaError> {
    let mut members = Vec::new();
    for name in &further.of {
        let of_name = |training: &&PlannedTraining| {
            training.name == *name || training.set.as_ref() == Some(name)
        };
        let before = members.len();
        let found = trainings.iter().filter(of_name);
        members.extend(found.map(|training| training.name.clone()));
        if members.len() == before {
            return Err(SelmaError::Setting {
                field: format!("merges, {}: of", further.name),
                expected: "names of skills and of `[[trainings]]`".to_owned(),
                found: name.clone(),
            });
        }
    }
    if members.is_empty() {
        return Err(SelmaError::Setting {
            field: format!("merges, {}: of", further.name),
            expected: "at least one adapter".to_owned(),
            found: "none".to_owned(),
        });
    }
    Ok(members)
}

/// Refuses adapters and models whose results would overwrite each other.
///
/// # Errors
///
/// [`SelmaError::Setting`] with the name that stands twice.
pub(crate) fn check_names(
    trainings: &[PlannedTraining],
    merges: &[PlannedMerge],
) -> Result<(), SelmaError> {
    let trained = trainings.iter().map(|training| training.name.clone());
    let merged = merges.iter().map(|merge| format!("merged-{}", merge.name));
    let mut names = BTreeSet::from(["base".to_owned()]);
    for name in trained.chain(merged) {
        if let Some(name) = names.replace(name) {
            return Err(SelmaError::Setting {
                field: "prompts.skills, trainings and merges".to_owned(),
                expected: "names that no other skill or model has".to_owned(),
                found: format!("{name} twice"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SKILLS: [&str; 5] = [
        "localized_narratives",
        "diffusion_db",
        "count_bench",
        "coco",
        "whoops",
    ];

    fn plan(further: &str) -> Result<(Vec<PlannedTraining>, Vec<PlannedMerge>), SelmaError> {
        let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/mini.toml");
        let text = std::fs::read_to_string(mini).unwrap() + further;
        let recipe: Recipe = toml::from_str(&text).unwrap();
        // What a run keeps of it is read back.
        let kept = serde_json::to_vec(&recipe).unwrap();
        assert_eq!(serde_json::from_slice::<Recipe>(&kept).unwrap(), recipe);
        recipe.validate()?;
        let skills = SKILLS.map(str::to_owned);
        let trainings = trainings(&recipe, &skills, 1)?;
        let merges = merges(&recipe, &skills, &trainings)?;
        check_names(&trainings, &merges)?;
        Ok((trainings, merges))
    }

    #[test]
    fn without_more_it_is_selma_and_its_comparisons() {
        let (trainings, merges) = plan("").unwrap();
        let names: Vec<&str> = trainings.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names[..5], SKILLS);
        assert_eq!(names[5], "union");
        assert_eq!(names[6..], SKILLS.map(|skill| format!("{skill}-filtered")));
        let steps: Vec<usize> = trainings.iter().map(|t| t.config.steps).collect();
        assert_eq!((steps[0], steps[5], steps[6]), (160, 800, 160));
        let names: Vec<&str> = merges.iter().map(|m| m.name.as_str()).collect();
        let expected = [
            "mean",
            "factor_mean",
            "mean-filtered",
            "factor_mean-filtered",
        ];
        assert_eq!(names, expected);
        assert_eq!(merges[2].of[3], "coco-filtered");
    }

    #[test]
    fn more_can_be_trained_and_merged() {
        let (trainings, merges) = plan(
            r#"
            [[trainings]]
            name = "mix3"
            skills = ["count_bench", "coco", "whoops"]
            settings = { rank = 8 }
            [[trainings]]
            name = "dpo"
            each = true
            data = "pairs"
            settings = { learning_rate = 1e-4, steps = 20, dpo_beta = 500.0 }
            [[trainings]]
            name = "photographs"
            data = { folder = "photographs" }
            [[trainings]]
            name = "best"
            data = { best = 0.9 }
            [[merges]]
            name = "dpo"
            of = ["dpo"]
            method = "mean"
            [[merges]]
            name = "two"
            of = ["coco", "mix3"]
            method = { method = "svd", rank = 8, weights = [1.0, 0.5] }
            "#,
        )
        .unwrap();
        let [mix, dpo @ .., photographs, best] = &trainings[11..] else {
            unreachable!()
        };
        assert_eq!((mix.config.rank, mix.config.steps), (8, 480));
        assert_eq!((mix.kind, dpo[0].kind), (Some(ModelKind::Other), None));
        assert_eq!(dpo.len(), 5);
        assert_eq!(
            (dpo[3].name.as_str(), dpo[3].config.steps),
            ("coco-dpo", 20)
        );
        assert_eq!((photographs.skills.len(), best.skills.len()), (0, 5));
        assert_eq!(merges[4].of.len(), 5);
        assert_eq!(merges[5].of, ["coco", "mix3"]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (further, part) in [
            ("[[trainings]]\nname = \"x\"\nskills = [\"cocoa\"]", "cocoa"),
            ("[[trainings]]\nname = \"x\"\nsettings = { rnk = 3 }", "rnk"),
            (
                "[[trainings]]\nname = \"x\"\nsettings = { rank = 0 }",
                "rank",
            ),
            (
                "[[trainings]]\nname = \"x\"\nsettings = { seed = 3 }",
                "derived",
            ),
            ("[[trainings]]\nname = \"x\"\ndata = \"pairs\"", "each"),
            (
                "[[trainings]]\nname = \"x\"\neach = true\ndata = { folder = \"x\" }",
                "each",
            ),
            (
                "[[trainings]]\nname = \"x\"\nsettings = { data_weights = [1.0, 2.0] }",
                "each of 5 skills",
            ),
            ("[[trainings]]\nname = \"union\"", "union twice"),
            ("[[trainings]]\nname = \"a/b\"", "a/b"),
            (
                "[[merges]]\nname = \"x\"\nof = [\"dpo\"]\nmethod = \"mean\"",
                "dpo",
            ),
            (
                "[[merges]]\nname = \"x\"\nof = []\nmethod = \"mean\"",
                "at least one",
            ),
            (
                "[[merges]]\nname = \"mean\"\nof = [\"coco\"]\nmethod = \"mean\"",
                "merged-mean twice",
            ),
            (
                "[[merges]]\nname = \"x\"\nof = [\"coco\"]\nmethod = { method = \"mean\", weights = [1.0, 2.0] }",
                "1 weights",
            ),
        ] {
            let error = plan(further).unwrap_err().to_string();
            assert!(error.contains(part), "{further}: {error}");
        }
    }
}
