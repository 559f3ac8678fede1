//! Adapters onto models and back.

use burn::tensor::{Device, Tensor, TensorData};
use ndarray::{ArrayD, IxDyn};

use std::collections::BTreeMap;

use super::fuse::{add_dense, change_dense, unfuse_where};
use super::{DenseUpdate, LoraBranch, LoraLayerMut, LoraLayers, Unfused};
use crate::{Adapter, AdapterFile, LoadReport, LoraError, LoraModule, Update};

/// What can be added to a model: an [`Adapter`], an [`AdapterFile`] with updates of any kind, or a [`Mixture`](crate::Mixture).
pub trait Attachable {
    /// The paths of the layers that it changes.
    fn paths(&self) -> Vec<&str>;

    /// Adds it to a model: see [`attach`] and [`attach_file`]. A mixture becomes the [`LoraMixture`](super::LoraMixture) of each of its layers.
    ///
    /// # Errors
    ///
    /// Those of [`attach`] and [`attach_file`]; for a mixture [`LoraError::Mixture`] around a layer that is a convolution, or has a mixture already.
    fn attach_to(
        &self,
        model: &mut impl LoraLayers,
        prefix: &str,
        name: &str,
        weight: f64,
    ) -> Result<LoadReport, LoraError>;
}

impl Attachable for Adapter {
    fn paths(&self) -> Vec<&str> {
        self.modules.keys().map(String::as_str).collect()
    }

    fn attach_to(
        &self,
        model: &mut impl LoraLayers,
        prefix: &str,
        name: &str,
        weight: f64,
    ) -> Result<LoadReport, LoraError> {
        attach(model, prefix, self, name, weight)
    }
}

impl Attachable for AdapterFile {
    fn paths(&self) -> Vec<&str> {
        self.updates.keys().map(String::as_str).collect()
    }

    fn attach_to(
        &self,
        model: &mut impl LoraLayers,
        prefix: &str,
        name: &str,
        weight: f64,
    ) -> Result<LoadReport, LoraError> {
        attach_file(model, prefix, self, name, weight)
    }
}

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
    let shapes = shapes(&layers);
    let report = adapter.match_component(prefix, &shapes)?.strict()?;
    for (path, layer) in layers {
        if let Some(module) = adapter.modules.get(&path) {
            push(layer, module, name, weight);
        }
    }
    Ok(report)
}

/// Adds a file with updates of any kind to a model, called `name`, with strength `weight`: LoRAs as branches, all others as
/// [`DenseUpdate`]s in the weights. A strength multiplies the dense update that the file stands for, of DoRA too.
///
/// `prefix` is as in [`attach`]. A dense update takes the memory of its weight, and the weight of before is kept.
///
/// # Errors
///
/// As [`attach`], and around the module concerned ([`LoraError::InModule`]) what [`Update::delta_on`] finds. The model is not
/// changed then.
pub fn attach_file(
    model: &mut impl LoraLayers,
    prefix: &str,
    file: &AdapterFile,
    name: &str,
    weight: f64,
) -> Result<LoadReport, LoraError> {
    let layers = model.lora_layers(prefix);
    let shapes = shapes(&layers);
    let report = file.match_component(prefix, &shapes)?.strict()?;
    let mut deltas = BTreeMap::new();
    for (path, layer) in &layers {
        match file.updates.get(path) {
            None | Some(Update::Lora(_)) => {}
            Some(update) => {
                let base = match layer {
                    LoraLayerMut::Linear(layer) => {
                        base(&layer.weight.val(), layer.unfused.as_ref())
                    }
                    LoraLayerMut::Conv2d(layer) => {
                        base(&layer.weight.val(), layer.unfused.as_ref())
                    }
                };
                let delta = base.and_then(|base| update.delta_on(&base.view()));
                deltas.insert(path.clone(), delta.map_err(|error| error.in_module(path))?);
            }
        }
    }
    for (path, layer) in layers {
        if let Some(Update::Lora(module)) = file.updates.get(&path) {
            push(layer, module, name, weight);
        } else if let Some(delta) = deltas.remove(&path) {
            let device = layer.device();
            let values: Vec<f32> = delta.iter().map(|&value| value as f32).collect();
            match layer {
                LoraLayerMut::Linear(layer) => {
                    let delta = TensorData::new(values, layer.weight.dims());
                    let dense = dense(delta, name, weight, &device);
                    add_dense(&mut layer.weight, &mut layer.unfused, dense);
                }
                LoraLayerMut::Conv2d(layer) => {
                    let delta = TensorData::new(values, layer.weight.dims());
                    let dense = dense(delta, name, weight, &device);
                    add_dense(&mut layer.weight, &mut layer.unfused, dense);
                }
            }
        }
    }
    Ok(report)
}

