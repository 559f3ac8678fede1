//! LoCon, LoHa, LoKr and full differences of LyCORIS and PEFT, and the folders of PEFT, recorded by
//! `tools/make_lora_kinds_fixtures.py`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use std::collections::BTreeMap;

use common::{fixture, recorded, relative};
use selma_lora::{Adapter, AdapterFile, Format, Kind, LoraError, RankRule};

/// Rounding of the records to single precision, and of a factor of LoCon.
const EXACT: f64 = 2e-7;

#[test]
fn locon_with_a_middle_factor_is_two_factors_exactly() {
    let adapter = Adapter::load(fixture("lycoris_locon.safetensors")).unwrap();
    let recorded = recorded("kinds_dw.safetensors", "lycoris");
    assert_eq!(adapter.modules.len(), 4);
    for (path, module) in &adapter.modules {
        let name = path.strip_prefix("unet.").unwrap().replace('.', "_");
        let error = relative(&module.delta_f64().unwrap(), &recorded[&name]);
        assert!(error < EXACT, "{path}: {error}");
    }
    let decomposed = &adapter.modules["unet.down_blocks.3.resnets.0.conv1"];
    assert_eq!(decomposed.a.shape(), [2, 4, 3, 3]);
    assert_eq!((decomposed.rank(), decomposed.alpha), (2, 3.0));
}

#[test]
fn lycoris_kinds_have_the_updates_of_lycoris() {
    let file = AdapterFile::load(fixture("lycoris_kinds.safetensors"), None).unwrap();
    let recorded = recorded("kinds_dw.safetensors", "lycoris");
    let kinds = BTreeMap::from([(Kind::Loha, 4), (Kind::Lokr, 6), (Kind::Full, 2)]);
    assert_eq!(file.kinds(), kinds);
    for (path, update) in &file.updates {
        let name = path.strip_prefix("unet.").unwrap().replace('.', "_");
        let error = relative(&update.delta().unwrap(), &recorded[&name]);
        assert!(error < EXACT, "{path} ({}): {error}", update.kind());
    }
    // The kernel is known where there is a core or the whole.
    let shape = |path: &str| file.updates[path].weight_shape();
    assert_eq!(shape("unet.down_blocks.3.resnets.1.conv1"), [6, 4, 3, 3]);
    assert_eq!(shape("unet.down_blocks.1.resnets.1.conv2"), [6, 4, 3, 3]);
    assert_eq!(shape("unet.down_blocks.2.resnets.1.conv1"), [6, 36]);
    let flat = &file.updates["unet.down_blocks.2.resnets.1.conv1"];
    assert!(flat.fits(&[6, 4, 3, 3]) && !flat.fits(&[6, 4, 3, 1]) && !flat.fits(&[]));
}

#[test]
fn folders_of_peft_have_the_updates_of_peft() {
    for (name, kind) in [
        ("lora", Kind::Lora),
        ("loha", Kind::Loha),
        ("lokr", Kind::Lokr),
    ] {
        let folder = fixture(&format!("peft_{name}"));
        let file = AdapterFile::load(&folder, None).unwrap();
        assert_eq!(file.source.format, Format::Peft);
        assert_eq!(file.source.path, folder);
        let recorded = recorded("kinds_dw.safetensors", &format!("peft_{name}"));
        assert!(file.updates.keys().eq(recorded.keys()), "{name}");
        for (path, update) in &file.updates {
            assert_eq!(update.kind(), kind);
            let error = relative(&update.delta().unwrap(), &recorded[path]);
            assert!(error < EXACT, "{name} {path}: {error}");
        }
    }
    // rsLoRA: 6 / sqrt(4) is 12 / 4.
    let lora = Adapter::load(fixture("peft_lora")).unwrap();
    assert_eq!(
        lora.modules["unet.down_blocks.0.attentions.0.proj_in"].alpha,
        12.0
    );

    // The file itself stands for its folder, whose name gives the component.
    let part = Adapter::load(fixture("peft_lora/text_encoder/adapter_model.safetensors")).unwrap();
    assert_eq!(part.modules.len(), 2);
    for (path, module) in part.modules {
        assert_eq!(lora.modules[&path], module);
    }
}

