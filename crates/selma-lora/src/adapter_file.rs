//! Adapter files of any kind.

use std::{collections::BTreeMap, path::Path};

use ndarray::ArrayD;
use serde::Serialize;
use serde_json::json;

use crate::{
    Adapter, Cut, Kind, LeftOut, LoraError, LoraModule, ModuleNames, RankRule, Source, Update,
    batches::in_batches,
    format::{self, Kinds},
    rank::total,
};

/// What a file holds, LoRA or not: LoHa, LoKr and full differences stay what they are, with their
/// dense `dW` at hand, until [`into_adapter`](Self::into_adapter) makes LoRAs of them. What a DoRA does
/// depends on the weights of the model, so that its dense `dW` ([`Update::delta_on`]) and its LoRA
/// ([`into_adapter_on`](Self::into_adapter_on)) take these.
///
/// [`Adapter::load`] reads LoRAs alone and refuses the other kinds, so that none is approximated
/// unasked. Trained norms, biases and embeddings are refused by both, as they are no update of a weight.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFile {
    /// The updates by diffusers path, component included.
    pub updates: BTreeMap<String, Update>,
    /// Free-form notes that travel with the file.
    pub metadata: BTreeMap<String, String>,
    /// The file this was read from.
    pub source: Source,
}

/// What [`AdapterFile::into_adapter`] did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConversionReport {
    /// How ranks were chosen.
    pub rule: RankRule,
    /// Frobenius norm of the whole update.
    pub norm: f64,
    /// Frobenius norm of what was cut off, relative to `norm`.
    pub error: f64,
    /// Every module, by path.
    pub modules: Vec<ConvertedModule>,
}

/// What [`AdapterFile::into_adapter`] did to one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConvertedModule {
    /// The module's path.
    pub module: String,
    /// What it was.
    pub kind: Kind,
    /// Its rank as a LoRA, and what that cost.
    #[serde(flatten)]
    pub cut: Cut,
}

impl AdapterFile {
    /// Reads a file or a PEFT folder like [`Adapter::load`], with updates of every [`Kind`].
    ///
    /// # Errors
    /// As [`Adapter::load`], without [`LoraError::OtherKind`].
    pub fn load(path: impl AsRef<Path>, names: Option<&ModuleNames>) -> Result<Self, LoraError> {
        format::load(path.as_ref(), names, Kinds::All).map(Self::from)
    }

    /// Reads like [`load`](Self::load) without what no LoRA can stand for (biases, norms, whole weights, embeddings,
    /// OFT, ..), of which it gives a list: the updates alone are then not all that the file does.
    ///
    /// # Errors
    /// As [`load`](Self::load), but [`LoraError::Unsupported`] only for what the configuration says of the
    /// whole file; [`LoraError::Empty`] when nothing is left.
    pub fn load_without(
        path: impl AsRef<Path>,
        names: Option<&ModuleNames>,
    ) -> Result<(Self, Vec<LeftOut>), LoraError> {
        let mut content = format::load(path.as_ref(), names, Kinds::Rest)?;
        let left_out = std::mem::take(&mut content.left_out);
        Ok((Self::from(content), left_out))
    }

    /// Reads the bytes of a safetensors file. [`Source::path`] of the result is empty.
    ///
    /// # Errors
    /// What [`load`](Self::load) wraps in [`LoraError::InFile`].
    pub fn from_bytes(bytes: &[u8], names: Option<&ModuleNames>) -> Result<Self, LoraError> {
        format::from_bytes(bytes, names, Kinds::All).map(Self::from)
    }

