//! Merges of PEFT, mergekit and published formulas, recorded by `tools/make_merge_fixtures.py`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use ndarray::{Array2, ArrayD, IxDyn};
use safetensors::SafeTensors;
use selma_lora::{
    Adapter, LoraModule, Merge, Method, Weighted,
    merge::{Calibration, Masks, Statistics},
};
use serde_json::Value;

/// The modules and the shapes of their weights, in the order of the recorded updates.
const MODULES: [(&str, usize); 3] = [
    ("unet.linear", 12 * 10),
    ("unet.conv", 5 * 27),
    ("unet.pointwise", 8 * 7),
];

struct Goldens {
    bytes: Vec<u8>,
    cases: serde_json::Map<String, Value>,
}

impl Goldens {
    fn load() -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/merge_goldens.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let cases = &metadata.metadata().as_ref().unwrap()["cases"];
        let cases = serde_json::from_str(cases).unwrap();
        Self { bytes, cases }
    }

    fn tensor(&self, name: &str) -> ArrayD<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file.tensor(name).unwrap();
        let (numbers, _) = tensor.data().as_chunks::<4>();
        let values = numbers.iter().map(|&b| f32::from_le_bytes(b)).collect();
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), values).unwrap()
    }

    fn adapters(&self, set: &str) -> [Adapter; 3] {
        ["a", "b", "c"].map(|name| {
            Adapter::new(MODULES.map(|(module, _)| {
                let part = |part: &str| self.tensor(&format!("in/{set}/{name}/{module}/{part}"));
                let alpha = f64::from(part("alpha")[0]);
                let factors = LoraModule::new(part("a"), part("b"), alpha).unwrap();
                (module.to_owned(), factors)
            }))
        })
    }

    /// The masks of a case under the names that [`Masks`] uses.
    fn masks(&self, case: &str) -> Option<Arc<Masks>> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let prefix = format!("mask/{case}/");
        let masks: BTreeMap<String, Vec<bool>> = file
            .iter()
            .filter_map(|(name, tensor)| {
                let mask = tensor.data().iter().map(|&byte| byte != 0).collect();
                Some((name.strip_prefix(&prefix)?.to_owned(), mask))
            })
            .collect();
        (!masks.is_empty()).then(|| Arc::new(Masks::new(masks)))
    }

    fn calibration(&self) -> Arc<Calibration> {
        let adapters = self.adapters("unequal");
        let modules = MODULES.map(|(module, _)| {
            let ranks = adapters.each_ref().map(|a| a.modules[module].rank());
            let mut statistics = Statistics::new(&ranks);
            for adapter in 0..3 {
                let z = self.tensor(&format!("z/ssr/{adapter}/{module}"));
                let z: Array2<f32> = z.into_dimensionality().unwrap();
                statistics.add(adapter, &z.view()).unwrap();
            }
            (module.to_owned(), statistics)
        });
        // As another program would hand it over.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.safetensors");
        let calibration: Calibration = modules.into_iter().collect();
        calibration.save(&path).unwrap();
        Arc::new(Calibration::load(&path).unwrap())
    }

    /// Runs a case; the largest relative error of a module's update.
    fn run(&self, case: &str) -> f64 {
        let mut options = self.cases[case].as_object().unwrap().clone();
        let set = options.remove("set").unwrap();
        let weights: Vec<f64> = serde_json::from_value(options.remove("weights").unwrap()).unwrap();
        let mut merge: Merge = serde_json::from_value(Value::Object(options)).unwrap();
        merge.masks = self.masks(case);
        if case == "ssr" {
            merge.calibration = Some(self.calibration());
        }
        let adapters = self.adapters(set.as_str().unwrap());
        let inputs: Vec<Weighted<'_>> = adapters
            .iter()
            .zip(weights)
            .map(|(adapter, weight)| Weighted { adapter, weight })
            .collect();
        let (merged, _) = merge.run(&inputs).unwrap();
        let recorded = self.tensor(&format!("out/{case}"));
        let mut expected = recorded.iter().map(|&x| f64::from(x));
        let mut worst = 0.0_f64;
        for (module, size) in MODULES {
            let found = merged.modules[module].delta_f64().unwrap();
            assert_eq!(found.len(), size);
            let (mut distance, mut norm) = (0.0, 0.0);
            for (x, y) in found.iter().zip(&mut expected) {
                distance += (x - y).powi(2);
                norm += y.powi(2);
            }
            worst = worst.max((distance / norm).sqrt());
        }
        worst
    }
}

#[test]
fn merges_are_those_of_the_references() {
    let goldens = Goldens::load();
    let mut failures = Vec::new();
    for case in goldens.cases.keys() {
        let error = goldens.run(case);
        // Through a decomposition errors grow by the gaps between singular values.
        let decomposed = ["svd", "core", "knots", "tsv"];
        let tolerance = if decomposed.iter().any(|name| case.contains(name)) {
            1e-5
        } else {
            1e-6
        };
        if error.is_nan() || error > tolerance {
            failures.push(format!("{case}: {error:e}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(goldens.cases.len(), 43);

    // No method is without a record, but these: the sums are held against PEFT in tests/parity.rs, the mean of
    // factors is one line, and LEGO starts from random numbers.
    let recorded: BTreeSet<&str> = goldens
        .cases
        .values()
        .filter_map(|case| case["method"].as_str())
        .collect();
    let missing: Vec<&str> = Method::ALL
        .into_iter()
        .map(Method::name)
        .filter(|name| !recorded.contains(name))
        .collect();
    assert_eq!(missing, ["mean", "sum", "svd", "factor_mean", "lego"]);
}
