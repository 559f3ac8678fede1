//! Stage 4: the experts are merged.

use selma_durable::{create_folder, write_json};
use selma_lora::merge::Weighted;
use selma_lora::{Adapter, Dtype, Format};

use super::prompts::finished;
use crate::{Run, RunObserver, SelmaError};

/// Merges what the recipe merges.
pub(crate) fn run(
    run: &Run,
    wanted: &dyn Fn(&str) -> bool,
    observer: &mut RunObserver<'_>,
) -> Result<(), SelmaError> {
    // Several merges in a row are of the same experts.
    let mut loaded: (&[String], Vec<Adapter>) = (&[], Vec::new());
    for merge in run.merges.iter().filter(|merge| wanted(&merge.name)) {
        let path = run.layout.merged(&merge.name);
        let before = path.is_file();
        if !before {
            if let Some(folder) = path.parent() {
                create_folder(folder)?;
            }
            if loaded.0 != merge.of {
                loaded = (&merge.of, load(run, &merge.of)?);
            }
            let experts = &loaded.1;
            let weights = merge.method.weights(experts.len());
            let inputs = experts.iter().zip(weights);
            let inputs: Vec<Weighted<'_>> = inputs
                .map(|(adapter, weight)| Weighted { adapter, weight })
                .collect();
            let (merged, report) = merge.method.loaded()?.run(&inputs)?;
            write_json(&path.with_extension("json"), &report)?;
            merged.save(&path, Format::Diffusers, Dtype::F32)?;
        }
        finished(observer, &merge.name, before)?;
    }
    Ok(())
}

/// Loads trained adapters.
pub(super) fn load(run: &Run, names: &[String]) -> Result<Vec<Adapter>, SelmaError> {
    let adapters = names.iter().map(|name| {
        let path = run.layout.adapter_of(name);
        if !path.is_file() {
            return Err(SelmaError::MissingStage {
                path,
                stage: "train",
            });
        }
        Ok(Adapter::load(&path)?)
    });
    adapters.collect()
}