#[test]
fn every_kind_becomes_a_lora_of_the_rank_that_holds_it() {
    let recorded = recorded("kinds_dw.safetensors", "lycoris");
    let load = || AdapterFile::load(fixture("lycoris_kinds.safetensors"), None).unwrap();
    let shape_of = |path: &str| match path {
        path if path.contains("conv") => vec![6, 4, 3, 3],
        path if path.contains("proj_in") => vec![9, 6, 1, 1],
        _ => vec![12, 8],
    };
    let model: Vec<(String, Vec<usize>)> = load()
        .updates
        .keys()
        .map(|path| (path.clone(), shape_of(path)))
        .collect();
    assert_eq!(
        load()
            .match_modules(&model)
            .unwrap()
            .strict()
            .unwrap()
            .matched
            .len(),
        12
    );

    let (adapter, report) = load()
        .into_adapter(RankRule::Number(100), Some(&model))
        .unwrap();
    assert!(report.error < 1e-12);
    for (path, module) in &adapter.modules {
        assert_eq!(module.weight_shape(), shape_of(path), "{path}");
        let name = path.strip_prefix("unet.").unwrap().replace('.', "_");
        let error = relative(&module.delta_f64().unwrap(), &recorded[&name]);
        assert!(error < 1e-6, "{path}: {error}");
    }
    assert!(adapter.metadata["selma_convert"].contains(&load().source.sha256));

    // Truncated, the report tells what was lost.
    let (small, report) = load()
        .into_adapter(RankRule::Number(1), Some(&model))
        .unwrap();
    for line in &report.modules {
        let name = line.module.strip_prefix("unet.").unwrap().replace('.', "_");
        let error = relative(
            &small.modules[&line.module].delta_f64().unwrap(),
            &recorded[&name],
        );
        assert!((error - line.cut.error).abs() < 1e-6, "{}", line.module);
        assert_eq!(line.cut.rank, 1);
    }

    let other: Vec<_> = model
        .iter()
        .map(|(path, _)| (path.clone(), vec![5, 5]))
        .collect();
    let error = load()
        .into_adapter(RankRule::Number(1), Some(&other))
        .unwrap_err();
    assert!(error.to_string().contains("[5, 5]"), "{error}");
    let error = load()
        .into_adapter(RankRule::Number(1), Some(&model[1..]))
        .unwrap_err();
    assert!(error.to_string().contains(&model[0].0), "{error}");
    let error = load().into_adapter(RankRule::Number(0), None).unwrap_err();
    assert!(matches!(error, LoraError::ZeroRank));
}

#[test]
fn loras_in_such_a_file_stay_as_they_are() {
    let adapter = Adapter::load(fixture("lycoris_locon.safetensors")).unwrap();
    let file = AdapterFile::load(fixture("lycoris_locon.safetensors"), None).unwrap();
    let (converted, report) = file.into_adapter(RankRule::Number(1), None).unwrap();
    assert_eq!(converted.modules, adapter.modules);
    assert!(report.error == 0.0 && report.norm > 1.0);
}

#[test]
fn what_is_no_lora_is_refused_by_name_unless_it_is_asked_for() {
    let error = Adapter::load(fixture("lycoris_kinds.safetensors")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("lycoris_kinds.safetensors")
            && text.contains("lora_unet_down_blocks_0_resnets_1_conv2.lokr_w1")
            && text.contains("LoKr"),
        "{text}"
    );
    let error = Adapter::load(fixture("peft_loha")).unwrap_err();
    assert!(error.to_string().contains("hada_w1_a"), "{error}");
}
