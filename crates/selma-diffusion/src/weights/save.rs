//! From a module into a weight file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use half::{bf16, f16};
use safetensors::tensor::TensorView;
use selma_durable::atomic_write;

use super::Dtype;
use super::load::FieldPath;
use crate::DiffusionError;

/// Writes all parameters of a module under their field paths, as `F32`, `F16` or `BF16`.
///
/// The file appears whole or not at all: it is written under a temporary name, synced and renamed. The same parameters
/// give the same bytes.
///
/// # Errors
///
/// If the file cannot be written, another type is asked for, or the device does not give its values.
pub fn save<M: Module>(module: &M, path: &Path, dtype: Dtype) -> Result<(), DiffusionError> {
    let mut collector = Collector {
        path: FieldPath::default(),
        tensors: BTreeMap::new(),
        failure: None,
    };
    module.visit(&mut collector);
    if let Some(reason) = collector.failure {
        return Err(DiffusionError::ReadBack { reason });
    }
    write(path, &collector.tensors, dtype)
}

/// Writes named tensors; see [`save`].
fn write(
    path: &Path,
    tensors: &BTreeMap<String, (Vec<f32>, Vec<usize>)>,
    dtype: Dtype,
) -> Result<(), DiffusionError> {
    let damaged = |source| DiffusionError::Weights {
        path: path.to_owned(),
        source,
    };
    let mut encoded = BTreeMap::new();
    for (name, (values, shape)) in tensors {
        let bytes: Vec<u8> = match dtype {
            Dtype::F32 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Dtype::F16 => values
                .iter()
                .flat_map(|&value| f16::from_f32(value).to_le_bytes())
                .collect(),
            Dtype::BF16 => values
                .iter()
                .flat_map(|&value| bf16::from_f32(value).to_le_bytes())
                .collect(),
            other => {
                return Err(DiffusionError::Request {
                    what: "dtype of a weight file",
                    expected: "F32, F16 or BF16".to_owned(),
                    found: format!("{other:?}"),
                });
            }
        };
        encoded.insert(name, (bytes, shape));
    }
    let mut views = Vec::with_capacity(encoded.len());
    for (name, (bytes, shape)) in &encoded {
        let view = TensorView::new(dtype, (*shape).clone(), bytes).map_err(damaged)?;
        views.push((name, view));
    }
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(damaged)?;
    Ok(atomic_write(path, &bytes)?)
}

struct Collector {
    path: FieldPath,
    tensors: BTreeMap<String, (Vec<f32>, Vec<usize>)>,
    failure: Option<String>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = param.val();
        let shape = tensor.dims().to_vec();
        match tensor.into_data().convert::<f32>().try_to_vec::<f32>() {
            Ok(values) => {
                self.tensors.insert(self.path.key(), (values, shape));
            }
            Err(error) => self.failure = Some(format!("{error:?}")),
        }
    }
}
