//! What several runs of one recipe with different seeds show together.

use selma_eval::{EvalResult, compare, pool};

use super::eval::{chosen_guidance, load};
use crate::report::{SeedRow, SeedTable};
use crate::{Recipe, Run, SelmaError};

/// Sets runs side by side that differ in nothing but name and seed. Each model is taken at the guidance that its own run
/// chose, and is compared to the base of its own run, on the same prompts from the same noise.
///
/// # Errors
///
/// [`SelmaError::Setting`] for fewer than two runs, recipes that differ in more than name and seed, or two with one seed
/// or one name; [`SelmaError::MissingStage`] where an evaluation is not finished.
pub fn compare_seeds(runs: &[Run]) -> Result<SeedTable, SelmaError> {
    let first = check(runs)?;
    let names: Vec<String> = runs.iter().map(|run| run.recipe.name.clone()).collect();
    let together = |results: &[EvalResult]| pool(names.iter().cloned().zip(results));
    let mut base: Option<(Vec<EvalResult>, EvalResult)> = None;
    let mut models = Vec::new();
    for (index, model) in first.models().into_iter().enumerate() {
        let of_run = |run: &Run| {
            // The runs have the same models; only the folders of their adapters differ.
            let own = run
                .models()
                .into_iter()
                .nth(index)
                .unwrap_or_else(|| model.clone());
            load(run, &own, "test", chosen_guidance(run, &own)?)
        };
        let results: Vec<EvalResult> = runs.iter().map(of_run).collect::<Result<_, _>>()?;
        let pooled = together(&results)?;
        let mut row = SeedRow {
            name: model.name.clone(),
            scores: results.iter().map(|result| result.overall).collect(),
            differences: Vec::new(),
            together: pooled.overall,
            difference_together: None,
        };
        match &base {
            None => base = Some((results, pooled)),
            Some((of_runs, of_all)) => {
                let pairs = results.iter().zip(of_runs);
                row.differences = pairs
                    .map(|(result, base)| compare(result, base))
                    .collect::<Result<_, _>>()?;
                row.difference_together = Some(compare(&pooled, of_all)?);
            }
        }
        models.push(row);
    }
    Ok(SeedTable {
        runs: names,
        models,
    })
}

/// The first of runs that can be compared.
fn check(runs: &[Run]) -> Result<&Run, SelmaError> {
    let wrong = |field: &str, expected: &str, found: String| {
        Err(SelmaError::Setting {
            field: field.to_owned(),
            expected: expected.to_owned(),
            found,
        })
    };
    let Some((first, others)) = runs.split_first().filter(|(_, others)| !others.is_empty()) else {
        return wrong("runs", "two or more", runs.len().to_string());
    };
    for (index, run) in others.iter().enumerate() {
        let before = || runs.iter().take(index + 1).map(|run| &run.recipe);
        let Recipe { name, seed, .. } = &run.recipe;
        if before().any(|other| other.seed == *seed) {
            return wrong("seed", "another one in each run", format!("{seed} twice"));
        }
        if before().any(|other| other.name == *name) {
            return wrong("name", "another one in each run", format!("{name} twice"));
        }
        let same = Recipe {
            name: first.recipe.name.clone(),
            seed: first.recipe.seed,
            ..run.recipe.clone()
        };
        if same != first.recipe {
            let expected = format!(
                "the settings of {}, but for name and seed",
                first.recipe.name
            );
            return wrong("runs", &expected, format!("others in {name}"));
        }
    }
    Ok(first)
}
