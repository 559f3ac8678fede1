//! Finding numbers that are not finite, and the weight that may be to blame.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;

use crate::image::read;
use crate::weights::FieldPath;
use crate::{DiffusionError, Origin};

/// Fails if values are not finite: `len` for each of `images` images, once or several times over.
///
/// # Errors
/// [`DiffusionError::NonFinite`] with the image of the first that is not.
pub(super) fn require_finite(
    values: &[f32],
    len: usize,
    images: usize,
    origin: Origin,
) -> Result<(), DiffusionError> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(DiffusionError::NonFinite {
            origin,
            image: index / len.max(1) % images.max(1) + 1,
            weight: None,
        }),
    }
}

/// Names the first parameter of the network that is not finite, in an error that its numbers caused and that names none yet.
pub(super) fn blame<M: Module>(error: DiffusionError, network: &M) -> DiffusionError {
    match error {
        DiffusionError::NonFinite {
            origin,
            image,
            weight: None,
        } => {
            let mut search = Search::default();
            network.visit(&mut search);
            DiffusionError::NonFinite {
                origin,
                image,
                weight: search.found,
            }
        }
        other => other,
    }
}

#[derive(Default)]
struct Search {
    path: FieldPath,
    found: Option<String>,
}

impl ModuleVisitor for Search {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path.enter(name, container_type);
    }

    fn exit_module(&mut self, _name: &str, container_type: &str) {
        self.path.exit(container_type);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_none()
            && let Ok(values) = read(param.val())
            && values.iter().any(|value| !value.is_finite())
        {
            self.found = Some(self.path.key());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_found_in_either_half() {
        let image = |at: Option<usize>| {
            let mut values = [0.0; 12];
            if let Some(value) = at.and_then(|at| values.get_mut(at)) {
                *value = f32::NAN;
            }
            match require_finite(&values, 2, 3, Origin::Encoder) {
                Err(DiffusionError::NonFinite { image, .. }) => image,
                _ => 0,
            }
        };
        assert_eq!(
            [None, Some(0), Some(5), Some(6), Some(11)].map(image),
            [0, 1, 3, 1, 3]
        );
    }
}
