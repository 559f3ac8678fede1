//! From a weight file into a module.

use std::collections::{BTreeSet, VecDeque};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use rayon::prelude::*;

use super::error::WeightsError;
use super::source::Weights;
use super::tensor::StoredTensor;
use crate::DiffusionError;

/// Bytes that are converted ahead of the tensors that are made of them.
///
/// Enough to keep all threads busy, and little beside a model: a device of its own takes the values as they come.
const AHEAD: usize = 256 << 20;

/// Fills a module from a file whose keys are the module's field paths.
///
/// `rename` turns a field path into the key under which the file keeps it; `ignore` names keys that are no parameters.
/// Values of another type than `f32` are converted to it, by all threads, and what was converted of the file is given back to
/// the system; values of `f32` stay in the mapped file, which must not be changed while the module lives (one that is replaced
/// by renaming another over it may be). On the device each tensor becomes one of `dtype` before the next one comes.
///
/// # Errors
///
/// [`DiffusionError::Mismatch`] with everything that is missing, unused or of another shape, and
/// [`WeightsError::NonFinite`] for a NaN or an infinity; nothing is returned then.
pub fn load<M: Module>(
    module: M,
    weights: &Weights,
    dtype: FloatDType,
    rename: impl Fn(&str) -> String,
    ignore: impl Fn(&str) -> bool,
) -> Result<M, DiffusionError> {
    let (fit, wanted) = plan(&module, weights, rename, ignore);
    if !fit.is_whole() {
        return Err(DiffusionError::Mismatch {
            path: weights.path().to_owned(),
            missing: fit.missing,
            unused: fit.unused,
            misfit: fit.misfit,
        });
    }
    let mut filler = Filler {
        weights,
        dtype,
        wanted,
        ready: VecDeque::new(),
        failure: None,
    };
    let module = module.map(&mut filler);
    match filler.failure {
        None => Ok(module),
        Some(error) => Err(error.into()),
    }
}

/// How far a file and a module fit each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fit {
    /// Parameters of the module without a tensor in the file.
    pub missing: Vec<String>,
    /// Tensors of the file without a parameter in the module.
    pub unused: Vec<String>,
    /// Keys with the expected and the found shape or type.
    pub misfit: Vec<String>,
}

impl Fit {
    /// Whether nothing is missing, unused or of another shape.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.unused.is_empty() && self.misfit.is_empty()
    }
}

/// Compares a module with a file as [`load`] does, without reading a value.
pub fn compare<M: Module>(
    module: &M,
    weights: &Weights,
    rename: impl Fn(&str) -> String,
    ignore: impl Fn(&str) -> bool,
) -> Fit {
    plan(module, weights, rename, ignore).0
}

/// What fits, and the tensors that the module needs in the order of its fields.
fn plan<'a, M: Module>(
    module: &M,
    weights: &'a Weights,
    rename: impl Fn(&str) -> String,
    ignore: impl Fn(&str) -> bool,
) -> (Fit, VecDeque<(String, &'a StoredTensor)>) {
    let mut plan = Plan {
        weights,
        rename,
        path: FieldPath::default(),
        wanted: VecDeque::new(),
        used: BTreeSet::new(),
        fit: Fit::default(),
    };
    module.visit(&mut plan);
    plan.fit.unused = weights
        .names()
        .filter(|name| !plan.used.contains(*name) && !ignore(name))
        .map(str::to_owned)
        .collect();
    (plan.fit, plan.wanted)
}

/// The path of the field that a mapper or visitor is at.
#[derive(Debug, Default)]
pub(crate) struct FieldPath(Vec<String>);

impl FieldPath {
    /// An enum's variant is no part of a key.
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.to_owned());
        }
    }

    pub(crate) fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    pub(crate) fn key(&self) -> String {
        self.0.join(".")
    }
}

/// Compares a module with a file and notes which tensors it needs, in the order of its fields.
struct Plan<'a, R> {
    weights: &'a Weights,
    rename: R,
    path: FieldPath,
    wanted: VecDeque<(String, &'a StoredTensor)>,
    used: BTreeSet<String>,
    fit: Fit,
}

impl<R: Fn(&str) -> String> ModuleVisitor for Plan<'_, R> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let key = (self.rename)(&self.path.key());
        let expected = param.lazy_shape();
        let Some(tensor) = self.weights.tensor(&key) else {
            self.fit.missing.push(key);
            return;
        };
        if tensor.shape() != &expected[..] || !tensor.is_floating() {
            self.fit.misfit.push(format!(
                "{key}: expected floating-point {:?}, found {:?} {:?}",
                &expected[..],
                tensor.dtype(),
                tensor.shape()
            ));
        }
        self.used.insert(key.clone());
        self.wanted.push_back((key, tensor));
    }
}

/// Gives the parameters their values, in the order of the plan.
struct Filler<'a> {
    weights: &'a Weights,
    dtype: FloatDType,
    wanted: VecDeque<(String, &'a StoredTensor)>,
    ready: VecDeque<(TensorData, &'a StoredTensor)>,
    failure: Option<WeightsError>,
}

impl<'a> Filler<'a> {
    fn next(&mut self) -> Option<(TensorData, &'a StoredTensor)> {
        if self.ready.is_empty() {
            self.convert();
        }
        self.ready.pop_front()
    }

    /// Converts the next tensors, [`AHEAD`] bytes or one.
    fn convert(&mut self) {
        let mut bytes = 0;
        let mut count = 0;
        for (_, tensor) in &self.wanted {
            bytes += tensor.len() * size_of::<f32>();
            if count > 0 && bytes > AHEAD {
                break;
            }
            count += 1;
        }
        let group: Vec<_> = self.wanted.drain(..count).collect();
        let path = self.weights.path();
        let converted: Result<Vec<_>, WeightsError> = group
            .into_par_iter()
            .map(|(key, tensor)| {
                let data = tensor.data();
                let data = data.unwrap_or_else(|| TensorData::new(Vec::<f32>::new(), [0]));
                match first_not_finite(data.as_slice().unwrap_or_default()) {
                    None => Ok((data, tensor)),
                    Some((index, value)) => Err(WeightsError::NonFinite {
                        path: path.to_owned(),
                        key,
                        index,
                        value,
                    }),
                }
            })
            .collect();
        match converted {
            Ok(data) => self.ready = data.into(),
            Err(error) => {
                self.wanted.clear();
                self.failure.get_or_insert(error);
            }
        }
    }
}

impl ModuleMapper for Filler<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some((data, stored)) = self.next() else {
            return param;
        };
        let (device, id) = (param.lazy_device(), param.id);
        let tensor: Tensor<D> = Tensor::from_data(data, &device);
        // Values in a mapped file stay there unless they have to change.
        let tensor = match self.dtype {
            FloatDType::F32 => tensor,
            other => {
                let tensor = tensor.cast(other);
                stored.release();
                tensor
            }
        };
        param.transform_for_load(tensor, id)
    }
}

/// NaN is in the exponent what infinity is, so one comparison finds both, in blocks that the compiler makes wide.
fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    const BLOCK: usize = 4096;
    let (block, _) = values
        .chunks(BLOCK)
        .enumerate()
        .find(|(_, block)| !block.iter().fold(true, |ok, value| ok & value.is_finite()))?;
    let start = block * BLOCK;
    let mut rest = values.iter().enumerate().skip(start);
    rest.find(|(_, value)| !value.is_finite())
        .map(|(index, &value)| (index, value))
}
