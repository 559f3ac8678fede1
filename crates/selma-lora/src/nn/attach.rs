//! Adapters onto models and back.

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{ArrayD, IxDyn};

use super::fuse::unfuse_where;
use super::{LoraBranch, LoraLayerMut, LoraLayers};
use crate::{Adapter, LoadReport, LoraError, LoraModule};

/// Adds an adapter to a model as branches called `name`, with strength `weight`.
///
/// `prefix` is the component that the model is, for example `unet`; only the adapter's modules of that component are
/// considered. The report says what was matched.
///
/// # Errors
///
/// [`LoraError::NothingMatched`] if no module of the adapter belongs to the model, and the errors of
/// [`Adapter::match_modules`] for modules that the model does not have or that have another shape there. The model is
/// not changed then.
pub fn attach(
    model: &mut impl LoraLayers,
    prefix: &str,
    adapter: &Adapter,
    name: &str,
    weight: f64,
) -> Result<LoadReport, LoraError> {
    let layers = model.lora_layers(prefix);
    let shapes: Vec<(String, Vec<usize>)> = layers
        .iter()
        .map(|(path, layer)| (path.clone(), layer.weight_shape()))
        .collect();
    let part = component(adapter, prefix);
    let report = part.match_modules(&shapes)?.strict()?;
    for (path, layer) in layers {
        let Some(module) = part.modules.get(&path) else {
            continue;
        };
        let device = layer.device();
        match layer {
            LoraLayerMut::Linear(linear) => {
                linear.branches.push(branch(module, name, weight, &device));
            }
            LoraLayerMut::Conv2d(conv) => {
                conv.branches.push(branch(module, name, weight, &device));
            }
        }
    }
    Ok(report)
}

/// Removes all branches called `name`; the number of layers that had one. Where it was fused, the other branches of the layer are branches again.
pub fn detach(model: &mut impl LoraLayers, name: &str) -> usize {
    fn remove<const D: usize>(branches: &mut Vec<LoraBranch<D>>, name: &str) -> usize {
        let before = branches.len();
        branches.retain(|branch| branch.name != name);
        before - branches.len()
    }
    model
        .lora_layers("")
        .into_iter()
        .map(|(_, mut layer)| {
            unfuse_where(&mut layer, |fused| fused == name);
            match layer {
                LoraLayerMut::Linear(linear) => remove(&mut linear.branches, name),
                LoraLayerMut::Conv2d(conv) => remove(&mut conv.branches, name),
            }
        })
        .sum()
}

/// Sets the strength of all branches called `name`; the number of layers that have one. Where it was fused, the branches of the layer are branches again.
pub fn set_weight(model: &mut impl LoraLayers, name: &str, weight: f64) -> usize {
    fn set<const D: usize>(branches: &mut [LoraBranch<D>], name: &str, weight: f64) -> usize {
        let mut named = 0;
        for branch in branches.iter_mut().filter(|branch| branch.name == name) {
            branch.weight = weight;
            named += 1;
        }
        named
    }
    model
        .lora_layers("")
        .into_iter()
        .map(|(_, mut layer)| {
            unfuse_where(&mut layer, |fused| fused == name);
            match layer {
                LoraLayerMut::Linear(linear) => set(&mut linear.branches, name, weight),
                LoraLayerMut::Conv2d(conv) => set(&mut conv.branches, name, weight),
            }
        })
        .sum()
}

/// Takes the branches called `name` out of a model as an adapter, as they stand now; the model keeps them. Branches that are fused are not found.
///
/// Paths start with `prefix`. The strength set with [`set_weight`] is not part of the adapter.
///
/// # Errors
///
/// [`LoraError`] if factors do not belong together or cannot be read from the device.
pub fn extract(
    model: &mut impl LoraLayers,
    prefix: &str,
    name: &str,
) -> Result<Adapter, LoraError> {
    let mut modules = Vec::new();
    for (path, layer) in model.lora_layers(prefix) {
        let module = match layer {
            LoraLayerMut::Linear(linear) => find(&linear.branches, name),
            LoraLayerMut::Conv2d(conv) => find(&conv.branches, name),
        };
        if let Some(module) = module {
            modules.push((
                path.clone(),
                module.map_err(|error| error.in_module(&path))?,
            ));
        }
    }
    Ok(Adapter::new(modules))
}

/// The modules of an adapter below one component.
fn component(adapter: &Adapter, prefix: &str) -> Adapter {
    let below = |path: &str| {
        let rest = path.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.starts_with('.'))
    };
    let modules = adapter.modules.iter().filter(|(path, _)| below(path));
    Adapter::new(modules.map(|(path, module)| (path.clone(), module.clone())))
}

fn find<const D: usize>(
    branches: &[LoraBranch<D>],
    name: &str,
) -> Option<Result<LoraModule, LoraError>> {
    let branch = branches.iter().find(|branch| branch.name == name)?;
    let rank = branch.a.dims().first().copied().unwrap_or_default();
    let module = host(&branch.a)
        .and_then(|a| Ok((a, host(&branch.b)?)))
        .and_then(|(a, b)| LoraModule::new(a, b, branch.scale * rank as f64));
    Some(module)
}

fn branch<const D: usize>(
    module: &LoraModule,
    name: &str,
    weight: f64,
    device: &Device,
) -> LoraBranch<D> {
    LoraBranch {
        name: name.to_owned(),
        a: tensor(&module.a, device),
        b: tensor(&module.b, device),
        scale: module.scale(),
        weight,
    }
}

/// A factor on the device; the kernel of a 1x1 convolution is dropped or added as the layer has it.
fn tensor<const D: usize>(array: &ArrayD<f32>, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = array.iter().copied().collect();
    let mut shape = [1; D];
    for (length, &found) in shape.iter_mut().zip(array.shape()) {
        *length = found;
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn host<const D: usize>(tensor: &Tensor<D>) -> Result<ArrayD<f32>, LoraError> {
    let shape = tensor.dims();
    let unreadable = || LoraError::Device {
        shape: shape.to_vec(),
    };
    let values = tensor
        .to_data()
        .convert::<f32>()
        .try_to_vec::<f32>()
        .map_err(|_| unreadable())?;
    ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|_| unreadable())
}
