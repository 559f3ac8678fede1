//! What a merge did.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::{Merge, Weighted};

/// What a merge did, in all and module by module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergeReport {
    /// The recipe.
    pub merge: Merge,
    /// The adapters that went in, in order.
    pub inputs: Vec<MergeInput>,
    /// Frobenius norm of the whole update, before truncation; from the [norms](ModuleReport::norm) of all modules.
    pub norm: f64,
    /// Frobenius norm of what truncation cut off, relative to [`norm`](Self::norm).
    pub truncation_error: f64,
    /// The largest self-check of any module.
    pub self_check: f64,
    /// The largest [rounding](ModuleReport::rounding) of any module.
    pub rounding: f64,
    /// Every module, by path.
    pub modules: Vec<ModuleReport>,
}

/// An adapter that went into a merge.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MergeInput {
    /// SHA-256 of its file; of its content ([`Adapter::sha256`](crate::Adapter::sha256)) when it
    /// was made in memory.
    pub sha256: String,
    /// Its weight.
    pub weight: f64,
}

impl From<&Weighted<'_>> for MergeInput {
    fn from(input: &Weighted<'_>) -> Self {
        Self {
            sha256: input.adapter.origin_sha256(),
            weight: input.weight,
        }
    }
}

/// What a merge did to one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModuleReport {
    /// The module's path.
    pub module: String,
    /// Shape of the weight, `[out, in]` or `[out, in, kh, kw]`.
    pub weight: Vec<usize>,
    /// Rank in every input; `None` where the input lacks the module.
    pub ranks: Vec<Option<usize>>,
    /// Rank of the result.
    pub rank: usize,
    /// Frobenius norm `||M||` of the update `M`, before truncation. For a sum or a mean that keeps all its
    /// ranks, estimated from the random vectors of the self-check: within a few percent, but for
    /// updates of a rank of one or two, where it can be off by half.
    pub norm: f64,
    /// `||M - BA|| / ||M||`, from the singular values that were cut off; 0 without truncation.
    pub truncation_error: f64,
    /// The result against the formula on random vectors, relative to the size of the formula's
    /// terms: rounding, about 1e-7. What was truncated is compared with the best that the columns of the
    /// merged `B` can do.
    pub self_check: f64,
    /// What rounding to the number type of the file changes on random vectors, relative to the update; 0 for
    /// [`Dtype::F32`](crate::Dtype::F32) and for merges in memory, which are not stored yet.
    pub rounding: f64,
}

impl MergeReport {
    pub(super) fn new(merge: Merge, inputs: Vec<MergeInput>, modules: Vec<ModuleReport>) -> Self {
        let squared: f64 = modules.iter().map(|m| m.norm * m.norm).sum();
        let lost: f64 = modules
            .iter()
            .map(|m| (m.norm * m.truncation_error).powi(2))
            .sum();
        Self {
            merge,
            inputs,
            norm: squared.sqrt(),
            truncation_error: if squared > 0.0 {
                (lost / squared).sqrt()
            } else {
                0.0
            },
            self_check: modules.iter().map(|m| m.self_check).fold(0.0, f64::max),
            rounding: modules.iter().map(|m| m.rounding).fold(0.0, f64::max),
            modules,
        }
    }
}

/// The recipe as it is recorded in the merged file.
pub(super) fn recipe(merge: &Merge, inputs: &[MergeInput]) -> String {
    let mut recipe = json!(merge);
    if let Value::Object(recipe) = &mut recipe {
        if let Some(masks) = &merge.masks {
            recipe.insert("masks".to_owned(), json!(masks.sha256()));
        }
        if let Some(calibration) = &merge.calibration {
            recipe.insert("calibration".to_owned(), json!(calibration.sha256()));
        }
        recipe.insert("inputs".to_owned(), json!(inputs));
    }
    recipe.to_string()
}

/// What says which model an adapter is for, and with it how programs read the file.
const OF_THE_MODEL: [&str; 3] = ["ss_base_model_version", "ss_v2", "modelspec.architecture"];

/// The notes on the model that all inputs agree on.
pub(super) fn common_notes<'a>(
    inputs: impl IntoIterator<Item = &'a BTreeMap<String, String>>,
) -> BTreeMap<String, String> {
    let inputs: Vec<_> = inputs.into_iter().collect();
    let agreed = OF_THE_MODEL.into_iter().filter_map(|key| {
        let first = inputs.first()?.get(key)?;
        let same = inputs.iter().all(|notes| notes.get(key) == Some(first));
        same.then(|| (key.to_owned(), first.clone()))
    });
    agreed.collect()
}