/// The paths of layers and the shapes of their weights, as adapters are matched with.
pub(super) fn shapes(layers: &[(String, LoraLayerMut<'_>)]) -> Vec<(String, Vec<usize>)> {
    let shape = |(path, layer): &(String, LoraLayerMut<'_>)| (path.clone(), layer.weight_shape());
    layers.iter().map(shape).collect()
}

/// Adds a branch to a layer.
fn push(layer: LoraLayerMut<'_>, module: &LoraModule, name: &str, weight: f64) {
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

/// The base's weight on the host.
fn base<const D: usize>(
    weight: &Tensor<D>,
    unfused: Option<&Unfused<D>>,
) -> Result<ArrayD<f32>, LoraError> {
    host(unfused.map_or(weight, |before| &before.weight))
}

fn dense<const D: usize>(
    delta: TensorData,
    name: &str,
    weight: f64,
    device: &Device,
) -> DenseUpdate<D> {
    DenseUpdate {
        name: name.to_owned(),
        delta: Tensor::from_data(delta, device),
        weight,
    }
}

/// Removes all branches, dense updates and mixtures called `name`; the number of layers that had one. Where it was fused, the other branches of the layer are branches again.
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
                LoraLayerMut::Linear(layer) => {
                    let mixture = layer.mixture.take_if(|mixture| mixture.name == name);
                    usize::from(mixture.is_some())
                        + remove(&mut layer.branches, name)
                        + change_dense(&mut layer.weight, &mut layer.unfused, name, None)
                }
                LoraLayerMut::Conv2d(layer) => {
                    remove(&mut layer.branches, name)
                        + change_dense(&mut layer.weight, &mut layer.unfused, name, None)
                }
            }
        })
        .sum()
}

/// Sets the strength of all branches, dense updates and mixtures called `name`; the number of layers that have one. Where it was fused, the branches of the layer are branches again.
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
            let strength = Some(weight);
            match layer {
                LoraLayerMut::Linear(layer) => {
                    let mixtures = layer.mixture.iter_mut();
                    let mixture = mixtures.filter(|mixture| mixture.name == name).last();
                    let found = mixture.map(|mixture| mixture.weight = weight);
                    usize::from(found.is_some())
                        + set(&mut layer.branches, name, weight)
                        + change_dense(&mut layer.weight, &mut layer.unfused, name, strength)
                }
                LoraLayerMut::Conv2d(layer) => {
                    set(&mut layer.branches, name, weight)
                        + change_dense(&mut layer.weight, &mut layer.unfused, name, strength)
                }
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
/// [`LoraError`] if factors do not belong together or cannot be read from the device; [`LoraError::IsMixture`] around a layer that has a mixture of this name, which
/// [`extract_mixture`](super::extract_mixture) takes out.
pub fn extract(
    model: &mut impl LoraLayers,
    prefix: &str,
    name: &str,
) -> Result<Adapter, LoraError> {
    let mut modules = Vec::new();
    for (path, layer) in model.lora_layers(prefix) {
        let module = match layer {
            LoraLayerMut::Linear(linear) => match &linear.mixture {
                Some(mixture) if mixture.name == name => Some(Err(LoraError::IsMixture)),
                _ => find(&linear.branches, name),
            },
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
pub(super) fn tensor<const D: usize>(array: &ArrayD<f32>, device: &Device) -> Tensor<D> {
    let values: Vec<f32> = array.iter().copied().collect();
    let mut shape = [1; D];
    for (length, &found) in shape.iter_mut().zip(array.shape()) {
        *length = found;
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(super) fn host<const D: usize>(tensor: &Tensor<D>) -> Result<ArrayD<f32>, LoraError> {
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
