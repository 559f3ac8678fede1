use super::*;

#[test]
fn every_scheme_leads_to_the_same_module() {
    let to_q = "unet.down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q";
    let flat = "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q";
    for (key, format, part) in [
        (
            format!("{to_q}.lora_A.weight"),
            Some(Format::Diffusers),
            Part::A,
        ),
        (
            format!("{to_q}.lora.up.weight"),
            Some(Format::DiffusersScript),
            Part::B,
        ),
        (format!("{to_q}.alpha"), None, Part::Alpha),
        (
            format!("{flat}.lora_down.weight"),
            Some(Format::Kohya),
            Part::A,
        ),
        (
            format!("{flat}.lora_up.weight"),
            Some(Format::Kohya),
            Part::B,
        ),
        (format!("{flat}.alpha"), Some(Format::Kohya), Part::Alpha),
    ] {
        let parsed = parse(&key, None, None).unwrap();
        assert_eq!(parsed.module, to_q);
        assert_eq!((parsed.format, parsed.part), (format, part));
    }
}

#[test]
fn text_encoders_have_one_path() {
    let path = "text_encoder.text_model.encoder.layers.3.self_attn.out_proj";
    for key in [
        "text_encoder.text_model.encoder.layers.3.self_attn.out_proj.lora_A.weight",
        "text_encoder.encoder.layers.3.self_attn.out_proj.lora_A.weight",
        "lora_te_text_model_encoder_layers_3_self_attn_out_proj.lora_down.weight",
        "lora_te1_text_model_encoder_layers_3_self_attn_out_proj.lora_down.weight",
        "lora_te_encoder_layers_3_self_attn_out_proj.lora_down.weight",
    ] {
        assert_eq!(parse(key, None, None).unwrap().module, path, "{key}");
    }
    assert_eq!(
        parse(
            "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha",
            None,
            None
        )
        .unwrap()
        .module,
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"
    );
}

#[test]
fn other_kinds_are_named() {
    let base = "lora_unet_mid_block_attentions_0_proj_in";
    for (suffix, kind) in [
        ("diff_b", "difference of a bias"),
        ("w_norm", "norm"),
        ("oft_blocks", "OFT"),
        ("on_input", "(IA)^3"),
        ("a1.weight", "GLoRA"),
    ] {
        let error = parse(&format!("{base}.{suffix}"), None, None).unwrap_err();
        assert!(matches!(error, LoraError::Unsupported { .. }));
        assert!(error.to_string().contains(kind), "{error}");
    }
    let error = parse("unet.mid_block.x.lora_B.bias", None, None).unwrap_err();
    assert!(error.to_string().contains("bias"));
}

#[test]
fn the_lengths_of_doras_are_known_by_every_name() {
    let path = "unet.mid_block.attentions.0.proj_in";
    for (key, format, part) in [
        (
            "lora_unet_mid_block_attentions_0_proj_in.dora_scale".to_owned(),
            Format::Kohya,
            Part::DoraScale,
        ),
        (
            format!("{path}.lora_magnitude_vector"),
            Format::Diffusers,
            Part::MagnitudeVector,
        ),
        (
            format!("base_model.model.{path}.lora_magnitude_vector.weight"),
            Format::Peft,
            Part::MagnitudeVector,
        ),
        (
            format!("{path}.lora_magnitude_vector.default.weight"),
            Format::Diffusers,
            Part::MagnitudeVector,
        ),
    ] {
        let parsed = parse(&key, None, None).unwrap();
        assert_eq!((parsed.module.as_str(), parsed.part), (path, part));
        assert_eq!(parsed.format, Some(format), "{key}");
    }
}

