//! Collecting the statistics of SSR-Merge while a model runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Tensor;
use ndarray::{ArrayD, Axis};

use super::attach::{host, tensor};
use super::{LoraLayerMut, LoraLayers};
use crate::merge::{Calibration, Statistics};
use crate::{Adapter, LoraError};

/// Collects what [`Method::Ssr`](crate::Method::Ssr) needs (arXiv 2606.10617, section 3): second moments of what reaches the ranks of all adapters, stacked, while a
/// model draws for the task of one of them.
///
/// For each adapter in turn: attach it, [`watch`](Self::watch) the model, let it draw prompts of the adapter's task, and
/// [`unwatch`](Self::unwatch) it.
#[derive(Debug)]
pub struct Calibrator {
    adapters: Vec<String>,
    modules: BTreeMap<String, Module>,
}

/// A module that more than one adapter has.
#[derive(Debug)]
struct Module {
    /// The numbers of those adapters.
    owners: Vec<usize>,
    /// Their factors `A`, one below the other.
    a: ArrayD<f32>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug)]
struct Seen {
    statistics: Statistics,
    /// The first thing that went wrong.
    failure: Option<LoraError>,
}

/// Sees the inputs of a layer while the model draws for the task of an adapter.
#[derive(Debug, Clone)]
pub struct InputObserver<const D: usize> {
    /// The stacked factors, `[R, in]` or `[R, in, kh, kw]`.
    pub(super) a: Tensor<D>,
    /// The adapter, among those that have the module.
    owner: usize,
    seen: Arc<Mutex<Seen>>,
}

impl<const D: usize> InputObserver<D> {
    /// Adds `z = A x` of some inputs, `[inputs, R]`.
    pub(super) fn add(&self, z: &Tensor<2>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let added = host(z).and_then(|z| {
            let shape = z.shape().to_vec();
            let z = z.into_dimensionality();
            let z = z.map_err(|_| LoraError::Device { shape })?;
            seen.statistics.add(self.owner, &z.view())
        });
        if let Err(error) = added {
            seen.failure.get_or_insert(error);
        }
    }
}

impl Calibrator {
    /// Nothing seen yet, for adapters in the order in which they will be merged.
    ///
    /// # Errors
    ///
    /// [`LoraError::Calibration`] if a module has inputs of another size in another adapter.
    pub fn new(adapters: &[&Adapter]) -> Result<Self, LoraError> {
        let mut owners: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (number, adapter) in adapters.iter().enumerate() {
            for path in adapter.modules.keys() {
                owners.entry(path).or_default().push(number);
            }
        }
        let mut modules = BTreeMap::new();
        for (path, owners) in owners.into_iter().filter(|(_, owners)| owners.len() > 1) {
            let found = owners.iter().filter_map(|&owner| adapters.get(owner));
            let found: Vec<_> = found
                .filter_map(|adapter| adapter.modules.get(path))
                .collect();
            let views: Vec<_> = found.iter().map(|module| module.a.view()).collect();
            let a = ndarray::concatenate(Axis(0), &views).map_err(|_| {
                let shapes = views.iter().map(|view| format!("{:?}", view.shape()));
                LoraError::Calibration {
                    what: "of factors A",
                    expected: "the same inputs in all adapters".to_owned(),
                    found: shapes.collect::<Vec<_>>().join(", "),
                }
                .in_module(path)
            })?;
            let ranks: Vec<usize> = found.iter().map(|module| module.rank()).collect();
            let seen = Seen {
                statistics: Statistics::new(&ranks),
                failure: None,
            };
            let module = Module {
                owners,
                a,
                seen: Arc::new(Mutex::new(seen)),
            };
            modules.insert(path.to_owned(), module);
        }
        let hash = |adapter: &&Adapter| adapter.source.as_ref().map(|source| source.sha256.clone());
        let hashes: Option<Vec<String>> = adapters.iter().map(hash).collect();
        Ok(Self {
            adapters: hashes.unwrap_or_default(),
            modules,
        })
    }

    /// Sees the inputs of a model's layers from now on, for the task of an adapter; the number of layers that are watched. `prefix` is the component that the model
    /// is, for example `unet`. Modules that the adapter does not have are left alone.
    pub fn watch(&self, model: &mut impl LoraLayers, prefix: &str, adapter: usize) -> usize {
        let mut watched = 0;
        for (path, layer) in model.lora_layers(prefix) {
            let Some(module) = self.modules.get(&path) else {
                continue;
            };
            let Some(owner) = module.owners.iter().position(|&owner| owner == adapter) else {
                continue;
            };
            let (device, seen) = (layer.device(), Arc::clone(&module.seen));
            match layer {
                LoraLayerMut::Linear(layer) => {
                    let a = tensor(&module.a, &device);
                    layer.observer = Some(InputObserver { a, owner, seen });
                }
                LoraLayerMut::Conv2d(layer) => {
                    let a = tensor(&module.a, &device);
                    layer.observer = Some(InputObserver { a, owner, seen });
                }
            }
            watched += 1;
        }
        watched
    }

    /// Lets a model's layers alone again.
    pub fn unwatch(model: &mut impl LoraLayers) {
        for (_, layer) in model.lora_layers("") {
            match layer {
                LoraLayerMut::Linear(layer) => layer.observer = None,
                LoraLayerMut::Conv2d(layer) => layer.observer = None,
            }
        }
    }

