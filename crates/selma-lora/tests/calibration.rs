//! Files of the statistics of SSR-Merge, and merges by them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use ndarray::{Array, Array2};
use safetensors::{Dtype as Stored, SafeTensors, serialize, tensor::TensorView};
use selma_lora::{
    Adapter, AdapterReader, Dtype, Format, LoraError, LoraModule, Merge, Method, Weighted,
    WeightedFile,
    merge::{Calibration, Statistics},
};
use serde_json::{Value, json};

const TO_Q: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
const CONV: &str = "unet.mid_block.resnets.0.conv1";

fn numbers(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    let mut next = seed * 31 + 7;
    Array::from_shape_simple_fn((rows, columns), || {
        next = next * 1_103_515_245 % 2_147_483_647 + 12345;
        (next % 17) as f32 / 8.0 - 1.0
    })
}

/// Adapters of ranks 2 and 3.
fn adapters() -> [Adapter; 2] {
    [2, 3].map(|rank| {
        let module = |seed| {
            let (a, b) = (numbers(rank, 6, seed), numbers(5, rank, seed + 1));
            LoraModule::new(a.into_dyn(), b.into_dyn(), 1.0).unwrap()
        };
        Adapter::new([
            (TO_Q.to_owned(), module(10 * rank)),
            (CONV.to_owned(), module(11 * rank)),
        ])
    })
}

fn calibration(adapters: &[Adapter]) -> Calibration {
    let modules = [TO_Q, CONV].map(|path| {
        let mut statistics = Statistics::new(&[2, 3]);
        for adapter in 0..2 {
            let z = numbers(20, 5, path.len() + adapter);
            statistics.add(adapter, &z.view()).unwrap();
        }
        (path.to_owned(), statistics)
    });
    Calibration {
        adapters: adapters.iter().map(Adapter::sha256).collect(),
        modules: modules.into_iter().collect(),
    }
}

fn ssr(calibration: Calibration) -> Merge {
    Merge {
        calibration: Some(Arc::new(calibration)),
        ..Merge::new(Method::Ssr)
    }
}

#[test]
fn a_file_holds_all_of_it_and_is_always_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("calibration.safetensors");
    fs::write(&path, "what was there before").unwrap();
    let whole = calibration(&adapters());
    whole.save(&path).unwrap();
    let read = Calibration::load(&path).unwrap();
    assert_eq!(read, whole);
    assert_eq!(read.sha256(), whole.sha256());
    let again = folder.path().join("again");
    read.save(&again).unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes, fs::read(again).unwrap());

    // Row by row, as other programs have it: the second task's rows of Q are all of z_k z^T.
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |name: &str| {
        let tensor = file.tensor(&format!("{TO_Q}.{name}")).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (Stored::F64, &[5, 5][..]));
        let (values, _) = tensor.data().as_chunks::<8>();
        let values = values.iter().map(|&x| f64::from_le_bytes(x)).collect();
        Array2::from_shape_vec((5, 5), values).unwrap()
    };
    let moments = |adapter: usize| {
        let z = numbers(20, 5, TO_Q.len() + adapter).mapv(f64::from);
        z.t().dot(&z)
    };
    let close = |x: Array2<f64>, y: Array2<f64>| (x - y).iter().all(|d| d.abs() < 1e-12);
    assert!(close(tensor("g"), moments(0) + moments(1)));
    let rows = |x: &Array2<f64>, from, to| x.slice(ndarray::s![from..to, ..]).to_owned();
    assert!(close(rows(&tensor("q"), 0, 2), rows(&moments(0), 0, 2)));
    assert!(close(rows(&tensor("q"), 2, 5), rows(&moments(1), 2, 5)));
}

#[test]
fn records_tell_statistics_apart() {
    let whole = calibration(&adapters());
    let mut others = [whole.clone(), whole.clone(), whole.clone()];
    others[0].adapters.pop();
    others[1].modules.remove(CONV);
    let more = others[2].modules.get_mut(CONV).unwrap();
    more.add(1, &numbers(1, 5, 3).view()).unwrap();
    for other in others {
        assert_ne!(other.sha256(), whole.sha256());
    }
}

