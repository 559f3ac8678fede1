//! Properties of files: whatever an adapter is, every format keeps it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

use ndarray::{ArrayD, IxDyn};
use proptest::{collection::btree_map, prelude::*};
use selma_lora::{Adapter, Dtype, Format, LoraModule, Model, RankRule};

const FORMATS: [Format; 4] = [
    Format::Kohya,
    Format::Diffusers,
    Format::DiffusersScript,
    Format::Peft,
];

/// Values that differ from place to place, for a module of these sizes.
fn module(shape: &[usize], rank: usize, alpha: f64, seed: u32) -> LoraModule {
    let factor = |shape: &[usize], seed: u32| {
        let mut state = seed;
        ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
    };
    let mut a_shape = shape.to_vec();
    a_shape[0] = rank;
    let mut b_shape = vec![1; shape.len()];
    (b_shape[0], b_shape[1]) = (shape[0], rank);
    LoraModule::new(factor(&a_shape, seed), factor(&b_shape, !seed), alpha).unwrap()
}

/// Some layers of a model, small, each with its own rank and alpha.
fn adapters() -> impl Strategy<Value = Adapter> {
    let model = prop_oneof![Just(Model::Sd1), Just(Model::Sd2), Just(Model::Sdxl)];
    model.prop_flat_map(|model| {
        let layers = model.modules();
        let alpha = prop_oneof![(1..9_i32).prop_map(f64::from), -4.0..4.0_f64, Just(0.0)];
        btree_map(
            0..layers.len(),
            (1..6_usize, alpha, any::<u32>(), 1..7_usize),
            1..8,
        )
        .prop_map(move |chosen| {
            Adapter::new(
                chosen
                    .into_iter()
                    .map(|(index, (rank, alpha, seed, size))| {
                        let (path, weight) = &layers[index];
                        let mut shape = weight.clone();
                        (shape[0], shape[1]) = (size, 8 - size);
                        // What a file of f32 holds.
                        (
                            path.clone(),
                            module(&shape, rank, f64::from(alpha as f32), seed),
                        )
                    }),
            )
        })
    })
}

/// Through a file or a folder and back.
fn through(adapter: &Adapter, format: Format, dtype: Dtype) -> Adapter {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    adapter.save(&path, format, dtype).unwrap();
    Adapter::load(&path).unwrap()
}

/// Frobenius norm of the difference of the updates, relative to the size of the factors.
fn worst(x: &Adapter, y: &Adapter) -> f64 {
    assert!(x.modules.keys().eq(y.modules.keys()));
    let norm = |values: &ArrayD<f32>| values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    x.modules
        .iter()
        .map(|(path, module)| {
            let difference = module.delta_f64().unwrap() - y.modules[path].delta_f64().unwrap();
            let size = (norm(&module.a) * norm(&module.b)).sqrt() * module.scale().abs();
            difference.mapv(|x| x * x).sum().sqrt() / size.max(f64::MIN_POSITIVE)
        })
        .fold(0.0, f64::max)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_format_keeps_every_update(adapter in adapters()) {
        for format in FORMATS {
            for (dtype, limit) in [(Dtype::F32, 3e-7), (Dtype::F16, 2e-3), (Dtype::BF16, 1.6e-2)] {
                let read = through(&adapter, format, dtype);
                let found = read.source.as_ref().unwrap().format;
                // Outside of attention the two formats give text encoders the same names.
                let script = |path: &String| path.starts_with("unet.") || path.contains(".self_attn.");
                let alike = format == Format::DiffusersScript && !adapter.modules.keys().any(script);
                prop_assert_eq!(found, if alike { Format::Diffusers } else { format });
                let error = worst(&adapter, &read);
                prop_assert!(error < limit, "{} {}: {}", format, dtype, error);
            }
        }
    }

    #[test]
    fn a_journey_through_all_formats_changes_nothing_twice(adapter in adapters()) {
        let mut once = adapter.clone();
        for format in FORMATS {
            once = through(&once, format, Dtype::F32);
        }
        prop_assert!(worst(&adapter, &once) < 1e-6);
        // All scales are 1 now, and nothing is rounded any more.
        let mut twice = once.clone();
        for format in FORMATS {
            twice = through(&twice, format, Dtype::F32);
        }
        prop_assert_eq!(&twice.modules, &once.modules);
    }

    #[test]
    fn the_same_adapter_is_the_same_bytes(adapter in adapters(), dtype in 0..3_usize) {
        let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][dtype];
        for format in [Format::Kohya, Format::Diffusers, Format::DiffusersScript] {
            let bytes = adapter.to_bytes(format, dtype).unwrap();
            prop_assert_eq!(&bytes, &adapter.clone().to_bytes(format, dtype).unwrap());
        }
    }

    #[test]
    fn a_resized_adapter_is_as_far_away_as_it_says(adapter in adapters(), rank in 1..6_usize) {
        let (small, report) = adapter.resize(RankRule::Number(rank)).unwrap();
        let comparison = adapter.compare(&small).unwrap();
        let relative = comparison.relative.unwrap_or(0.0);
        prop_assert!((relative - report.error).abs() < 1e-6, "{} {}", relative, report.error);
        prop_assert!((comparison.first_norm - report.norm).abs() <= 1e-9 * report.norm);
        for module in small.modules.values() {
            prop_assert!(module.rank() <= rank);
        }
    }
}

/// Every layer of the shipped tables, under every name that a file may give it.
#[test]
fn every_layer_of_every_model_has_its_name_in_every_format() {
    for model in Model::ALL {
        let shape = |weight: &[usize]| [&[2, 3], weight.get(2..).unwrap_or_default()].concat();
        let layers = model.modules();
        let adapter =
            Adapter::new(layers.iter().enumerate().map(|(i, (path, weight))| {
                (path.clone(), module(&shape(weight), 1, 1.0, i as u32))
            }));
        let names = model.names().unwrap();
        for format in FORMATS {
            assert_eq!(
                through(&adapter, format, Dtype::F32).modules,
                adapter.modules,
                "{model} {format}"
            );
        }
        // By the table instead of the grammar.
        let bytes = adapter.to_bytes(Format::Kohya, Dtype::F32).unwrap();
        let read = Adapter::from_bytes(&bytes, Some(&names)).unwrap();
        assert_eq!(read.modules, adapter.modules);
    }
}
