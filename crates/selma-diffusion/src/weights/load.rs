//! From a weight file into a module.

use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};

use super::Weights;
use crate::DiffusionError;

/// Fills a module from a file whose keys are the module's field paths.
///
/// `rename` turns a field path into the key under which the file keeps it; `ignore` names keys that are no parameters.
/// Values are converted to `f32`.
///
/// # Errors
///
/// [`DiffusionError::Mismatch`] with everything that is missing, unused or of another shape; nothing is returned then.
pub fn load<M: Module>(
    module: M,
    weights: &Weights,
    rename: impl Fn(&str) -> String,
    ignore: impl Fn(&str) -> bool,
) -> Result<M, DiffusionError> {
    let mut loader = Loader {
        weights,
        rename,
        path: FieldPath::default(),
        used: BTreeSet::new(),
        missing: Vec::new(),
        misfit: Vec::new(),
    };
    let module = module.map(&mut loader);
    let unused: Vec<String> = weights
        .names()
        .filter(|name| !loader.used.contains(*name) && !ignore(name))
        .map(str::to_owned)
        .collect();
    if loader.missing.is_empty() && loader.misfit.is_empty() && unused.is_empty() {
        return Ok(module);
    }
    Err(DiffusionError::Mismatch {
        path: weights.path().to_owned(),
        missing: loader.missing,
        unused,
        misfit: loader.misfit,
    })
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

struct Loader<'a, R> {
    weights: &'a Weights,
    rename: R,
    path: FieldPath,
    used: BTreeSet<String>,
    missing: Vec<String>,
    misfit: Vec<String>,
}

impl<R: Fn(&str) -> String> ModuleMapper for Loader<'_, R> {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let key = (self.rename)(&self.path.key());
        let expected = param.lazy_shape();
        let Some(found) = self.weights.shape(&key) else {
            self.missing.push(key);
            return param;
        };
        let fits = found == &expected[..];
        let values = if fits {
            self.weights.floats(&key)
        } else {
            None
        };
        let Some(values) = values else {
            self.misfit.push(format!(
                "{key}: expected floating-point {:?}, found {:?} {found:?}",
                &expected[..],
                self.weights.dtype(&key)
            ));
            self.used.insert(key);
            return param;
        };
        self.used.insert(key);
        let device = param.lazy_device();
        let tensor = Tensor::from_data(TensorData::new(values, expected), &device);
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