#[test]
fn merges_are_of_the_adapters_that_were_seen() {
    let folder = tempfile::tempdir().unwrap();
    let adapters = adapters();
    let paths = ["0", "1"].map(|name| folder.path().join(name));
    for (adapter, path) in adapters.iter().zip(&paths) {
        adapter.save(path, Format::Kohya, Dtype::F32).unwrap();
    }
    let loaded = paths.each_ref().map(|path| Adapter::load(path).unwrap());
    let readers = paths.each_ref().map(|p| AdapterReader::open(p).unwrap());
    let of_files = Calibration {
        adapters: readers.each_ref().map(|r| r.sha256().unwrap()).to_vec(),
        ..calibration(&[])
    };
    let merge = ssr(of_files.clone());
    let out = folder.path().join("merged");
    let on_disk = |merge: &Merge, order: [usize; 2]| {
        let inputs = order.map(|i| WeightedFile {
            adapter: &readers[i],
            weight: 1.0,
        });
        merge.run_files(&inputs, &out, Format::Kohya, Dtype::F32)
    };
    on_disk(&merge, [0, 1]).unwrap();
    let (merged, _) = merge
        .run(&[Weighted::from(&loaded[0]), Weighted::from(&loaded[1])])
        .unwrap();
    let bytes = fs::read(&out).unwrap();
    assert_eq!(bytes, merged.to_bytes(Format::Kohya, Dtype::F32).unwrap());
    let recipe: Value = serde_json::from_str(&merged.metadata["selma_merge"]).unwrap();
    assert_eq!(recipe["calibration"], of_files.sha256());

    // The other way round, and the same factors that are in no file, are other adapters.
    let refused = |error: LoraError| {
        assert!(
            error.to_string().contains(&of_files.adapters[0]) && error.to_string().contains('0'),
            "{error}"
        );
        assert!(matches!(error, LoraError::Calibration { .. }), "{error}");
    };
    refused(on_disk(&merge, [1, 0]).unwrap_err());
    let turned = [Weighted::from(&loaded[1]), Weighted::from(&loaded[0])];
    refused(merge.run(&turned).unwrap_err());
    refused(merge.modules(&turned).err().unwrap());
    let in_memory = [Weighted::from(&adapters[0]), Weighted::from(&adapters[1])];
    refused(merge.run(&in_memory).unwrap_err());
    assert_eq!(fs::read(&out).unwrap(), bytes);
    // Without hashes only ranks are compared.
    on_disk(&ssr(calibration(&[])), [0, 1]).unwrap();
    let error = on_disk(&ssr(calibration(&[])), [1, 0]).unwrap_err();
    assert!(error.to_string().contains("[3, 2]"), "{error}");
    let mut lacking = calibration(&[]);
    lacking.modules.remove(TO_Q);
    let error = on_disk(&ssr(lacking), [0, 1]).unwrap_err();
    assert!(error.to_string().contains(TO_Q), "{error}");
}

/// The tensors and the note of a file, to be changed and written again.
struct Parts {
    tensors: Vec<(String, Stored, Vec<usize>, Vec<u8>)>,
    notes: HashMap<String, String>,
}

impl Parts {
    fn of(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, tensor)| {
            let (shape, data) = (tensor.shape().to_vec(), tensor.data().to_vec());
            (name.to_owned(), tensor.dtype(), shape, data)
        });
        Self {
            tensors: tensors.collect(),
            notes: header.metadata().clone().unwrap(),
        }
    }

    fn note(&mut self, change: impl Fn(&mut Value)) {
        let note = self.notes.get_mut("selma_calibration").unwrap();
        let mut value: Value = serde_json::from_str(note).unwrap();
        change(&mut value);
        *note = value.to_string();
    }

    fn tensor(&mut self, part: &str) -> &mut (String, Stored, Vec<usize>, Vec<u8>) {
        let name = format!("{TO_Q}.{part}");
        self.tensors.iter_mut().find(|x| x.0 == name).unwrap()
    }

    fn save(self, path: &Path) {
        let views = self.tensors.iter().map(|(name, dtype, shape, data)| {
            let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
            (name.clone(), view)
        });
        fs::write(path, serialize(views, Some(self.notes)).unwrap()).unwrap();
    }
}

