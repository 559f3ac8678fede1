//! Which files of a repository a model consists of.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::HubError;
use crate::id::is_relative;

/// The file that says which parts a model has.
pub(crate) const MODEL_INDEX: &str = "model_index.json";

/// A part with weights: its folder, and how its weight files are called with and without safetensors.
type Network = (&'static str, &'static str, &'static str);

/// Others, such as the safety checker, take no part in drawing.
const NETWORKS: [Network; 4] = [
    ("text_encoder", "model", "pytorch_model"),
    ("text_encoder_2", "model", "pytorch_model"),
    ("unet", "diffusion_pytorch_model", "diffusion_pytorch_model"),
    ("vae", "diffusion_pytorch_model", "diffusion_pytorch_model"),
];
/// A repository of one network alone, such as a VAE, has its files at the top.
const LONE: Network = ("", "diffusion_pytorch_model", "diffusion_pytorch_model");
const LONE_CONFIG: &str = "config.json";
const TOKENIZERS: [&str; 2] = ["tokenizer", "tokenizer_2"];
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
];
/// The variant that is taken where there is nothing else.
const HALF: &str = "fp16";
const WEIGHT_ENDINGS: [&str; 3] = [".safetensors", ".bin", ".ckpt"];

/// The files of a model. Those in `indexes` name further ones: the parts that weights are cut into.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) files: Vec<String>,
    pub(crate) indexes: Vec<String>,
}

/// Chooses among the files of a repository, of which `index` is the content of `model_index.json`.
///
/// Of each network: the weights of the variant that is asked for, else the plain ones, else those of `fp16`; `.bin` only where there
/// is no safetensors.
pub(crate) fn select(
    repository: &str,
    names: &BTreeSet<String>,
    index: &Value,
    variant: Option<&str>,
) -> Result<Selection, HubError> {
    let mut chosen = Selection::default();
    chosen.files.push(MODEL_INDEX.to_owned());
    let mut found_variant = false;
    let incomplete = |component: &str, expected: String| HubError::Incomplete {
        repository: repository.to_owned(),
        component: component.to_owned(),
        expected,
        found: inside(names, component),
    };
    let require = |component: &str, file: &str| {
        let path = format!("{component}/{file}");
        match names.contains(&path) {
            true => Ok(path),
            false => Err(incomplete(component, file.to_owned())),
        }
    };
    if has_part(index, "scheduler") {
        let file = require("scheduler", "scheduler_config.json")?;
        chosen.files.push(file);
    }
    for component in TOKENIZERS.into_iter().filter(|name| has_part(index, name)) {
        let paths = TOKENIZER_FILES.map(|file| format!("{component}/{file}"));
        let found: Vec<String> = paths
            .into_iter()
            .filter(|path| names.contains(path))
            .collect();
        let has = |file: &str| found.iter().any(|path| path.ends_with(file));
        if !(has("/tokenizer.json") || has("/vocab.json") && has("/merges.txt")) {
            let expected = "tokenizer.json, nor vocab.json with merges.txt".to_owned();
            return Err(incomplete(component, expected));
        }
        chosen.files.extend(found);
    }
    for network in NETWORKS
        .into_iter()
        .filter(|network| has_part(index, network.0))
    {
        let component = network.0;
        chosen.files.push(require(component, "config.json")?);
        let weights = weights(network, names, variant).ok_or_else(|| {
            incomplete(
                component,
                format!("{}.safetensors, nor another form of it", network.1),
            )
        })?;
        found_variant |= weights.variant == variant;
        if weights.is_index {
            chosen.indexes.push(weights.path.clone());
        }
        chosen.files.push(weights.path);
    }
    match variant {
        Some(variant) if !found_variant => Err(incomplete(
            "no part",
            format!("weights of the variant {variant:?}"),
        )),
        _ => Ok(chosen),
    }
}

/// Whether a repository is one network alone.
pub(crate) fn is_network(names: &BTreeSet<String>) -> bool {
    let any = |variant| weights(LONE, names, variant).is_some();
    names.contains(LONE_CONFIG) && (any(None) || any(Some(HALF)))
}

