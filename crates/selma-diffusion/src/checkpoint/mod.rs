//! Stable Diffusion on disk: diffusers' folder layout, or a single file in the original layout.

mod agreement;
mod changes;
mod index;
mod names;
mod options;
mod other_vae;
mod stored;
mod tokenizers;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, FloatDType};
use serde::de::DeserializeOwned;

use crate::DiffusionError;
use crate::config::read_json;
use crate::models::{
    AutoencoderKL, AutoencoderKLConfig, ClipTextConfig, ClipTextModel, UNet2DConditionModel,
    UNet2DConditionModelConfig,
};
use crate::presets::{Family, Preset};
use crate::schedulers::{SchedulerConfig, SchedulerKind};
use crate::single_file::{SingleFile, SinglePart};
use crate::weights::{self, Fit, WeightFile, Weights, compare, load, sha256_of};

pub use changes::Difference;
pub use options::{CheckpointOptions, ConfigSource};
pub use stored::{Component, Stored};

use index::read_index;
pub(crate) use names::is_constant;
use names::{text_names, vae_names};

/// The scheduler's configuration in the folder of a pipeline.
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// A configuration, and where it stands.
type Located<C> = (C, PathBuf);

/// A Stable Diffusion on disk, of which nothing large is read before it is asked for.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    options: CheckpointOptions,
    layout: Layout,
    xl: bool,
    force_zeros_for_empty_prompt: bool,
}

#[derive(Debug, Clone)]
enum Layout {
    /// As `save_pretrained` of diffusers' pipelines writes it: `model_index.json`, and one folder a component.
    Folder,
    /// The original layout.
    SingleFile(Box<SingleFile>),
}

