//! Adapter files: what is written is read back, and everything else is refused by name.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests may fail like tests"
)]

mod common;

use common::{CONV, TEXT, TO_Q, adapter, file, ones};
use ndarray::Array2;
use safetensors::Dtype as Stored;
use selma_durable::DurableError;
use selma_lora::{
    Adapter, AdapterFile, AdapterReader, Dtype, Format, LoraError, LoraModule, Merge, Method,
    ModuleNames, RankRule, init,
};

const FORMATS: [Format; 3] = [Format::Kohya, Format::Diffusers, Format::DiffusersScript];

fn relative(x: &Array2<f64>, y: &Array2<f64>) -> f64 {
    let norm = |x: &Array2<f64>| x.mapv(|x| x * x).sum().sqrt();
    norm(&(x - y)) / norm(y)
}

#[test]
fn every_format_and_type_keeps_the_update() {
    let folder = tempfile::tempdir().unwrap();
    // 4 = rank of two modules, 3 makes the scales 0.75 and 1.5, -1 checks the sign.
    for alpha in [4.0, 3.0, -1.0] {
        let adapter = adapter(alpha);
        for format in FORMATS {
            for (dtype, tolerance) in [(Dtype::F32, 3e-7), (Dtype::F16, 1e-3), (Dtype::BF16, 1e-2)]
            {
                let path = folder.path().join("x.safetensors");
                adapter.save(&path, format, dtype).unwrap();
                let read = Adapter::load(&path).unwrap();
                let source = read.source.as_ref().unwrap();
                assert_eq!(source.format, format);
                assert_eq!(source.dtypes.iter().collect::<Vec<_>>(), [&dtype]);
                assert_eq!(source.path, path);
                assert_eq!(read.metadata["note"], adapter.metadata["note"]);
                assert!(read.modules.keys().eq(adapter.modules.keys()));
                for (name, module) in &adapter.modules {
                    let found = &read.modules[name];
                    assert_eq!(found.weight_shape(), module.weight_shape());
                    let error = relative(&found.delta_f64().unwrap(), &module.delta_f64().unwrap());
                    assert!(error <= tolerance, "{format} {dtype} {name}: {error}");
                }
            }
        }
    }
}

#[test]
fn f32_files_restore_the_factors_bit_by_bit() {
    let kohya = adapter(3.0);
    let bytes = kohya.to_bytes(Format::Kohya, Dtype::F32).unwrap();
    assert_eq!(
        Adapter::from_bytes(&bytes, None).unwrap().modules,
        kohya.modules
    );

    let mut unit = adapter(4.0);
    unit.modules.get_mut(CONV).unwrap().alpha = 2.0;
    for format in [Format::Diffusers, Format::DiffusersScript] {
        let bytes = unit.to_bytes(format, Dtype::F32).unwrap();
        let read = Adapter::from_bytes(&bytes, None).unwrap();
        assert_eq!(read.modules, unit.modules);
        assert_eq!(read.sha256(), unit.sha256());
        assert_ne!(read.sha256(), kohya.sha256());
    }
}

#[test]
fn the_same_adapter_is_the_same_bytes() {
    let mut adapter = adapter(3.0);
    for i in 0..20 {
        adapter.metadata.insert(format!("key {i}"), i.to_string());
    }
    for format in FORMATS {
        let first = adapter.to_bytes(format, Dtype::F16).unwrap();
        assert_eq!(first, adapter.clone().to_bytes(format, Dtype::F16).unwrap());
        // Reading and writing again changes nothing either.
        let read = Adapter::from_bytes(&first, None).unwrap();
        assert_eq!(first, read.to_bytes(format, Dtype::F16).unwrap());
    }
}

#[test]
fn an_alpha_of_zero_is_written_as_a_zero_update() {
    let adapter = adapter(0.0);
    for format in FORMATS {
        let bytes = adapter.to_bytes(format, Dtype::F32).unwrap();
        let read = Adapter::from_bytes(&bytes, None).unwrap();
        assert!(read.modules.values().all(LoraModule::is_zero));
    }
}