#[test]
fn foreign_names_are_refused() {
    for key in [
        "base_model.model.conv_in.lora.down.weight",
        "unet.mid_block.attn1.processor.to_x_lora.down.weight",
        "unet.mid_block.attn1.to_q_lora.down.weight",
        "unet.conv_in.lora_C.weight",
        "down_blocks.0.proj_up.weight",
        "lora_unet_conv_in.lora_A.weight",
        "unet..lora_A.weight.x",
        "unet.conv_in.lora_A.two.names.weight",
        "",
    ] {
        let error = parse(key, None, None).unwrap_err();
        assert!(
            matches!(error, LoraError::UnknownKey { .. }),
            "{key}: {error}"
        );
    }
    for (key, path) in [
        (
            "down_blocks.0.proj_up.lora_A.weight",
            "down_blocks.0.proj_up",
        ),
        ("base_model.model.conv_im.lora_A.weight", "conv_im"),
        ("unet.lora_A.weight", "unet"),
        ("base_model.model.lora_A.weight", "base_model.model"),
        (
            "transformer.x.attn.to_q.lora_A.weight",
            "transformer.x.attn.to_q",
        ),
        (
            "base_model.model.model.layers.0.q_proj.lora_B.weight",
            "model.layers.0.q_proj",
        ),
    ] {
        let error = parse(key, None, None).unwrap_err();
        assert!(
            matches!(&error, LoraError::OtherModel { key: k, path: p } if k == key && p == path),
            "{key}: {error}"
        );
    }
    for key in [
        "lora_unet_conv_im.lora_down.weight",
        "lycoris_conv_im.lora_down.weight",
    ] {
        let error = parse(key, None, None).unwrap_err();
        assert!(matches!(error, LoraError::UnknownModule { ref name, .. } if name == "conv_im"));
    }
    let error = parse("lora_unet_conv_im.lora_down.weight", None, None).unwrap_err();
    assert!(matches!(error, LoraError::UnknownModule { ref name, .. } if name == "conv_im"));
}

#[test]
fn older_names_of_attention_lead_to_its_layers() {
    let block = "mid_block.attentions.0.transformer_blocks.0";
    let text = "text_encoder.text_model.encoder.layers.0.self_attn";
    for (key, module, part) in [
        (
            format!("unet.{block}.attn1.processor.to_q_lora.down.weight"),
            format!("unet.{block}.attn1.to_q"),
            Part::A,
        ),
        (
            format!("{block}.attn2.processor.to_out_lora.up.weight"),
            format!("unet.{block}.attn2.to_out.0"),
            Part::B,
        ),
        (
            format!("{text}.to_out_lora.down.weight"),
            format!("{text}.out_proj"),
            Part::A,
        ),
        (
            format!("{text}.q_proj.lora_linear_layer.up.weight"),
            format!("{text}.q_proj"),
            Part::B,
        ),
    ] {
        let parsed = parse(&key, None, None).unwrap();
        assert_eq!((parsed.module, parsed.part), (module, part));
        assert_eq!(parsed.format, Some(Format::DiffusersScript));
    }
}

#[test]
fn a_component_that_is_not_in_the_name_is_found() {
    let unet = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let text = "encoder.layers.3.mlp.fc1";
    for (key, module, format) in [
        (
            format!("base_model.model.{unet}.lora_A.weight"),
            format!("unet.{unet}"),
            Format::Peft,
        ),
        (
            format!("base_model.model.unet.{unet}.lora_A.default.weight"),
            format!("unet.{unet}"),
            Format::Peft,
        ),
        (
            format!("{unet}.lora_B.weight"),
            format!("unet.{unet}"),
            Format::Diffusers,
        ),
        (
            format!("base_model.model.{text}.lora_B.weight"),
            format!("text_encoder.text_model.{text}"),
            Format::Peft,
        ),
        (
            format!("base_model.model.{unet}.hada_w1_a"),
            format!("unet.{unet}"),
            Format::Peft,
        ),
    ] {
        let parsed = parse(&key, None, None).unwrap();
        assert_eq!((parsed.module, parsed.format), (module, Some(format)));
    }
    // Known from outside: by the folder, or by the model's list.
    let key = format!("base_model.model.text_model.{text}.lora_A.weight");
    let parsed = parse(&key, None, Some("text_encoder_2")).unwrap();
    assert_eq!(parsed.module, format!("text_encoder_2.text_model.{text}"));
    let names = ModuleNames::new(["prior.layers.0.mix", "unet.twice", "vae.twice"]).unwrap();
    let parsed = parse(
        "base_model.model.layers.0.mix.lora_A.weight",
        Some(&names),
        None,
    );
    assert_eq!(parsed.unwrap().module, "prior.layers.0.mix");
    assert!(parse("twice.lora_A.weight", Some(&names), None).is_err());
}