#[test]
fn files_of_something_else_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, path] = ["whole", "changed"].map(|name| folder.path().join(name));
    calibration(&adapters()).save(&whole).unwrap();
    type Change = fn(&mut Parts);
    let (g, q) = (format!("{TO_Q}.g"), format!("{TO_Q}.q"));
    let changes: [(Change, &[&str]); 14] = [
        (|x| x.notes.clear(), &["selma_calibration", "none"]),
        (
            |x| x.note(|note| note["version"] = json!(2)),
            &["selma_calibration", "version 1", "found 2"],
        ),
        (
            |x| x.note(|note| *note = json!([])),
            &["selma_calibration", "modules"],
        ),
        (
            |x| x.note(|note| note["more"] = json!(1)),
            &["selma_calibration", "more"],
        ),
        (
            |x| x.note(|note| note["modules"][TO_Q]["count"] = json!(-1)),
            &["selma_calibration", "-1"],
        ),
        (
            |x| x.note(|note| note["modules"][TO_Q]["ranks"] = json!([2, 4])),
            &[&g, "F64 [6, 6]", "F64 [5, 5]"],
        ),
        (
            |x| x.note(|note| note["modules"][TO_Q]["ranks"] = json!([5, 0])),
            &[TO_Q, "at least 1", "[5, 0]"],
        ),
        (
            |x| x.note(|note| note["modules"][TO_Q]["ranks"] = json!([u64::MAX, 2])),
            &[TO_Q, "[18446744073709551615, 2]"],
        ),
        (
            |x| {
                x.note(|note| {
                    note["modules"].as_object_mut().unwrap().remove(TO_Q);
                });
            },
            &[&g, "nothing but"],
        ),
        (
            |x| x.tensor("q").0 = "unet.other.q".to_owned(),
            &[&q, "none"],
        ),
        (
            |x| {
                let tensor = x.tensor("g");
                (tensor.1, tensor.3) = (Stored::F32, tensor.3[..100].to_vec());
            },
            &[&g, "F64 [5, 5]", "F32 [5, 5]"],
        ),
        (|x| x.tensor("q").2 = vec![25], &[&q, "F64 [5, 5]", "[25]"]),
        (
            |x| x.tensor("q").3[..8].copy_from_slice(&f64::NAN.to_le_bytes()),
            &[&q, "finite", "NaN"],
        ),
        (
            |x| x.tensor("g").3[8..16].copy_from_slice(&7e3_f64.to_le_bytes()),
            &[&g, "symmetric"],
        ),
    ];
    for (change, parts) in changes {
        let mut file = Parts::of(&whole);
        change(&mut file);
        file.save(&path);
        let error = Calibration::load(&path).unwrap_err();
        let text = error.to_string();
        let named = parts.iter().all(|part| text.contains(part));
        assert!(named && text.contains("changed"), "{text}: {parts:?}");
        let LoraError::InFile { error, .. } = error else {
            panic!("{text}");
        };
        let kind = matches!(*error, LoraError::CalibrationFile { .. });
        assert!(kind, "{text}");
    }
}

#[test]
fn torn_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, path] = ["whole", "torn"].map(|name| folder.path().join(name));
    calibration(&adapters()).save(&whole).unwrap();
    let bytes = fs::read(&whole).unwrap();
    for end in (0..bytes.len()).step_by(7).chain([bytes.len() - 1]) {
        fs::write(&path, &bytes[..end]).unwrap();
        let error = Calibration::load(&path).unwrap_err();
        let LoraError::InFile { error, .. } = error else {
            panic!("{end}: {error}");
        };
        assert!(matches!(*error, LoraError::NotSafetensors { .. }), "{end}");
    }
    fs::write(&path, [&bytes[..], &[0; 8]].concat()).unwrap();
    assert!(Calibration::load(&path).is_err());
    let [adapter, _] = adapters();
    adapter.save(&path, Format::Kohya, Dtype::F32).unwrap();
    let error = Calibration::load(&path).unwrap_err().to_string();
    assert!(error.contains("selma_calibration"), "{error}");
    fs::write(&path, b"PK\x03\x04 and more").unwrap();
    assert!(Calibration::load(&path).is_err());
    let error = Calibration::load(folder.path().join("no")).unwrap_err();
    assert!(matches!(error, LoraError::Io { .. }));
}

#[test]
fn what_cannot_be_written_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let error = calibration(&[]).save(folder.path().join("no/file"));
    assert!(error.unwrap_err().to_string().contains("no/file"));
    let taken = folder.path().join("taken");
    fs::create_dir(&taken).unwrap();
    assert!(calibration(&[]).save(&taken).is_err());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