#[test]
fn two_text_encoders_have_two_prefixes() {
    let mut adapter = adapter(4.0);
    let second = TEXT.replace("text_encoder", "text_encoder_2");
    adapter
        .modules
        .insert(second.clone(), adapter.modules[TEXT].clone());
    let bytes = adapter.to_bytes(Format::Kohya, Dtype::F32).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(
        file.names()
            .iter()
            .any(|n| n.starts_with("lora_te1_text_model"))
    );
    assert!(
        file.names()
            .iter()
            .any(|n| n.starts_with("lora_te2_text_model"))
    );
    assert_eq!(
        file.tensor("lora_te2_text_model_encoder_layers_0_self_attn_q_proj.alpha")
            .unwrap()
            .shape(),
        [0_usize; 0]
    );
    assert!(
        Adapter::from_bytes(&bytes, None)
            .unwrap()
            .modules
            .contains_key(&second)
    );
}

#[test]
fn modules_of_a_foreign_model_are_found_by_its_list() {
    let path = "unet.my_layers.0.mix_in";
    let module = init::gaussian(path, &[4, 4], 2, 2.0, 0).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.safetensors");
    Adapter::new([(path.to_owned(), module)])
        .save(&file, Format::Kohya, Dtype::F32)
        .unwrap();
    let error = Adapter::load(&file).unwrap_err();
    assert!(error.to_string().contains("my_layers_0_mix_in"), "{error}");
    let names = ModuleNames::new([path]).unwrap();
    assert!(
        Adapter::load_with(&file, &names)
            .unwrap()
            .modules
            .contains_key(path)
    );
}

#[test]
fn ranks_of_modules_with_alike_or_odd_names_are_kept_apart() {
    // Of two modules one is called like the end of the other; the third is no regular expression.
    let ranks = [
        ("unet.mix", 2),
        ("unet.blocks.0.mix", 4),
        ("unet.(odd", 3),
        ("unet.last", 4),
    ];
    let adapter = Adapter::new(ranks.map(|(path, rank)| {
        let module = init::gaussian(path, &[4, 4], rank, rank as f64, 0).unwrap();
        (path.to_owned(), module)
    }));
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Diffusers, Format::DiffusersScript, Format::Peft] {
        let path = folder.path().join(format.to_string());
        adapter.save(&path, format, Dtype::F32).unwrap();
        assert_eq!(
            Adapter::load(&path).unwrap().modules,
            adapter.modules,
            "{format}"
        );
    }
}

