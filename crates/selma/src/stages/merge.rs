//! Stage 4: the experts are merged.

use selma_durable::{create_folder, write_json};
use selma_lora::merge::Weighted;
use selma_lora::{Adapter, Dtype, Format};

use super::prompts::finished;
use crate::{Run, RunObserver, SelmaError};

/// Merges the experts by every method.
pub(crate) fn run(run: &Run, observer: &mut RunObserver<'_>) -> Result<(), SelmaError> {
    for arm in run.recipe.train.arms() {
        let mut experts: Option<Vec<Adapter>> = None;
        for method in &run.recipe.merge.methods {
            let name = format!("{}{arm}", method.name);
            let path = run.layout.merged(&name);
            let before = path.is_file();
            if !before {
                if let Some(folder) = path.parent() {
                    create_folder(folder)?;
                }
                let loaded = match experts.take() {
                    Some(loaded) => loaded,
                    None => load(run, arm)?,
                };
                let inputs: Vec<Weighted<'_>> = loaded
                    .iter()
                    .zip(method.weights(loaded.len()))
                    .map(|(adapter, weight)| Weighted { adapter, weight })
                    .collect();
                let (merged, report) = method.loaded()?.run(&inputs)?;
                write_json(&path.with_extension("json"), &report)?;
                merged.save(&path, Format::Diffusers, Dtype::F32)?;
                experts = Some(loaded);
            }
            finished(observer, &name, before)?;
        }
    }
    Ok(())
}

fn load(run: &Run, arm: &str) -> Result<Vec<Adapter>, SelmaError> {
    let mut experts = Vec::with_capacity(run.skills.len());
    for skill in &run.skills {
        let path = run.layout.adapter_of(&format!("{}{arm}", skill.name));
        if !path.is_file() {
            return Err(SelmaError::MissingStage {
                path,
                stage: "train",
            });
        }
        experts.push(Adapter::load(&path)?);
    }
    Ok(experts)
}