    /// The kinds of update, with the number of modules of each.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<Kind, usize> {
        let mut kinds = BTreeMap::new();
        for update in self.updates.values() {
            *kinds.entry(update.kind()).or_default() += 1;
        }
        kinds
    }

    /// Makes LoRAs of all updates: what is one already stays as it is, anything else becomes the
    /// best approximation of the rank that `rule` chooses, as many modules at a time as there are threads.
    ///
    /// `model` is a list of modules as [`Model::modules`](crate::Model::modules) gives it. A LoHa or
    /// LoKr of a convolution does not always say how its kernel is shaped, so its modules need the
    /// list; without a list they are taken as linear layers. The metadata stays and gets the entry
    /// `selma_convert`: the rule, and the SHA-256 of the file.
    ///
    /// # Errors
    /// Around the module concerned ([`LoraError::InModule`]): [`LoraError::WeightShapes`] when an
    /// update does not fit the model's weight, [`LoraError::NotInModel`] when the model lacks a module
    /// that is no LoRA, [`LoraError::BaseNeeded`] for DoRA, and what [`Update::to_lora`] finds.
    pub fn into_adapter(
        self,
        rule: RankRule,
        model: Option<&[(String, Vec<usize>)]>,
    ) -> Result<(Adapter, ConversionReport), LoraError> {
        rule.check()?;
        let weights: Option<BTreeMap<&str, &[usize]>> = model.map(|modules| {
            modules
                .iter()
                .map(|(path, shape)| (path.as_str(), shape.as_slice()))
                .collect()
        });
        let nothing = |_: &str, _: &Update| Ok::<_, LoraError>(());
        self.convert(rule, nothing, |path, update, ()| {
            let weight = weights.as_ref().and_then(|map| map.get(path));
            if weights.is_some() && weight.is_none() && update.kind() != Kind::Lora {
                return Err(LoraError::NotInModel);
            }
            update.to_lora(rule, weight.copied())
        })
    }

    /// Like [`into_adapter`](Self::into_adapter) with the weights of the model at hand, which DoRA
    /// needs. `base` gives the weight of a module, `[out, in]` or `[out, in, kh, kw]`, or none where the
    /// model has no such module; it is asked for as many modules at a time as there are threads, and only for those that are no LoRA. A caller that knows the SHA-256 of
    /// the model adds it to the metadata.
    ///
    /// ```no_run
    /// use std::collections::HashMap;
    /// use ndarray::ArrayD;
    /// use selma_lora::{AdapterFile, LoraError, RankRule};
    ///
    /// # fn read_weights() -> HashMap<String, ArrayD<f32>> { HashMap::new() }
    /// let mut weights = read_weights(); // by diffusers path: unet.conv_in ..
    /// let (adapter, report) = AdapterFile::load("dora.safetensors", None)?
    ///     .into_adapter_on(RankRule::Energy(0.99), |module| Ok::<_, LoraError>(weights.remove(module)))?;
    /// println!("{} of the update is lost", report.error);
    /// # Ok::<(), LoraError>(())
    /// ```
    ///
    /// # Errors
    /// What `base` gives; around the module concerned ([`LoraError::InModule`])
    /// [`LoraError::NotInModel`], and what [`Update::to_lora_on`] finds.
    pub fn into_adapter_on<E: From<LoraError>>(
        self,
        rule: RankRule,
        mut base: impl FnMut(&str) -> Result<Option<ArrayD<f32>>, E>,
    ) -> Result<(Adapter, ConversionReport), E> {
        rule.check()?;
        let weight = |path: &str, update: &Update| match update {
            Update::Lora(_) => Ok(None),
            _ => base(path),
        };
        self.convert(rule, weight, |_, update, weight| match (update, weight) {
            (Update::Lora(_), _) => update.to_lora(rule, None),
            (_, Some(weight)) => update.to_lora_on(rule, &weight.view()),
            (_, None) => Err(LoraError::NotInModel),
        })
    }

    /// `gather` runs on this thread, `to_lora` on all, on as many modules as there are threads.
    fn convert<T: Send, E: From<LoraError>>(
        self,
        rule: RankRule,
        mut gather: impl FnMut(&str, &Update) -> Result<T, E>,
        to_lora: impl Fn(&str, &Update, T) -> Result<(LoraModule, Cut), LoraError> + Sync,
    ) -> Result<(Adapter, ConversionReport), E> {
        let mut modules = BTreeMap::new();
        let mut reports = Vec::new();
        let items = self.updates.into_iter().map(|(path, update)| {
            let gathered = gather(&path, &update)?;
            Ok((path, update, gathered))
        });
        let work = |(path, update, gathered): (String, Update, T)| {
            let lora = to_lora(&path, &update, gathered);
            let lora = lora.map_err(|error| error.in_module(&path));
            (path, update.kind(), lora)
        };
        in_batches(items, work, |(path, kind, lora)| {
            let (lora, cut) = lora?;
            modules.insert(path.clone(), lora);
            reports.push(ConvertedModule {
                module: path,
                kind,
                cut,
            });
            Ok::<(), E>(())
        })?;
        let mut metadata = self.metadata;
        let recipe = json!({"rule": rule, "input": self.source.sha256});
        metadata.insert("selma_convert".to_owned(), recipe.to_string());
        let (norm, error) = total(reports.iter().map(|report| report.cut));
        let adapter = Adapter {
            modules,
            metadata,
            source: None,
        };
        let report = ConversionReport {
            rule,
            norm,
            error,
            modules: reports,
        };
        Ok((adapter, report))
    }
}

impl From<format::Content> for AdapterFile {
    fn from(content: format::Content) -> Self {
        Self {
            updates: content.updates,
            metadata: content.metadata,
            source: content.source,
        }
    }
}
