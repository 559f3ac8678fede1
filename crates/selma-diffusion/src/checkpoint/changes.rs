//! Adapters into checkpoints, and out of what tells two checkpoints apart.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use selma_durable::sha256;
use selma_lora::fuse::{fuse_file, fuse_folder, module_of};
use selma_lora::{
    Adapter, AdapterFile, ConversionReport, ExtractReport, FuseReport, RankRule, WeightPair,
    Weighted,
};
use serde_json::{Value, json};

use super::Checkpoint;
use crate::DiffusionError;
use crate::weights::Weights;

/// What tells a checkpoint apart from another.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The layers that differ, as a LoRA. Its metadata has the SHA-256 of the weight files of both.
    pub adapter: Adapter,
    /// The ranks, and what they cost.
    pub report: ExtractReport,
    /// Tensors that differ and can have no LoRA: biases, norms, embeddings, and the VAE. The adapter lacks them.
    pub others: Vec<String>,
}

/// The weights of a component, by module or by name.
#[derive(Debug)]
struct Tensors {
    weights: Weights,
    /// What this crate calls the tensors, and their names in the file.
    names: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Adds adapters to the weights on disk: a new folder or file of the same layout, which appears when it is complete. Files are read and written
    /// from start to end, so that the model need not fit the memory. See [`fuse_folder`] and [`fuse_file`].
    ///
    /// # Errors
    ///
    /// If an adapter does not fit the model, the weights are not in safetensors files, a sum does not fit their number type, or `out` cannot be written.
    pub fn fuse_to(
        &self,
        out: &Path,
        adapters: &[Weighted<'_>],
    ) -> Result<FuseReport, DiffusionError> {
        Ok(match self.single_file() {
            None => fuse_folder(&self.path, out, adapters)?,
            Some(single) => {
                let places = |tensor: &str| single.places(tensor).to_vec();
                fuse_file(&self.path, out, places, adapters)?
            }
        })
    }

    /// What tells `tuned` apart from this checkpoint, which it was trained from, as an adapter whose ranks `rule` chooses. Either may be a folder or a
    /// single file; one layer is in memory at a time.
    ///
    /// # Errors
    ///
    /// If files are missing or damaged, the two are not of the same architecture, or the rule cannot be used.
    pub fn difference(&self, tuned: &Self, rule: RankRule) -> Result<Difference, DiffusionError> {
        if self.xl != tuned.xl {
            let name = |xl| if xl { "SDXL" } else { "one text encoder" };
            return Err(DiffusionError::Request {
                what: "the tuned model",
                expected: format!("{}, as the base", name(self.xl)),
                found: name(tuned.xl).to_owned(),
            });
        }
        rule.check()?;
        let mut layers = Vec::new();
        let mut others = Vec::new();
        let mut components = Vec::new();
        let both = self.components()?.into_iter().zip(tuned.components()?);
        for ((component, base), (_, tuned)) in both {
            base.same_names(&tuned)?;
            components.push((component, base, tuned));
        }
        for (component, base, tuned) in &components {
            for name in base.names.keys() {
                match base.layer(component, name) {
                    Some(module) => layers.push((module, base, tuned, name)),
                    None => {
                        if base.read(name)? != tuned.read(name)? {
                            others.push(format!("{component}.{name}"));
                        }
                    }
                }
            }
        }
        let pairs = layers.into_iter().map(|(module, base, tuned, name)| {
            Ok::<_, DiffusionError>(WeightPair {
                module,
                base: base.read(name)?,
                tuned: tuned.read(name)?,
            })
        });
        let (mut adapter, report) = Adapter::extract(pairs, rule)?;
        let recipe = json!({"rule": rule, "base": self.hashes()?, "tuned": tuned.hashes()?});
        let recipe = recipe.to_string();
        adapter.metadata.insert("selma_extract".to_owned(), recipe);
        Ok(Difference {
            adapter,
            report,
            others,
        })
    }

    /// Makes LoRAs of the updates of a file that are none, as [`AdapterFile::into_adapter_on`] does: this checkpoint is the model that it is for, whose
    /// weights a DoRA needs. One layer is in memory at a time. The metadata gets the SHA-256 of the weight files.
    ///
    /// # Errors
    ///
    /// If files of the checkpoint are missing or damaged, an update does not fit the model, or the rule cannot be used.
    pub fn to_lora(
        &self,
        file: AdapterFile,
        rule: RankRule,
    ) -> Result<(Adapter, ConversionReport), DiffusionError> {
        let components = self.components()?;
        let mut places = BTreeMap::new();
        for (component, tensors) in &components {
            for name in tensors.names.keys() {
                if let Some(module) = tensors.layer(component, name) {
                    places.insert(module, (tensors, name));
                }
            }
        }
        let weight = |module: &str| match places.get(module) {
            Some((tensors, name)) => tensors.read(name).map(Some),
            None => Ok(None),
        };
        let (mut adapter, report) = file.into_adapter_on(rule, weight)?;
        let base = self.hashes()?.to_string();
        adapter
            .metadata
            .insert("selma_convert_base".to_owned(), base);
        Ok((adapter, report))
    }

    /// The weights of all components.
    fn components(&self) -> Result<Vec<(&'static str, Tensors)>, DiffusionError> {
        let mut components = vec![
            ("unet", self.stored_unet()?.weights),
            ("text_encoder", self.stored_text_encoder()?.weights),
        ];
        if self.xl {
            components.push(("text_encoder_2", self.stored_text_encoder_2()?.weights));
        }
        components.push(("vae", self.stored_vae()?.weights));
        let named = components
            .into_iter()
            .map(|(name, weights)| (name, Tensors::new(name, weights)));
        Ok(named.collect())
    }

    /// The SHA-256 of a single file, or of every weight file by its path in the folder.
    fn hashes(&self) -> Result<Value, DiffusionError> {
        if self.single_file().is_some() {
            return Ok(json!(hex::encode(sha256(&self.path)?)));
        }
        let mut hashes = BTreeMap::new();
        for path in self.weight_files()? {
            let inside = path.strip_prefix(&self.path).unwrap_or(&path);
            let name = inside.to_string_lossy().replace('\\', "/");
            hashes.insert(name, hex::encode(sha256(&path)?));
        }
        Ok(json!(hashes))
    }
}

impl Tensors {
    fn new(component: &str, weights: Weights) -> Self {
        let names = weights.names().filter(|name| !super::is_constant(name));
        let named = names.map(|name| {
            let known = if component == "vae" {
                super::names::new_attention_name(name)
            } else if component.starts_with("text_encoder")
                && !name.starts_with("text_model.")
                && !name.starts_with("text_projection.")
            {
                format!("text_model.{name}")
            } else {
                name.to_owned()
            };
            (known, name.to_owned())
        });
        Self {
            names: named.collect(),
            weights,
        }
    }

