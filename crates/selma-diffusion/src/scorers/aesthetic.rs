//! The head of LAION's aesthetic predictors, and of ImageReward, whose code comes from them.

use std::path::Path;

use crate::DiffusionError;
use crate::weights::Weights;

/// Where `improved-aesthetic-predictor` has its linear maps among the modules of its `layers`; the others are dropouts.
const IMPROVED: [&str; 5] = ["layers.0", "layers.2", "layers.4", "layers.6", "layers.7"];
/// A single linear map, as in LAION's first predictor (`sa_0_4_vit_l_14_linear.pth`).
const FIRST: [&str; 1] = [""];

/// From the normalised embedding of a picture to a score of about 1 to 10: one linear map, or several one after the other with nothing in
/// between (`sac+logos+ava1-l14-linearMSE.pth` of <https://github.com/christophschuhmann/improved-aesthetic-predictor>).
#[derive(Debug, Clone)]
pub(super) struct AestheticHead {
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    /// `[outputs, inputs]`, row by row.
    weight: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl AestheticHead {
    /// Reads a head for embeddings of `width` numbers.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has not the tensors of a head, or others besides, or they do not fit each other.
    pub(super) fn load(path: &Path, width: usize) -> Result<Self, DiffusionError> {
        Self::of(&Weights::open(path)?, "", width)
    }

    /// The head among the tensors whose names begin with `prefix`, for embeddings of `width` numbers.
    ///
    /// # Errors
    ///
    /// If these are not the tensors of a head, or do not fit each other.
    pub(super) fn of(
        weights: &Weights,
        prefix: &str,
        width: usize,
    ) -> Result<Self, DiffusionError> {
        let names: &[&str] = match weights.shape(&format!("{prefix}weight")) {
            Some(_) => &FIRST,
            None => &IMPROVED,
        };
        let key = |layer: &str, field: &str| match layer {
            "" => format!("{prefix}{field}"),
            layer => format!("{prefix}{layer}.{field}"),
        };
        let keys = names
            .iter()
            .flat_map(|layer| ["weight", "bias"].map(|field| key(layer, field)));
        let keys: Vec<String> = keys.collect();
        let mut misfit = Vec::new();
        let mut shape = |name: String, expected: &[Option<usize>]| {
            let found = weights.shape(&name)?;
            let fits = found.len() == expected.len()
                && found
                    .iter()
                    .zip(expected)
                    .all(|(found, expected)| expected.is_none_or(|expected| expected == *found));
            if !fits {
                let expected = expected
                    .iter()
                    .map(|size| size.map_or("any".to_owned(), |n| n.to_string()));
                let expected = expected.collect::<Vec<_>>().join(", ");
                misfit.push(format!("{name}: expected [{expected}], found {found:?}"));
            }
            found.first().copied()
        };
        let mut inputs = width;
        for (index, layer) in names.iter().enumerate() {
            let last = (index + 1 == names.len()).then_some(1);
            let outputs = shape(key(layer, "weight"), &[last, Some(inputs)]);
            let _ = shape(key(layer, "bias"), &[outputs]);
            inputs = outputs.unwrap_or(inputs);
        }
        let missing = keys.iter().filter(|key| weights.shape(key).is_none());
        let missing: Vec<String> = missing.cloned().collect();
        let unused = weights
            .names()
            .filter(|name| name.starts_with(prefix) && !keys.iter().any(|key| key == name));
        let unused: Vec<String> = unused.map(str::to_owned).collect();
        if !missing.is_empty() || !unused.is_empty() || !misfit.is_empty() {
            return Err(DiffusionError::Mismatch {
                path: weights.path().to_owned(),
                missing,
                unused,
                misfit,
            });
        }
        let layers = names.iter().map(|layer| {
            let (weight, shape) = weights.require(&key(layer, "weight"))?;
            Ok(Layer {
                weight,
                bias: weights.require(&key(layer, "bias"))?.0,
                inputs: shape.last().copied().unwrap_or_default(),
            })
        });
        let layers = layers.collect::<Result<_, DiffusionError>>()?;
        Ok(Self { layers })
    }

    /// The score of a normalised embedding.
    pub(super) fn score(&self, embedding: &[f64]) -> f64 {
        let mut values = embedding.to_vec();
        for layer in &self.layers {
            let rows = layer.weight.chunks(layer.inputs.max(1)).zip(&layer.bias);
            let made = rows.map(|(row, &bias)| {
                let products = row.iter().zip(&values).map(|(&a, b)| f64::from(a) * b);
                f64::from(bias) + products.sum::<f64>()
            });
            values = made.collect();
        }
        values.first().copied().unwrap_or_default()
    }
}