    /// What was seen.
    ///
    /// # Errors
    ///
    /// Around the module concerned ([`LoraError::InModule`]): [`LoraError::Calibration`] if nothing was seen there, or something that is not finite.
    pub fn finish(self) -> Result<Calibration, LoraError> {
        let mut modules = BTreeMap::new();
        for (path, module) in self.modules {
            let mut seen = module.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = seen.failure.take() {
                return Err(error.in_module(&path));
            }
            if seen.statistics.count() == 0 {
                return Err(LoraError::Calibration {
                    what: "of the module",
                    expected: "inputs".to_owned(),
                    found: "none, as if the model did not have it".to_owned(),
                }
                .in_module(&path));
            }
            modules.insert(path, seen.statistics.clone());
        }
        Ok(Calibration {
            adapters: self.adapters,
            modules,
        })
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::{Device, TensorData};
    use ndarray::Array2;

    use super::*;
    use crate::nn::{LoraConv2d, LoraConv2dConfig, LoraLinear, LoraLinearConfig};
    use crate::{LoraModule, init, lora_layers};

    #[derive(Module, Debug)]
    struct Model {
        linear: LoraLinear,
        conv: LoraConv2d,
        other: LoraLinear,
    }

    lora_layers!(Model {
        linear,
        conv,
        other
    });

    fn model() -> Model {
        let device = Device::flex();
        Model {
            linear: LoraLinearConfig::new(3, 2).init(&device),
            conv: LoraConv2dConfig::new(2, 2, 3).init(&device),
            other: LoraLinearConfig::new(3, 2).init(&device),
        }
    }

    fn module(path: &str, shape: &[usize], rank: usize, seed: u64) -> (String, LoraModule) {
        let module = init::gaussian(path, shape, rank, 1.0, seed).unwrap();
        (path.to_owned(), module)
    }

    fn adapters() -> [Adapter; 2] {
        let (linear, conv) = ("unet.linear", "unet.conv");
        [
            Adapter::new([
                module(linear, &[2, 3], 2, 0),
                module(conv, &[2, 2, 3, 3], 1, 0),
                module("unet.other", &[2, 3], 1, 0),
            ]),
            Adapter::new([
                module(linear, &[2, 3], 1, 1),
                module(conv, &[2, 2, 3, 3], 2, 1),
            ]),
        ]
    }

    fn matrix(tensor: Tensor<2>) -> Array2<f32> {
        let dims = tensor.dims();
        Array2::from_shape_vec(dims, tensor.into_data().try_to_vec::<f32>().unwrap()).unwrap()
    }

    fn add(statistics: &mut Statistics, owner: usize, z: &Array2<f32>) {
        statistics.add(owner, &z.view()).unwrap();
    }

    #[test]
    fn what_reaches_the_stacked_ranks_is_summed_for_each_task() {
        let (mut model, adapters, device) = (model(), adapters(), Device::flex());
        let calibrator = Calibrator::new(&adapters.each_ref()).unwrap();
        let values: Vec<f32> = (0..12).map(|x| x as f32 / 7.0 - 0.8).collect();
        let rows = Tensor::<2>::from_data(TensorData::new(values.clone(), [4, 3]), &device);
        let maps = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 2, 3]), &device);
        let mut expected = [Statistics::new(&[2, 1]), Statistics::new(&[1, 2])];
        for task in 0..2 {
            // `other` is of one adapter alone, which needs no statistics.
            assert_eq!(calibrator.watch(&mut model, "unet", task), 2);
            let _ = model.linear.forward(rows.clone());
            let _ = model.conv.forward(maps.clone());
            let _ = model.other.forward(rows.clone());
            Calibrator::unwatch(&mut model);
            // Not seen any more.
            let _ = model.linear.forward(rows.clone());
            let stacked = |path: &str| {
                let a = adapters.each_ref().map(|adapter| &adapter.modules[path].a);
                ndarray::concatenate(Axis(0), &a.map(|a| a.view())).unwrap()
            };
            let a = tensor::<2>(&stacked("unet.linear"), &device);
            let z = rows.clone().matmul(a.transpose());
            add(&mut expected[0], task, &matrix(z));
            let mut plain = model.conv.clone();
            plain.weight = burn::module::Param::from_tensor(tensor(&stacked("unet.conv"), &device));
            plain.bias = None;
            let z = plain.forward(maps.clone()).permute([0, 2, 3, 1]);
            add(&mut expected[1], task, &matrix(z.reshape([6, 3])));
        }
        let found = calibrator.finish().unwrap();
        assert_eq!(found.modules["unet.linear"], expected[0]);
        assert_eq!(found.modules["unet.conv"], expected[1]);
        assert_eq!(found.modules.len(), 2);
    }

    #[test]
    fn modules_that_the_model_does_not_have_and_values_that_are_not_finite_are_errors() {
        let (mut model, adapters, device) = (model(), adapters(), Device::flex());
        let calibrator = Calibrator::new(&adapters.each_ref()).unwrap();
        assert_eq!(calibrator.watch(&mut model, "text_encoder", 0), 0);
        let error = calibrator.finish().unwrap_err().to_string();
        assert!(
            error.contains("unet.conv") && error.contains("none"),
            "{error}"
        );
        let calibrator = Calibrator::new(&adapters.each_ref()).unwrap();
        calibrator.watch(&mut model, "unet", 0);
        let _ = model
            .conv
            .forward(Tensor::full([1, 2, 2, 3], f32::NAN, &device));
        let error = calibrator.finish().unwrap_err().to_string();
        assert!(
            error.contains("unet.conv") && error.contains("finite"),
            "{error}"
        );
        let odd = Adapter::new([module("unet.linear", &[2, 4], 1, 0)]);
        let error = Calibrator::new(&[&odd, &adapters[0]])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("unet.linear") && error.contains("[1, 4]"),
            "{error}"
        );
    }
}