    /// Refuses two files that do not have the same tensors.
    fn same_names(&self, other: &Self) -> Result<(), DiffusionError> {
        for (one, two) in [(self, other), (other, self)] {
            let mut lacking = one
                .names
                .keys()
                .filter(|name| !two.names.contains_key(*name));
            if let Some(name) = lacking.next() {
                return Err(DiffusionError::NoTensor {
                    path: two.weights.path().to_owned(),
                    key: name.clone(),
                    found: two
                        .names
                        .keys()
                        .take(8)
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(", "),
                });
            }
        }
        Ok(())
    }

    /// The module that a tensor is the weight of, if it can have a LoRA.
    fn layer(&self, component: &str, name: &str) -> Option<String> {
        let shape = self.weights.shape(self.names.get(name)?)?;
        // Tables of embeddings look like weights.
        let table = name.contains("embeddings.");
        let layer = component != "vae" && [2, 4].contains(&shape.len()) && !table;
        Some(module_of(component, name).filter(|_| layer)?.module)
    }

    fn read(&self, name: &str) -> Result<ArrayD<f32>, DiffusionError> {
        let key = self.names.get(name).map_or(name, String::as_str);
        let (values, shape) = self.weights.require(key)?;
        if let Some(tensor) = self.weights.tensor(key) {
            tensor.release();
        }
        // A tensor has as many values as its shape says.
        Ok(ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap_or_default())
    }
}