impl Checkpoint {
    /// Opens a folder in diffusers' layout, or a file in the original layout.
    ///
    /// # Errors
    ///
    /// If the folder has no `model_index.json` or that describes another kind of pipeline, if no component of the folder has
    /// weights of the variant that is asked for, or if the file cannot be read or holds something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DiffusionError> {
        Self::open_with(path, CheckpointOptions::default())
    }

    /// Opens a folder or a file, and reads from elsewhere what the options say.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        options: CheckpointOptions,
    ) -> Result<Self, DiffusionError> {
        let path = path.as_ref().to_owned();
        let (layout, xl, zeros) = if path.is_file() {
            let config: Option<Located<ClipTextConfig>> = match &options.config {
                Some(source) => {
                    source.config("text_encoder", |preset| Some(preset.text_encoder()))?
                }
                None => None,
            };
            let layers = config.map(|(config, _)| config.num_hidden_layers);
            let single = SingleFile::new(&Weights::open(&path)?, layers)?;
            let xl = single.family() == Family::Sdxl;
            (Layout::SingleFile(Box::new(single)), xl, xl)
        } else {
            let (xl, zeros) = read_index(&path)?;
            if let Some(variant) = &options.variant {
                weights::require_variant(&path, components(xl), variant)?;
            }
            (Layout::Folder, xl, zeros)
        };
        Ok(Self {
            path,
            options,
            layout,
            xl,
            force_zeros_for_empty_prompt: zeros,
        })
    }

    /// Whether this is SDXL: there are two tokenizers and text encoders.
    #[must_use]
    pub fn is_xl(&self) -> bool {
        self.xl
    }

    /// The number type that the networks are loaded in.
    #[must_use]
    pub fn dtype(&self) -> FloatDType {
        self.options.dtype.unwrap_or(FloatDType::F32)
    }

    /// The number type that the weights of the UNet are kept in.
    #[must_use]
    pub fn unet_dtype(&self) -> FloatDType {
        self.options.unet_dtype.unwrap_or(self.dtype())
    }

    /// Whether zeros stand for a negative prompt that is not given (SDXL), rather than the empty text.
    #[must_use]
    pub fn force_zeros_for_empty_prompt(&self) -> bool {
        self.force_zeros_for_empty_prompt
    }

    /// The folder or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The single file, if it is one.
    #[must_use]
    pub fn single_file(&self) -> Option<&SingleFile> {
        match &self.layout {
            Layout::Folder => None,
            Layout::SingleFile(single) => Some(single),
        }
    }

    /// The scheduler that the checkpoint names, or its family's, with its configuration.
    ///
    /// # Errors
    ///
    /// Those of [`scheduler_config`](Self::scheduler_config); if it names a scheduler that is not implemented.
    pub fn scheduler(&self) -> Result<(SchedulerKind, SchedulerConfig), DiffusionError> {
        let config = self.scheduler_config()?;
        Ok((config.kind()?, config))
    }

    /// The configuration alone, from which any scheduler can be built, whether or not the one that it names is implemented.
    ///
    /// # Errors
    ///
    /// If `scheduler/scheduler_config.json` is missing or damaged.
    pub fn scheduler_config(&self) -> Result<SchedulerConfig, DiffusionError> {
        Ok(match (&self.options.config, &self.layout) {
            (Some(ConfigSource::Preset(preset)), _) => preset.scheduler(),
            (Some(ConfigSource::Folder(folder)), _) if folder.join(SCHEDULER).is_file() => {
                SchedulerConfig::load(&folder.join(SCHEDULER))?
            }
            (_, Layout::Folder) => SchedulerConfig::load(&self.path.join(SCHEDULER))?,
            (_, Layout::SingleFile(single)) => single.scheduler().clone(),
        })
    }

    /// The text encoder.
    ///
    /// Files with and without the level `text_model.` are read; both are in use.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn text_encoder(
        &self,
        device: &Device,
    ) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
        clip(self.stored_text_encoder()?, self.dtype(), device)
    }

    /// The second text encoder of SDXL: the one whose pooled output is used.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn text_encoder_2(
        &self,
        device: &Device,
    ) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
        clip(self.stored_text_encoder_2()?, self.dtype(), device)
    }

    /// The denoising network.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn unet(
        &self,
        device: &Device,
    ) -> Result<Component<UNet2DConditionModelConfig, UNet2DConditionModel>, DiffusionError> {
        let stored = self.stored_unet()?;
        let model = stored.model(|config| config.init(device))?;
        let dtype = self.unet_dtype();
        Ok(Component {
            model: load(model, &stored.weights, dtype, str::to_owned, |_| false)?,
            config: stored.config,
        })
    }

    /// The VAE.
    ///
    /// # Errors
    ///
    /// If its files are missing, damaged, or do not fit each other.
    pub fn vae(
        &self,
        device: &Device,
    ) -> Result<Component<AutoencoderKLConfig, AutoencoderKL>, DiffusionError> {
        let stored = self.stored_vae()?;
        let model = stored.model(|config| config.init(device))?;
        Ok(Component {
            model: load(
                model,
                &stored.weights,
                vae_dtype(self.dtype(), self.xl, &stored.config),
                vae_names(&stored.weights),
                |_| false,
            )?,
            config: stored.config,
        })
    }

    /// The text encoder's configuration and tensors.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn stored_text_encoder(&self) -> Result<Stored<ClipTextConfig>, DiffusionError> {
        let config = self.text_encoder_config()?;
        self.stored("text_encoder", config, |single| Some(single.text_encoder()))
    }

    /// The second text encoder's configuration and tensors (SDXL).
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged, or there is no second one.
    pub fn stored_text_encoder_2(&self) -> Result<Stored<ClipTextConfig>, DiffusionError> {
        let config = self.text_encoder_2_config()?;
        self.stored("text_encoder_2", config, SingleFile::text_encoder_2)
    }

    /// The UNet's configuration and tensors.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn stored_unet(&self) -> Result<Stored<UNet2DConditionModelConfig>, DiffusionError> {
        self.stored("unet", self.unet_config()?, |single| Some(single.unet()))
    }

    /// The VAE's configuration and tensors: those of the options, or else the checkpoint's own.
    ///
    /// # Errors
    ///
    /// If its files are missing or damaged.
    pub fn stored_vae(&self) -> Result<Stored<AutoencoderKLConfig>, DiffusionError> {
        if let Some(path) = &self.options.vae {
            let preset = match (&self.options.config, self.single_file()) {
                (Some(ConfigSource::Preset(preset)), _) => *preset,
                (_, Some(single)) => single.preset(),
                (_, None) if self.xl => Preset::SdxlBase,
                (_, None) => Preset::Sd15,
            };
            let given = match &self.options.config {
                Some(source) => source.config("vae", |preset| Some(preset.vae()))?,
                None => None,
            };
            return other_vae::stored(path, given, preset);
        }
        let published = |preset: Preset| Some(preset.vae());
        let config = self.config("vae", published, |single| Some(single.vae()))?;
        self.stored("vae", config, |single| Some(single.vae()))
    }

    fn text_encoder_config(&self) -> Result<Located<ClipTextConfig>, DiffusionError> {
        let published = |preset: Preset| Some(preset.text_encoder());
        self.config("text_encoder", published, |single| {
            Some(single.text_encoder())
        })
    }

    fn text_encoder_2_config(&self) -> Result<Located<ClipTextConfig>, DiffusionError> {
        let published = Preset::text_encoder_2;
        self.config("text_encoder_2", published, SingleFile::text_encoder_2)
    }

    fn unet_config(&self) -> Result<Located<UNet2DConditionModelConfig>, DiffusionError> {
        let published = |preset: Preset| Some(preset.unet());
        self.config("unet", published, |single| Some(single.unet()))
    }

    /// Compares each component's weights with its configuration, without reading a value.
    ///
    /// # Errors
    ///
    /// If files are missing or damaged, or a configuration cannot be used or contradicts another.
    pub fn fits(&self, device: &Device) -> Result<Vec<(&'static str, Fit)>, DiffusionError> {
        self.require_agreement()?;
        let text = |stored: Stored<ClipTextConfig>| {
            let model = stored.model(|config| config.init(device))?;
            let weights = &stored.weights;
            let names = text_names(weights);
            Ok::<_, DiffusionError>(compare(&model, weights, names, is_constant))
        };
        let mut fits = vec![("text_encoder", text(self.stored_text_encoder()?)?)];
        if self.xl {
            fits.push(("text_encoder_2", text(self.stored_text_encoder_2()?)?));
        }
        let unet = self.stored_unet()?;
        let model = unet.model(|config| config.init(device))?;
        let fit = compare(&model, &unet.weights, str::to_owned, |_| false);
        fits.push(("unet", fit));
        let vae = self.stored_vae()?;
        let model = vae.model(|config| config.init(device))?;
        let fit = compare(&model, &vae.weights, vae_names(&vae.weights), |_| false);
        fits.push(("vae", fit));
        Ok(fits)
    }

    /// The configuration of a component: that of the options, or the checkpoint's own.
    fn config<C: DeserializeOwned + Clone>(
        &self,
        name: &'static str,
        published: impl Fn(Preset) -> Option<C>,
        part: impl Fn(&SingleFile) -> Option<&SinglePart<C>>,
    ) -> Result<Located<C>, DiffusionError> {
        if let Some(source) = &self.options.config
            && let Some(given) = source.config(name, published)?
        {
            return Ok(given);
        }
        match &self.layout {
            Layout::Folder => {
                let path = self.path.join(name).join("config.json");
                Ok((read_json(&path)?, path))
            }
            Layout::SingleFile(single) => {
                let part = part(single).ok_or_else(|| no_component(single, name))?;
                Ok((part.config.clone(), self.path.clone()))
            }
        }
    }

    fn stored<C>(
        &self,
        name: &'static str,
        (config, config_path): Located<C>,
        part: impl Fn(&SingleFile) -> Option<&SinglePart<C>>,
    ) -> Result<Stored<C>, DiffusionError> {
        let weights = match &self.layout {
            Layout::Folder => Weights::open(self.weight_file(name)?.path)?,
            Layout::SingleFile(single) => {
                let part = part(single).ok_or_else(|| no_component(single, name))?;
                part.weights.clone()
            }
        };
        Ok(Stored {
            config,
            weights,
            config_path,
        })
    }

    /// SHA-256 over the weight files of all components: what a picture owes its look to.
    ///
    /// # Errors
    ///
    /// If a file cannot be read.
    pub fn sha256(&self) -> Result<String, DiffusionError> {
        sha256_of(&self.weight_files()?)
    }

    /// SHA-256 over the weight files of the VAE that the options name, if they name one.
    ///
    /// # Errors
    ///
    /// If it has no files, or one cannot be read.
    pub fn other_vae_sha256(&self) -> Result<Option<String>, DiffusionError> {
        let hash = |path: &PathBuf| sha256_of(&other_vae::files(path)?);
        self.options.vae.as_ref().map(hash).transpose()
    }

    /// The weight files of all components, or the single file; a VAE that the options name comes last.
    ///
    /// # Errors
    ///
    /// If a component of a folder has none.
    pub fn weight_files(&self) -> Result<Vec<PathBuf>, DiffusionError> {
        let mut files = Vec::new();
        if self.single_file().is_some() {
            files.push(self.path.clone());
        } else {
            for &name in components(self.xl) {
                if name != "vae" || self.options.vae.is_none() {
                    files.extend(self.weight_file(name)?.files);
                }
            }
        }
        if let Some(path) = &self.options.vae {
            files.extend(other_vae::files(path)?);
        }
        Ok(files)
    }

    fn weight_file(&self, name: &str) -> Result<WeightFile, DiffusionError> {
        weights::find(&self.path.join(name), self.options.variant.as_deref())
    }
}