/// Chooses among the files of a repository that [`is_network`], as [`select`] does.
pub(crate) fn select_network(
    repository: &str,
    names: &BTreeSet<String>,
    variant: Option<&str>,
) -> Result<Selection, HubError> {
    let weights = weights(LONE, names, variant)
        .filter(|weights| variant.is_none() || weights.variant == variant)
        .ok_or_else(|| HubError::Incomplete {
            repository: repository.to_owned(),
            component: "the repository".to_owned(),
            expected: match variant {
                Some(variant) => format!("weights of the variant {variant:?}"),
                None => format!("{}.safetensors, nor another form of it", LONE.1),
            },
            found: weight_files(names.iter()),
        })?;
    Ok(Selection {
        indexes: weights
            .is_index
            .then(|| weights.path.clone())
            .into_iter()
            .collect(),
        files: vec![LONE_CONFIG.to_owned(), weights.path],
    })
}

/// The weight files of a repository, for an error that shows what there is.
pub(crate) fn weight_files<'a>(names: impl Iterator<Item = &'a String>) -> Vec<String> {
    names
        .filter(|name| WEIGHT_ENDINGS.iter().any(|ending| name.ends_with(ending)))
        .cloned()
        .collect()
}

/// The parts that an index names, by their paths in the repository.
pub(crate) fn shards(index_path: &str, index: &Value) -> Option<BTreeSet<String>> {
    let folder = index_path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let map = index.get("weight_map")?.as_object()?;
    map.values()
        .map(|name| {
            let name = name.as_str().filter(|name| is_relative(name))?;
            Some(within(folder, name))
        })
        .collect()
}

/// `[null, null]` stands for a part that the pipeline could have, but has not.
fn has_part(index: &Value, name: &str) -> bool {
    let part = index.get(name).and_then(Value::as_array);
    part.is_some_and(|part| part.iter().all(|text| !text.is_null()))
}

fn inside(names: &BTreeSet<String>, component: &str) -> Vec<String> {
    let folder = format!("{component}/");
    let inside = names.iter().filter_map(|name| name.strip_prefix(&folder));
    inside.map(str::to_owned).collect()
}

/// The path of a file in a folder, or at the top.
fn within(folder: &str, file: &str) -> String {
    match folder {
        "" => file.to_owned(),
        _ => format!("{folder}/{file}"),
    }
}

struct Weights<'a> {
    path: String,
    is_index: bool,
    variant: Option<&'a str>,
}

