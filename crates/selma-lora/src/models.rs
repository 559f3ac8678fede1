//! The layers of the published models that can have a LoRA.

use std::{fmt, str::FromStr, sync::LazyLock};

use serde::{Deserialize, Serialize};

use crate::{Adapter, LoraError, LoraModule, ModuleNames, matching::same_weight};

/// A published model whose layers are known: every linear layer and convolution of its UNet and text
/// encoders, by diffusers path, with the shape of its weight. The tables were made from the published
/// configurations by `tools/make_module_tables.py`.
///
/// ```
/// use selma_lora::Model;
///
/// let modules = Model::Sdxl.modules();
/// let unet = modules.iter().filter(|(path, _)| path.starts_with("unet."));
/// assert_eq!(unet.count(), 794);
/// assert!(modules.contains(&("unet.conv_in".to_owned(), vec![320, 4, 3, 3])));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Model {
    /// Stable Diffusion 1.1 to 1.5.
    Sd1,
    /// Stable Diffusion 2.0 and 2.1.
    Sd2,
    /// Stable Diffusion XL, base.
    Sdxl,
}

type Modules = Vec<(String, Vec<usize>)>;

static SD1: LazyLock<Modules> = LazyLock::new(|| expand(include_str!("models/sd1.txt")));
static SD2: LazyLock<Modules> = LazyLock::new(|| expand(include_str!("models/sd2.txt")));
static SDXL: LazyLock<Modules> = LazyLock::new(|| expand(include_str!("models/sdxl.txt")));

impl Model {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Sd1, Self::Sd2, Self::Sdxl];

    /// Path and weight shape, `[out, in]` or `[out, in, kh, kw]`, of every layer, in order: what
    /// [`Adapter::match_modules`] takes.
    #[must_use]
    pub fn modules(self) -> &'static [(String, Vec<usize>)] {
        match self {
            Self::Sd1 => &SD1,
            Self::Sd2 => &SD2,
            Self::Sdxl => &SDXL,
        }
    }

    /// The names that kohya files give to the layers: what [`Adapter::load_with`] takes.
    ///
    /// # Errors
    /// [`LoraError::AmbiguousName`], which the tables do not give rise to.
    pub fn names(self) -> Result<ModuleNames, LoraError> {
        ModuleNames::new(self.modules().iter().map(|(path, _)| path.as_str()))
    }

    /// The model that every module of the adapter fits, in the order of [`ALL`](Self::ALL); `None`
    /// when there is none. An adapter of few modules may fit more than one.
    #[must_use]
    pub fn of(adapter: &Adapter) -> Option<Self> {
        let fits = |model: Self, path: &String, module: &LoraModule| {
            let modules = model.modules();
            let index = modules.binary_search_by(|(name, _)| name.cmp(path)).ok();
            let weight = index.and_then(|index| modules.get(index));
            weight.is_some_and(|(_, weight)| same_weight(weight, &module.weight_shape()))
        };
        let mut candidates = Self::ALL
            .into_iter()
            .filter(|_| !adapter.modules.is_empty());
        candidates.find(|&model| {
            let mut modules = adapter.modules.iter();
            modules.all(|(path, module)| fits(model, path, module))
        })
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sd1 => "sd1",
            Self::Sd2 => "sd2",
            Self::Sdxl => "sdxl",
        })
    }
}

impl FromStr for Model {
    type Err = LoraError;

    fn from_str(name: &str) -> Result<Self, LoraError> {
        Self::ALL
            .into_iter()
            .find(|model| model.to_string() == name)
            .ok_or_else(|| LoraError::UnknownName {
                what: "model",
                found: name.to_owned(),
                expected: "sd1, sd2, sdxl",
            })
    }
}

/// The lines of a table, ranges written out. A test holds that no line is malformed.
fn expand(table: &str) -> Modules {
    let mut modules: Modules = table.lines().filter_map(line).flatten().collect();
    modules.sort();
    modules
}

/// `unet.down_blocks.0.attentions.0-1.proj_in 320 320 1 1`, which stands for two layers.
fn line(line: &str) -> Option<Modules> {
    let mut words = line.split(' ');
    let mut paths = vec![String::new()];
    for piece in words.next()?.split('.') {
        let range = piece
            .split_once('-')
            .and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        let pieces: Vec<String> = match range {
            Some((first, last)) => (first..=last).map(|n: usize| n.to_string()).collect(),
            None => vec![piece.to_owned()],
        };
        paths = paths
            .iter()
            .flat_map(|path| pieces.iter().map(move |piece| (path, piece)))
            .map(|(path, piece)| match path.as_str() {
                "" => piece.clone(),
                path => format!("{path}.{piece}"),
            })
            .collect();
    }
    let shape = words.map(|n| n.parse().ok()).collect::<Option<Vec<_>>>()?;
    Some(
        paths
            .into_iter()
            .map(|path| (path, shape.clone()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::init;

    #[test]
    fn the_tables_have_every_layer_once() {
        // Counted by the script on the models themselves; the UNets of SD 1 and 2 have the same layers.
        for (model, table, count) in [
            (Model::Sd1, include_str!("models/sd1.txt"), 354),
            (Model::Sd2, include_str!("models/sd2.txt"), 420),
            (Model::Sdxl, include_str!("models/sdxl.txt"), 1059),
        ] {
            assert!(table.lines().all(|text| line(text).is_some()));
            let modules = model.modules();
            let paths: BTreeSet<&String> = modules.iter().map(|(path, _)| path).collect();
            assert_eq!((modules.len(), paths.len()), (count, count), "{model}");
            assert!(
                modules
                    .iter()
                    .all(|(_, shape)| [2, 4].contains(&shape.len()))
            );
            assert_eq!(model.to_string().parse::<Model>().unwrap(), model);
            model.names().unwrap();
        }
        assert!("sd3".parse::<Model>().is_err());
    }

    #[test]
    fn the_models_differ_where_they_should() {
        let shape = |model: Model, path: &str| {
            let module = model.modules().iter().find(|(name, _)| name == path);
            module.map(|(_, shape)| shape.clone())
        };
        let cross = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
        assert_eq!(shape(Model::Sd1, cross), Some(vec![1280, 768]));
        assert_eq!(shape(Model::Sd2, cross), Some(vec![1280, 1024]));
        assert_eq!(shape(Model::Sdxl, cross), Some(vec![1280, 2048]));
        let proj_in = "unet.mid_block.attentions.0.proj_in";
        assert_eq!(shape(Model::Sd1, proj_in), Some(vec![1280, 1280, 1, 1]));
        assert_eq!(shape(Model::Sdxl, proj_in), Some(vec![1280, 1280]));
        assert_eq!(shape(Model::Sd2, "text_encoder_2.text_projection"), None);
    }

    #[test]
    fn an_adapter_tells_its_model() {
        let adapter = |path: &str, shape: &[usize]| {
            let module = init::gaussian(path, shape, 2, 2.0, 0).unwrap();
            Adapter::new([(path.to_owned(), module)])
        };
        let cross = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
        assert_eq!(Model::of(&adapter(cross, &[1280, 1024])), Some(Model::Sd2));
        assert_eq!(Model::of(&adapter(cross, &[1280, 4096])), None);
        assert_eq!(Model::of(&adapter("unet.other", &[1280, 1024])), None);
        assert_eq!(Model::of(&Adapter::default()), None);
    }
}
