use std::path::Path;

use super::*;
use crate::{LoraModule, Merge, Method, Weighted, init};

const PATHS: [&str; 2] = ["unet.a", "unet.b"];

/// A module with an update that can be seen.
fn module(path: &str, shape: &[usize], rank: usize, alpha: f64, seed: u64) -> LoraModule {
    let mut module = init::gaussian(path, shape, rank, alpha, seed).unwrap();
    let b = init::gaussian_a("B", 1, module.b.len(), seed);
    module.b = b.into_shape_with_order(module.b.raw_dim()).unwrap();
    module
}

fn expert(ranks: &[usize], seed: u64) -> Adapter {
    let modules = PATHS.iter().zip(ranks).map(|(path, &rank)| {
        let module = module(path, &[5, 4], rank, 1.5, seed);
        ((*path).to_owned(), module)
    });
    Adapter::new(modules)
}

fn experts() -> [Adapter; 3] {
    // The last one adapts the first layer alone.
    [expert(&[2, 3], 1), expert(&[1, 2], 2), expert(&[3], 3)]
}

fn saved(mixture: &Mixture, folder: &tempfile::TempDir) -> std::path::PathBuf {
    let path = folder.path().join("mixture.safetensors");
    mixture.save(&path).unwrap();
    path
}

#[test]
fn experts_lie_one_below_the_other() {
    let experts = experts();
    let mixture = Mixture::router(&experts.each_ref(), 3, 0).unwrap();
    let (first, second) = (&mixture.modules[PATHS[0]], &mixture.modules[PATHS[1]]);
    assert_eq!(first.down.dim(), (6, 4));
    assert_eq!(first.up.dim(), (5, 6));
    assert_eq!(first.gate, Array2::<f32>::zeros((3, 4)));
    let spread = second.spread();
    assert_eq!(spread.dim(), (3, 5));
    assert_eq!(spread.row(0).to_vec(), [0.5, 0.5, 0.5, 0.0, 0.0]);
    assert_eq!(spread.row(1).to_vec(), [0.0, 0.0, 0.0, 0.75, 0.75]);
    assert_eq!(spread.row(2).to_vec(), [0.0; 5]);
    // Drawn where not all are chosen, and by the seed.
    let drawn = |seed| {
        let mixture = Mixture::router(&experts.each_ref(), 2, seed).unwrap();
        mixture.modules[PATHS[0]].gate.clone()
    };
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
    assert!(drawn(1).iter().all(|x| x.abs() <= 0.5));
}

#[test]
fn a_file_keeps_everything_and_the_same_mixture_is_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let experts = experts();
    for mut mixture in [
        Mixture::router(&experts.each_ref(), 2, 7).unwrap(),
        Mixture::weights(&experts.each_ref()).unwrap(),
    ] {
        mixture.metadata.insert("selma.steps".into(), "3".into());
        let path = saved(&mixture, &folder);
        let bytes = std::fs::read(&path).unwrap();
        let read = Mixture::load(&path).unwrap();
        assert_eq!(read, mixture);
        assert_eq!(read.sha256(), mixture.sha256());
        assert_eq!(std::fs::read(saved(&read, &folder)).unwrap(), bytes);
        // It is no adapter, and says so.
        for error in [
            Adapter::load(&path).unwrap_err(),
            crate::AdapterFile::load(&path, None).unwrap_err(),
            crate::AdapterReader::open(&path).unwrap_err(),
        ] {
            let error = error.to_string();
            assert!(error.contains("a mixture of adapters"), "{error}");
        }
    }
}

#[test]
fn weights_of_cat_are_those_of_a_sum() {
    let experts = experts();
    let mut mixture = Mixture::weights(&experts.each_ref()).unwrap();
    let values = [0.2, -0.7, 1.1];
    mixture.modules.get_mut(PATHS[0]).unwrap().gate =
        Array2::from_shape_vec((3, 1), values.to_vec()).unwrap();
    let weighted = experts.each_ref().map(|adapter| Weighted {
        adapter,
        weight: 1.0,
    });
    let merge = Merge {
        weights_by_module: mixture.weights_by_module().unwrap(),
        ..Merge::new(Method::Sum)
    };
    let (merged, _) = merge.run(&weighted).unwrap();
    for (path, module) in &mixture.modules {
        let shares = module.gate.t().dot(&module.spread());
        let expected = (&module.up * &shares).dot(&module.down);
        let found = merged.modules[path].delta().unwrap();
        let error = (found - &expected).mapv(f32::abs);
        assert!(error.iter().all(|&error| error < 1e-6), "{path}: {error}");
    }
    let router = Mixture::router(&experts.each_ref(), 3, 0).unwrap();
    let error = router.weights_by_module().unwrap_err().to_string();
    assert!(error.contains("depend on the input"), "{error}");
}