#[test]
fn what_is_trained_beside_a_lora_is_named() {
    let to_out = "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0";
    for (key, kind) in [
        (format!("base_model.model.{to_out}.bias"), "a trained bias"),
        (
            format!("base_model.model.{to_out}.base_layer.bias"),
            "a trained bias",
        ),
        (format!("unet.{to_out}.bias"), "a trained bias"),
        (
            "base_model.model.conv_norm_out.weight".to_owned(),
            "a whole weight (modules_to_save)",
        ),
        (
            "base_model.model.conv_in.modules_to_save.default.weight".to_owned(),
            "a whole weight (modules_to_save)",
        ),
        (
            "unet.conv_in.weight".to_owned(),
            "a whole weight (modules_to_save)",
        ),
        (
            format!("unet.{to_out}.lora_B.mine.bias"),
            "LoRA with a bias",
        ),
        ("bundle_emb.cat.clip_l".to_owned(), "a trained embedding"),
    ] {
        let error = parse(&key, None, None).unwrap_err();
        assert!(
            matches!(&error, LoraError::Unsupported { key: k, kind: found } if *k == key && *found == kind),
            "{key}: {error}"
        );
    }
}

#[test]
fn names_of_other_programs_lead_to_the_same_modules() {
    let to_q = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
    let text = "text_model.encoder.layers.3.mlp.fc1";
    for (key, module) in [
        // ComfyUI's LoraSave
        (
            "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_up.weight"
                .to_owned(),
            to_q.to_owned(),
        ),
        (
            format!("text_encoders.clip_g.transformer.{text}.lora_up.weight"),
            format!("text_encoder_2.{text}"),
        ),
        (
            format!("text_encoders.clip_l.transformer.{text}.lora_up.weight"),
            format!("text_encoder.{text}"),
        ),
        (format!("{to_q}.lora_up.weight"), to_q.to_owned()),
        // LyCORIS
        (
            format!(
                "lycoris_{}.lora_up.weight",
                to_q["unet.".len()..].replace('.', "_")
            ),
            to_q.to_owned(),
        ),
    ] {
        let parsed = parse(&key, None, None).unwrap();
        assert_eq!((parsed.module, parsed.part), (module, Part::B), "{key}");
        assert_eq!(parsed.format, Some(Format::Kohya), "{key}");
    }
    for part in ["lora_A", "lora_magnitude_vector"] {
        let parsed = parse(&format!("{to_q}.{part}.my adapter.weight"), None, None);
        assert_eq!(parsed.unwrap().module, to_q);
    }
}

#[test]
fn modules_of_other_models_are_known_by_their_names() {
    let flux = "transformer.transformer_blocks.0.attn.to_q";
    let names = ModuleNames::new([flux, "llm.model.layers.0.q_proj"]).unwrap();
    for (key, module, format) in [
        (format!("{flux}.lora_A.weight"), flux, Format::Diffusers),
        (
            "base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight".to_owned(),
            flux,
            Format::Peft,
        ),
        (
            "base_model.model.model.layers.0.q_proj.lora_A.default.weight".to_owned(),
            "llm.model.layers.0.q_proj",
            Format::Peft,
        ),
    ] {
        let parsed = parse(&key, Some(&names), None).unwrap();
        assert_eq!(
            (parsed.module.as_str(), parsed.format),
            (module, Some(format))
        );
    }
    let error = parse("transformer.other.lora_A.weight", Some(&names), None).unwrap_err();
    assert!(matches!(error, LoraError::OtherModel { .. }));
}