fn weights<'a>(
    (component, safe, pickled): Network,
    names: &BTreeSet<String>,
    variant: Option<&'a str>,
) -> Option<Weights<'a>> {
    let variants = match variant {
        Some(_) => [variant, None],
        None => [None, Some(HALF)],
    };
    let forms = [(safe, "safetensors"), (pickled, "bin")];
    let mut candidates = forms.iter().flat_map(|(stem, ending)| {
        variants.into_iter().flat_map(move |variant| {
            let part = variant.map(|name| format!(".{name}")).unwrap_or_default();
            let plain = (format!("{stem}{part}.{ending}"), false);
            let index = (format!("{stem}.{ending}.index{part}.json"), true);
            [plain, index].map(|(file, is_index)| Weights {
                path: within(component, &file),
                is_index,
                variant,
            })
        })
    });
    candidates.find(|weights| names.contains(&weights.path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As the repository of Stable Diffusion 1.5 has it, with more than a model needs.
    const SD15: [&str; 22] = [
        ".gitattributes",
        "README.md",
        "feature_extractor/preprocessor_config.json",
        "model_index.json",
        "safety_checker/config.json",
        "safety_checker/model.safetensors",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "v1-5-pruned.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ];

    fn names(of: &[&str]) -> BTreeSet<String> {
        of.iter().map(|&name| name.to_owned()).collect()
    }

    fn index() -> Value {
        json!({
            "_class_name": "StableDiffusionPipeline",
            "image_encoder": [null, null],
            "requires_safety_checker": true,
            "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        })
    }

    fn chosen(of: &[&str], variant: Option<&str>) -> Result<Selection, HubError> {
        select("a/b", &names(of), &index(), variant)
    }

    #[test]
    fn what_the_model_needs_and_nothing_else() {
        let selection = chosen(&SD15, None).unwrap();
        assert_eq!(
            selection.files,
            [
                "model_index.json",
                "scheduler/scheduler_config.json",
                "tokenizer/vocab.json",
                "tokenizer/merges.txt",
                "tokenizer/special_tokens_map.json",
                "text_encoder/config.json",
                "text_encoder/model.safetensors",
                "unet/config.json",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
            ]
        );
        assert!(selection.indexes.is_empty());
    }

    #[test]
    fn a_variant_where_there_is_one() {
        let files = chosen(&SD15, Some("fp16")).unwrap().files;
        let has = |file: &str| files.iter().any(|found| found == file);
        assert!(has("unet/diffusion_pytorch_model.fp16.safetensors"));
        assert!(
            has("vae/diffusion_pytorch_model.safetensors"),
            "has no other"
        );
        assert!(!has("unet/diffusion_pytorch_model.safetensors"));
        let error = chosen(&SD15, Some("fp8")).unwrap_err().to_string();
        assert!(
            error.contains("no weights of the variant \"fp8\""),
            "{error}"
        );
    }

    #[test]
    fn a_network_alone_has_its_files_at_the_top() {
        let vae = names(&[
            "README.md",
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.safetensors",
            "sdxl_vae.safetensors",
        ]);
        assert!(is_network(&vae) && !is_network(&names(&SD15)));
        let chosen = select_network("a/b", &vae, None).unwrap();
        assert_eq!(
            chosen.files,
            ["config.json", "diffusion_pytorch_model.safetensors"]
        );
        let error = select_network("a/b", &vae, Some("fp16")).unwrap_err();
        assert!(error.to_string().contains("\"fp16\""), "{error}");
        let index = "diffusion_pytorch_model.safetensors.index.json";
        let cut = names(&["config.json", index]);
        assert_eq!(select_network("a/b", &cut, None).unwrap().indexes, [index]);
        let map = json!({"weight_map": {"a": "x-1-of-1.bin"}});
        assert_eq!(shards(index, &map).unwrap(), names(&["x-1-of-1.bin"]));
    }

    #[test]
    fn bin_files_only_where_nothing_is_safer() {
        let without = |ending: &str| {
            let names = SD15.into_iter().filter(|name| !name.ends_with(ending));
            names.collect::<Vec<_>>()
        };
        // The half-precision file is safer than the pickled one.
        let files = chosen(&without("/model.safetensors"), None).unwrap().files;
        assert!(files.contains(&"text_encoder/model.fp16.safetensors".to_owned()));
        let left = without(".fp16.safetensors");
        let left: Vec<&str> = left
            .into_iter()
            .filter(|name| *name != "text_encoder/model.safetensors")
            .collect();
        let files = chosen(&left, None).unwrap().files;
        assert!(files.contains(&"text_encoder/pytorch_model.bin".to_owned()));
        let error = chosen(&without("unet/config.json"), None).unwrap_err();
        assert!(
            error.to_string().contains("a/b: unet has no config.json"),
            "{error}"
        );
        let error = chosen(&without("merges.txt"), None).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("tokenizer has no tokenizer.json"),
            "{error}"
        );
    }

    #[test]
    fn weights_in_parts() {
        let cut = |name: &str| match name {
            "unet/diffusion_pytorch_model.safetensors" => {
                "unet/diffusion_pytorch_model.safetensors.index.json".to_owned()
            }
            "unet/diffusion_pytorch_model.fp16.safetensors" => {
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json".to_owned()
            }
            _ => name.to_owned(),
        };
        let names: BTreeSet<String> = SD15.iter().map(|name| cut(name)).collect();
        for (variant, expected) in [
            (None, "unet/diffusion_pytorch_model.safetensors.index.json"),
            (
                Some("fp16"),
                "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
            ),
        ] {
            let selection = select("a/b", &names, &index(), variant).unwrap();
            assert_eq!(selection.indexes, [expected]);
            assert!(selection.files.iter().any(|file| file == expected));
        }
        let map =
            json!({"weight_map": {"a": "x-1-of-2.bin", "b": "x-2-of-2.bin", "c": "x-1-of-2.bin"}});
        let parts = shards("unet/i.json", &map).unwrap();
        assert_eq!(parts, names_of(["unet/x-1-of-2.bin", "unet/x-2-of-2.bin"]));
        for wrong in [
            json!({}),
            json!({"weight_map": {"a": "../../x"}}),
            json!({"weight_map": {"a": 1}}),
        ] {
            assert!(shards("unet/i.json", &wrong).is_none(), "{wrong}");
        }
    }

    fn names_of(of: [&str; 2]) -> BTreeSet<String> {
        names(&of)
    }
}