#[test]
fn adapters_that_cannot_be_mixed_are_refused_by_name() {
    let experts = experts();
    let refused = |experts: &[&Adapter], top_k| {
        let error = Mixture::router(experts, top_k, 0).unwrap_err();
        error.to_string()
    };
    for (top_k, found) in [(0, "found 0"), (4, "found 4")] {
        let error = refused(&experts.each_ref(), top_k);
        assert!(error.contains("1 to 3") && error.contains(found), "{error}");
    }
    assert!(Mixture::weights(&[]).is_err());
    assert!(Mixture::weights(&[&Adapter::default()]).is_err());
    let other = Adapter::new([(PATHS[1].to_owned(), module("x", &[5, 8], 2, 1.0, 1))]);
    let error = refused(&[&experts[0], &other], 2);
    assert!(
        error.contains("unet.b") && error.contains("[5, 8]"),
        "{error}"
    );
    let conv = init::gaussian("x", &[5, 4, 3, 3], 2, 2.0, 0).unwrap();
    let conv = Adapter::new([("unet.conv".to_owned(), conv)]);
    let error = refused(&[&experts[0], &conv], 2);
    assert!(
        error.contains("unet.conv") && error.contains("a convolution"),
        "{error}"
    );
    let mut broken = experts[0].clone();
    broken.modules.get_mut(PATHS[0]).unwrap().b = ArrayD::zeros(vec![5, 9]);
    assert!(refused(&[&broken], 1).contains("unet.a"));
}

#[test]
fn files_of_something_else_and_torn_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let experts = experts();
    let mixture = Mixture::router(&experts.each_ref(), 3, 0).unwrap();
    let refused = |path: &Path| Mixture::load(path).unwrap_err().to_string();
    let spoiled = |spoil: &dyn Fn(&mut Mixture)| {
        let mut mixture = mixture.clone();
        spoil(&mut mixture);
        refused(&saved(&mixture, &folder))
    };
    let first = |mixture: &mut Mixture, change: &dyn Fn(&mut MixedModule)| {
        mixture.modules.get_mut(PATHS[0]).map(change).unwrap();
    };
    type Spoil<'a> = &'a dyn Fn(&mut Mixture);
    let cases: [(Spoil<'_>, &[&str]); 8] = [
        (
            &|m| m.mixing = Mixing::Router { top_k: 9 },
            &["1 to 3", "9"],
        ),
        (&|m| m.mixing = Mixing::Weights, &["unet.a.gate", "[3, 1]"]),
        (&|m| m.experts.clear(), &["0 experts"]),
        (
            &|m| first(m, &|module| module.parts.truncate(2)),
            &["unet.a", "3 experts"],
        ),
        (
            &|m| first(m, &|module| module.parts[0].rank = 9),
            &["unet.a.down", "[13, 4]"],
        ),
        (
            &|m| first(m, &|module| module.parts[0].rank = usize::MAX),
            &["unet.a"],
        ),
        (
            &|m| first(m, &|module| module.up = Array2::zeros((5, 2))),
            &["unet.a.up", "[5, 6]"],
        ),
        (
            &|m| first(m, &|module| module.gate[[0, 0]] = f32::NAN),
            &["unet.a.gate", "not finite"],
        ),
    ];
    for (spoil, parts) in cases {
        let error = spoiled(spoil);
        for part in ["mixture.safetensors"].iter().chain(parts) {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
    let path = saved(&mixture, &folder);
    let bytes = std::fs::read(&path).unwrap();
    for length in [0, 7, 20, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = refused(&path);
        assert!(error.contains("not a readable safetensors"), "{error}");
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let with = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        let at = bytes
            .windows(from.len())
            .position(|window| window == from.as_bytes());
        let mut changed = bytes.clone();
        changed.splice(at.unwrap()..at.unwrap() + from.len(), to.bytes());
        std::fs::write(&path, changed).unwrap();
        refused(&path)
    };
    let error = with(r#"\"version\":1"#, r#"\"version\":2"#);
    assert!(error.contains("version 1"), "{error}");
    let error = with("selma_mixture", "selma_nixture");
    assert!(
        error.contains("selma_mixture") && error.contains("none"),
        "{error}"
    );
    let error = with(r#""unet.b.down""#, r#""unet.b.dowm""#);
    assert!(error.contains("unet.b.down"), "{error}");
    let error = with(r#"\"unet.b\":"#, r#"\"unet.a\":"#);
    assert!(error.contains("unet."), "{error}");
    let adapter = folder.path().join("adapter.safetensors");
    experts[0]
        .save(&adapter, crate::Format::Diffusers, crate::Dtype::F32)
        .unwrap();
    let error = refused(&adapter);
    assert!(error.contains("selma_mixture"), "{error}");
}