/// The folders with weights.
fn components(xl: bool) -> &'static [&'static str] {
    if xl {
        &["text_encoder", "unet", "vae", "text_encoder_2"]
    } else {
        &["text_encoder", "unet", "vae"]
    }
}

fn no_component(single: &SingleFile, name: &str) -> DiffusionError {
    DiffusionError::Request {
        what: "component",
        expected: format!("one that {} has", single.family()),
        found: name.to_owned(),
    }
}

fn clip(
    stored: Stored<ClipTextConfig>,
    dtype: FloatDType,
    device: &Device,
) -> Result<Component<ClipTextConfig, ClipTextModel>, DiffusionError> {
    let model = stored.model(|config| config.init(device))?;
    let weights = &stored.weights;
    Ok(Component {
        model: load(model, weights, dtype, text_names(weights), is_constant)?,
        config: stored.config,
    })
}

/// The number type of the VAE where the other networks have `dtype`: that of SDXL overflows in `f16`, unless its configuration
/// says by `force_upcast` that it is the one that was made for it.
pub(crate) fn vae_dtype(dtype: FloatDType, xl: bool, config: &AutoencoderKLConfig) -> FloatDType {
    match dtype {
        FloatDType::F16 if xl && config.force_upcast => FloatDType::F32,
        _ => dtype,
    }
}
