//! All adapters of a run: what is trained on which data, and what is mixed and merged of it.

use std::collections::BTreeSet;

use selma_train::{TrainConfig, ValidTrainConfig};

use crate::further::{
    FurtherMixture, FurtherTraining, MixtureKind, TrainingPictures, with_settings,
};
use crate::recipe::FILTERED;
use crate::report::ModelKind;
use crate::{MergeMethod, Recipe, SelmaError};

/// Name of the model without an adapter.
pub(crate) const BASE: &str = "base";

/// Name of the model that draws the pictures to train on, where that is another.
pub(crate) const TEACHER: &str = "teacher";

/// Name of the adapter on the data of all skills.
const UNION: &str = "union";

/// An adapter to train, or a mixture of some that are trained before.
#[derive(Debug, Clone)]
pub(crate) struct PlannedTraining {
    pub(crate) name: String,
    /// Of whose data; none for a data set from elsewhere.
    pub(crate) skills: Vec<String>,
    pub(crate) pictures: TrainingPictures,
    pub(crate) config: ValidTrainConfig,
    /// The experts of a mixture, and what is learned of it; none for an adapter.
    pub(crate) mixture: Option<(Vec<String>, MixtureKind)>,
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

impl PlannedMerge {
    /// What the merged model is called.
    pub(crate) fn model_name(&self) -> String {
        format!("merged-{}", self.name)
    }
}

/// What a recipe trains, in order: the experts, the union, the experts on faultless pictures, what else it asks for, and mixtures.
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
                mixture: None,
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
                mixture: None,
                kind: Some(ModelKind::Union),
                set: None,
            });
        }
    }
    for further in &recipe.trainings {
        trainings.extend(planned(further, skills, common)?);
    }
    for mixture in &recipe.mixtures {
        let planned = mixed(mixture, skills, common, &trainings)?;
        trainings.push(planned);
    }
    Ok(trainings)
}

/// The adapters of one entry of `[[trainings]]`.
fn planned(
    further: &FurtherTraining,
    all: &[String],
    common: impl Fn(usize) -> TrainConfig,
) -> Result<Vec<PlannedTraining>, SelmaError> {
    let what = format!("trainings, {}", further.name);
    let wrong = |field: &str, expected: &str, found: String| SelmaError::Setting {
        field: format!("{what}: {field}"),
        expected: expected.to_owned(),
        found,
    };
    let training = |name: String, skills: &[String], kind| {
        let common = common(skills.len().max(1));
        let config = with_settings(&common, &further.settings, &what)?;
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
            mixture: None,
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
    let skills = chosen(&further.skills, all, &what)?;
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

/// The mixture of one entry of `[[mixtures]]`.
fn mixed(
    further: &FurtherMixture,
    all: &[String],
    common: impl Fn(usize) -> TrainConfig,
    trainings: &[PlannedTraining],
) -> Result<PlannedTraining, SelmaError> {
    let what = format!("mixtures, {}", further.name);
    let of = members(&further.of, &what, trainings)?;
    let skills = chosen(&further.skills, all, &what)?;
    let most = of.len();
    if let MixtureKind::TopK(count) = further.mixing
        && !(1..=most).contains(&count)
    {
        return Err(SelmaError::Setting {
            field: format!("{what}: mixing.top_k"),
            expected: format!("1 to {most}, the number of experts"),
            found: count.to_string(),
        });
    }
    Ok(PlannedTraining {
        name: further.name.clone(),
        skills: skills.to_vec(),
        pictures: TrainingPictures::Own,
        config: with_settings(&common(1), &further.settings, &what)?,
        mixture: Some((of, further.mixing)),
        kind: Some(ModelKind::Other),
        set: None,
    })
}

/// The named skills, or all.
fn chosen<'a>(
    named: &'a [String],
    all: &'a [String],
    what: &str,
) -> Result<&'a [String], SelmaError> {
    if let Some(unknown) = named.iter().find(|skill| !all.contains(skill)) {
        return Err(SelmaError::Setting {
            field: format!("{what}: skills"),
            expected: all.join(", "),
            found: unknown.clone(),
        });
    }
    Ok(match named {
        [] => all,
        some => some,
    })
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
        let what = format!("merges, {}", further.name);
        let of = members(&further.of, &what, trainings)?;
        further.method.validate(of.len())?;
        merges.push(PlannedMerge {
            name: further.name.clone(),
            of,
            method: further.method.clone(),
        });
    }
    Ok(merges)
}

/// The adapters that names stand for.
fn members(
    names: &[String],
    what: &str,
    trainings: &[PlannedTraining],
) -> Result<Vec<String>, SelmaError> {
    let mut members = Vec::new();
    for name in names {
        let of_name = |training: &&PlannedTraining| {
            let is_named = training.name == *name || training.set.as_ref() == Some(name);
            is_named && training.mixture.is_none()
        };
        let before = members.len();
        let found = trainings.iter().filter(of_name);
        members.extend(found.map(|training| training.name.clone()));
        if members.len() == before {
            return Err(SelmaError::Setting {
                field: format!("{what}: of"),
                expected: "names of skills and of `[[trainings]]`".to_owned(),
                found: name.clone(),
            });
        }
    }
    if members.is_empty() {
        return Err(SelmaError::Setting {
            field: format!("{what}: of"),
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
    let merged = merges.iter().map(PlannedMerge::model_name);
    let mut names = BTreeSet::from([BASE, TEACHER].map(str::to_owned));
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
            [[mixtures]]
            name = "router"
            of = ["coco", "dpo"]
            mixing = "router"
            settings = { learning_rate = 1e-5 }
            [[mixtures]]
            name = "two-of-five"
            of = ["dpo"]
            mixing = { top_k = 2 }
            skills = ["coco"]
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
        let [mix, dpo @ .., photographs, best, router, two] = &trainings[11..] else {
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
        let mixed = |training: &PlannedTraining| training.mixture.clone().unwrap();
        assert_eq!(mixed(router).0.len(), 6);
        assert_eq!((router.skills.len(), router.config.steps), (5, 160));
        assert_eq!((mixed(two).1, two.skills.len()), (MixtureKind::TopK(2), 1));
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
            ("[[trainings]]\nname = \"teacher\"", "teacher twice"),
            ("[[trainings]]\nname = \"a/b\"", "a/b"),
            (
                "[[merges]]\nname = \"x\"\nof = [\"dpo\"]\nmethod = \"mean\"",
                "dpo",
            ),
            (
                "[[mixtures]]\nname = \"x\"\nof = [\"coco\"]\nmixing = { top_k = 2 }",
                "1 to 1",
            ),
            (
                "[[mixtures]]\nname = \"x\"\nof = [\"coco\"]\nmixing = \"router\"\n[[merges]]\nname = \"y\"\nof = [\"x\"]\nmethod = \"mean\"",
                "found x",
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
