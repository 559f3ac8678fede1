//! Merges on dense updates that would fill the memory.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;

use ndarray::Array;
use selma_lora::{
    Adapter, AdapterReader, Dtype, Format, LoraError, LoraModule, Merge, Method, Weighted,
    WeightedFile,
};

const PATH: &str = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q";

fn adapter(outputs: usize, inputs: usize) -> Adapter {
    let a = Array::from_elem((1, inputs), 0.5).into_dyn();
    let b = Array::from_elem((outputs, 1), 0.25).into_dyn();
    Adapter::new([(PATH.to_owned(), LoraModule::new(a, b, 1.0).unwrap())])
}

fn two(adapter: &Adapter) -> [Weighted<'_>; 2] {
    [Weighted::from(adapter), Weighted::from(adapter)]
}

fn is_dense(method: Method) -> bool {
    let merge = Merge {
        dense_limit: Some(1),
        density: Some(0.5),
        ..Merge::new(method)
    };
    let without = Merge {
        density: None,
        ..merge.clone()
    };
    let known = |merge: &Merge| merge.validate([1.0, 1.0].into_iter()).is_ok();
    known(&merge) || known(&without)
}

#[test]
fn a_layer_too_large_is_refused_with_a_way_out() {
    // 29 GB a matrix: an allocation of it might succeed, and using it would not.
    let large = adapter(60_000, 60_000);
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in", "out"].map(|name| folder.path().join(name));
    large.save(&input, Format::Kohya, Dtype::F32).unwrap();
    fs::write(&output, "before").unwrap();
    let reader = AdapterReader::open(&input).unwrap();
    let dense: Vec<Method> = Method::ALL.into_iter().filter(|&m| is_dense(m)).collect();
    assert_eq!(dense.len(), 12);
    for method in dense {
        let merge = Merge {
            density: Some(0.5),
            ..Merge::new(method)
        };
        let error = merge.run(&two(&large)).unwrap_err();
        let text = error.to_string();
        let parts = [
            PATH,
            method.name(),
            "[60000, 60000]",
            "4294967296",
            "svd",
            "dense_limit",
        ];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        let LoraError::InModule { error, .. } = error else {
            panic!("{text}");
        };
        assert!(matches!(*error, LoraError::DenseTooLarge { .. }), "{text}");
        let inputs = [1.0, 1.0].map(|weight| WeightedFile {
            adapter: &reader,
            weight,
        });
        let error = merge.run_files(&inputs, &output, Format::Kohya, Dtype::F32);
        assert_eq!(error.unwrap_err().to_string(), text);
        assert_eq!(fs::read(&output).unwrap(), b"before");
    }
    for method in [Method::Svd, Method::MkTaskArithmetic, Method::CoreSum] {
        let (merged, _) = Merge::new(method).with_rank(1).run(&two(&large)).unwrap();
        assert_eq!(merged.modules.get(PATH).map(LoraModule::rank), Some(1));
    }
    // One adapter alone is merged on its factors by PEFT's rule.
    let alone = Merge {
        density: Some(0.5),
        ..Merge::new(Method::PeftTiesSvd)
    };
    alone.run(&[Weighted::from(&large)]).unwrap();
}

#[test]
fn the_limit_is_a_number_of_bytes() {
    let small = adapter(20, 12);
    let run = |method, limit| {
        let merge = Merge {
            dense_limit: Some(limit),
            ..Merge::new(method)
        };
        merge.run(&two(&small)).map(|_| ())
    };
    // Two updates, what they become, and one more; SCE has two more.
    for (method, copies) in [(Method::MkTies, 4), (Method::MkSce, 6)] {
        let bytes = copies * 20 * 12 * 8;
        run(method, bytes).unwrap();
        let error = run(method, bytes - 1).unwrap_err().to_string();
        assert!(error.contains(&bytes.to_string()), "{error}");
    }
}
