//! Finding the adaptable layers of a model by their paths.

use burn::tensor::Device;

use super::{LoraConv2d, LoraLinear};

/// A layer that can carry branches.
#[derive(Debug)]
pub enum LoraLayerMut<'a> {
    /// A linear layer.
    Linear(&'a mut LoraLinear),
    /// A convolution.
    Conv2d(&'a mut LoraConv2d),
}

impl LoraLayerMut<'_> {
    /// Shape of the base weight: `[out, in]` or `[out, in, kh, kw]`.
    #[must_use]
    pub fn weight_shape(&self) -> Vec<usize> {
        match self {
            Self::Linear(layer) => layer.weight.lazy_shape().to_vec(),
            Self::Conv2d(layer) => layer.weight.lazy_shape().to_vec(),
        }
    }

    /// The device of the base weight.
    #[must_use]
    pub fn device(&self) -> Device {
        match self {
            Self::Linear(layer) => layer.weight.lazy_device(),
            Self::Conv2d(layer) => layer.weight.lazy_device(),
        }
    }
}

/// A module that can list its adaptable layers.
///
/// Implement it for a struct of layers with [`lora_layers!`](crate::lora_layers).
pub trait LoraLayers {
    /// Appends every adaptable layer below this module with its dotted path, which starts with `path`.
    ///
    /// Paths are those of the checkpoint without the trailing `.weight`, for example
    /// `unet.mid_block.attentions.0.proj_in`.
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>);

    /// All adaptable layers below this module, with paths that start with `path`.
    fn lora_layers(&mut self, path: &str) -> Vec<(String, LoraLayerMut<'_>)>
    where
        Self: Sized,
    {
        let mut layers = Vec::new();
        self.push_layers(path, &mut layers);
        layers
    }
}

impl LoraLayers for LoraLinear {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        layers.push((path.to_owned(), LoraLayerMut::Linear(self)));
    }
}

impl LoraLayers for LoraConv2d {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        layers.push((path.to_owned(), LoraLayerMut::Conv2d(self)));
    }
}

impl<T: LoraLayers> LoraLayers for Option<T> {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        if let Some(module) = self {
            module.push_layers(path, layers);
        }
    }
}

impl<T: LoraLayers> LoraLayers for Vec<T> {
    fn push_layers<'a>(&'a mut self, path: &str, layers: &mut Vec<(String, LoraLayerMut<'a>)>) {
        for (index, module) in self.iter_mut().enumerate() {
            module.push_layers(&format!("{path}.{index}"), layers);
        }
    }
}

/// Implements [`LoraLayers`](crate::nn::LoraLayers) for a struct by naming its fields that hold layers.
///
/// ```
/// use burn::tensor::Device;
/// use selma_lora::lora_layers;
/// use selma_lora::nn::{LoraLayers, LoraLinear, LoraLinearConfig};
///
/// struct Mlp {
///     fc1: LoraLinear,
///     fc2: LoraLinear,
/// }
/// lora_layers!(Mlp { fc1, fc2 });
///
/// let device = Device::flex();
/// let mut mlp = Mlp {
///     fc1: LoraLinearConfig::new(4, 8).init(&device),
///     fc2: LoraLinearConfig::new(8, 4).init(&device),
/// };
/// let paths: Vec<String> = mlp.lora_layers("mlp").into_iter().map(|(path, _)| path).collect();
/// assert_eq!(paths, ["mlp.fc1", "mlp.fc2"]);
/// ```
#[macro_export]
macro_rules! lora_layers {
    ($module:ty { $($field:ident),* $(,)? }) => {
        impl $crate::nn::LoraLayers for $module {
            fn push_layers<'a>(
                &'a mut self,
                path: &str,
                layers: &mut Vec<(String, $crate::nn::LoraLayerMut<'a>)>,
            ) {
                $(
                    let name = stringify!($field);
                    let path_of_field = if path.is_empty() {
                        name.to_owned()
                    } else {
                        format!("{path}.{name}")
                    };
                    self.$field.push_layers(&path_of_field, layers);
                )*
            }
        }
    };
}