#[test]
fn what_cannot_be_written_is_refused_and_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let mut large = adapter(4.0);
    large.modules.get_mut(CONV).unwrap().a.fill(1e6);
    let mut infinite = adapter(4.0);
    infinite
        .modules
        .get_mut(CONV)
        .unwrap()
        .b
        .fill(f32::INFINITY);
    let module = || large.modules[TO_Q].clone();
    let foreign = Adapter::new([("vae.conv_in".to_owned(), module())]);
    let ambiguous = Adapter::new([
        ("unet.a_b".to_owned(), module()),
        ("unet.a.b".to_owned(), module()),
    ]);
    for (adapter, text) in [
        (&large, "does not fit f16"),
        (&infinite, "not finite"),
        (&foreign, "vae.conv_in"),
        (&ambiguous, "unet.a_b"),
        (&Adapter::default(), "no LoRA factors"),
    ] {
        let error = adapter
            .save(&path, Format::Kohya, Dtype::F16)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(text) && error.contains("x.safetensors"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(large.to_bytes(Format::Kohya, Dtype::BF16).is_ok());

    let nowhere = folder.path().join("missing/x.safetensors");
    let error = adapter(4.0)
        .save(&nowhere, Format::Kohya, Dtype::F32)
        .unwrap_err();
    assert!(matches!(
        error,
        LoraError::Durable(DurableError::Io {
            action: "write",
            ..
        })
    ));
    assert!(error.to_string().contains("missing"));
}

#[test]
fn a_folder_of_the_hub_is_its_only_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let one = adapter(4.0);
    one.save(path("lcm.safetensors"), Format::Kohya, Dtype::F32)
        .unwrap();
    for read in [
        Adapter::load(folder.path()).unwrap().modules,
        AdapterFile::load(folder.path(), None)
            .unwrap()
            .into_adapter(RankRule::Number(9), None)
            .unwrap()
            .0
            .modules,
    ] {
        assert_eq!(read, one.modules);
    }
    assert_eq!(
        AdapterReader::open(folder.path()).unwrap().paths().count(),
        one.modules.len()
    );
    // A second one, and then the one that diffusers looks for.
    std::fs::copy(path("lcm.safetensors"), path("other.safetensors")).unwrap();
    let error = Adapter::load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("name one of them"), "{error}");
    std::fs::copy(
        path("lcm.safetensors"),
        path("pytorch_lora_weights.safetensors"),
    )
    .unwrap();
    let read = Adapter::load(folder.path()).unwrap();
    assert!(
        read.source
            .unwrap()
            .path
            .ends_with("pytorch_lora_weights.safetensors")
    );
}

#[test]
fn the_rest_of_a_file_is_read_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.safetensors");
    let bytes = file(&[
        (
            "lora_unet_conv_in.lora_down.weight",
            Stored::F32,
            &[2, 3],
            ones(6),
        ),
        (
            "lora_unet_conv_in.lora_up.weight",
            Stored::F32,
            &[4, 2],
            ones(8),
        ),
        ("lora_unet_conv_in.diff_b", Stored::F32, &[4], ones(4)),
        ("bundle_emb.cat.clip_l", Stored::F32, &[4], ones(4)),
    ]);
    std::fs::write(&path, bytes).unwrap();
    let error = AdapterFile::load(&path, None).unwrap_err().to_string();
    assert!(
        error.contains("bundle_emb.cat.clip_l belongs to a trained embedding"),
        "{error}"
    );
    let (rest, left_out) = AdapterFile::load_without(&path, None).unwrap();
    assert_eq!(rest.updates.len(), 1);
    let left_out: Vec<_> = left_out.iter().map(|x| (x.key.as_str(), x.kind)).collect();
    assert_eq!(
        left_out,
        [
            ("bundle_emb.cat.clip_l", "a trained embedding"),
            ("lora_unet_conv_in.diff_b", "the difference of a bias"),
        ]
    );
}

#[test]
fn adapters_of_other_models_go_through_with_their_names() {
    let path = "transformer.transformer_blocks.0.attn.to_q";
    let names = ModuleNames::new([path]).unwrap();
    let module = adapter(4.0).modules[TO_Q].clone();
    let flux = Adapter::new([(path.to_owned(), module)]);
    let folder = tempfile::tempdir().unwrap();
    for (format, name) in [
        (Format::Diffusers, "flux.safetensors"),
        (Format::Peft, "peft"),
    ] {
        let file = folder.path().join(name);
        flux.save(&file, format, Dtype::F32).unwrap();
        let error = Adapter::load(&file).unwrap_err().to_string();
        assert!(
            error.contains("is no module of Stable Diffusion"),
            "{error}"
        );
        let read = Adapter::load_with(&file, &names).unwrap();
        let (merged, _) = Merge::new(Method::Sum)
            .run(&[(&read).into(), (&flux).into()])
            .unwrap();
        assert!(merged.compare(&flux).unwrap().cosine.unwrap() > 0.999_999);
    }
    let error = flux.to_bytes(Format::Kohya, Dtype::F32).unwrap_err();
    assert!(error.to_string().contains("begin with unet."), "{error}");
}
