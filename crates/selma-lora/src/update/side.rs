//! A matrix given as a product, which LoHa and LoKr are made of.

use ndarray::{Array2, ArrayD};

use crate::LoraError;

/// A product of two factors, with a core between them for the kernel of a convolution.
///
/// Without a core: `a [out, rank] b [rank, columns]`. With one, as LyCORIS and PEFT store Tucker
/// decompositions: `core [i, j, kernel..]`, `a [i, out]`, `b [j, in]`, and the product is
/// `[out, in, kernel..]`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Side {
    pub(crate) core: Option<ArrayD<f32>>,
    pub(crate) a: ArrayD<f32>,
    pub(crate) b: ArrayD<f32>,
}

impl Side {
    pub(crate) fn rank(&self) -> usize {
        self.b.shape().first().copied().unwrap_or(0)
    }

    /// Refuses shapes that do not fit; `names` are those of `a`, `b` and the core.
    pub(super) fn check(&self, names: [&'static str; 3]) -> Result<(), LoraError> {
        let [a_name, b_name, core_name] = names;
        let misfit = |left, left_shape: &ArrayD<f32>, right, right_shape: &ArrayD<f32>| {
            Err(LoraError::PartShapes {
                left,
                left_shape: left_shape.shape().to_vec(),
                right,
                right_shape: right_shape.shape().to_vec(),
            })
        };
        match (&self.core, self.a.shape(), self.b.shape()) {
            (None, [_, inner], [rank, _]) if inner == rank => {}
            (Some(core), [i, _], [j, _]) => match core.shape() {
                [first, second, _, ..] if first == i && second == j => {}
                _ => return misfit(core_name, core, a_name, &self.a),
            },
            _ => return misfit(a_name, &self.a, b_name, &self.b),
        }
        if self.tensors().any(|tensor| tensor.is_empty()) {
            return misfit(a_name, &self.a, b_name, &self.b);
        }
        Ok(())
    }

    /// `[out, columns]`, or `[out, in, kernel..]` with a core.
    pub(super) fn shape(&self) -> Vec<usize> {
        let last = |factor: &ArrayD<f32>| factor.shape().last().copied().unwrap_or(0);
        match &self.core {
            None => vec![self.a.shape().first().copied().unwrap_or(0), last(&self.b)],
            Some(core) => {
                let kernel = core.shape().iter().skip(2).copied();
                [last(&self.a), last(&self.b)]
                    .into_iter()
                    .chain(kernel)
                    .collect()
            }
        }
    }

    /// The product with all dimensions but the first multiplied together.
    pub(super) fn product(&self) -> Array2<f64> {
        match &self.core {
            None => flattened(&self.a).dot(&flattened(&self.b)),
            Some(core) => flattened(&self.a).t().dot(&contract(core, &self.b)),
        }
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = &ArrayD<f32>> {
        self.core.iter().chain([&self.a, &self.b])
    }
}

/// A matrix that may be given as a product.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Matrix {
    Whole(ArrayD<f32>),
    Product(Box<Side>),
}

impl Matrix {
    /// The rank of a product; a whole matrix has none.
    pub(crate) fn rank(&self) -> Option<usize> {
        match self {
            Self::Whole(_) => None,
            Self::Product(side) => Some(side.rank()),
        }
    }

    /// Refuses shapes that do not fit; `names` are those of `a`, `b` and the core.
    pub(super) fn check(&self, names: [&'static str; 3]) -> Result<(), LoraError> {
        match self {
            Self::Product(side) => side.check(names),
            Self::Whole(whole) if whole.ndim() < 2 || whole.is_empty() => {
                Err(LoraError::DeltaShape {
                    shape: whole.shape().to_vec(),
                })
            }
            Self::Whole(_) => Ok(()),
        }
    }

    pub(super) fn shape(&self) -> Vec<usize> {
        match self {
            Self::Whole(whole) => whole.shape().to_vec(),
            Self::Product(side) => side.shape(),
        }
    }

    /// All dimensions but the first multiplied together.
    pub(super) fn values(&self) -> Array2<f64> {
        match self {
            Self::Whole(whole) => flattened(whole),
            Self::Product(side) => side.product(),
        }
    }

    pub(super) fn tensors(&self) -> Vec<&ArrayD<f32>> {
        match self {
            Self::Whole(whole) => vec![whole],
            Self::Product(side) => side.tensors().collect(),
        }
    }
}

/// In `f64`, all dimensions but the first multiplied together.
pub(crate) fn flattened(tensor: &ArrayD<f32>) -> Array2<f64> {
    let rows = tensor.shape().first().copied().unwrap_or(1);
    let columns: usize = tensor.shape().iter().skip(1).product();
    let mut values = tensor.iter();
    // In the order of the elements: row-major, whatever the strides are.
    Array2::from_shape_simple_fn((rows, columns), || {
        values.next().map_or(0.0, |&x| f64::from(x))
    })
}

/// `sum_j core[i, j, kernel..] factor[j, in]` as `[i, in * kernel]`; the dimensions `j` must agree.
pub(crate) fn contract(core: &ArrayD<f32>, factor: &ArrayD<f32>) -> Array2<f64> {
    let i = core.shape().first().copied().unwrap_or(0);
    let j = core.shape().get(1).copied().unwrap_or(0);
    let kernel: usize = core.shape().iter().skip(2).product();
    let factor = flattened(factor);
    let inputs = factor.ncols();
    let mut result = Array2::zeros((i, inputs * kernel));
    for (row, slice) in result.rows_mut().into_iter().zip(core.outer_iter()) {
        let slice = flattened(&slice.to_owned());
        debug_assert_eq!(slice.dim(), (j, kernel));
        let product = factor.t().dot(&slice);
        row.into_iter()
            .zip(product.iter())
            .for_each(|(target, &x)| *target = x);
    }
    result
}
