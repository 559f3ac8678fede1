//! Scaled dot-product attention and its gradients, without a matrix of scores.
//!
//! Queries are cut into strips of up to 48, which lie along the vectors: a block of keys times a strip gives scores whose
//! maxima, exponentials and sums need no work across lanes. Scores live for one block of keys and one strip; the softmax is
//! carried along (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).

mod autodiff;
mod backward;
mod forward;
mod pack;
mod product;
mod softmax;
mod strip;

use burn::backend::TensorMetadata;
use burn::tensor::Tensor;

pub(crate) use self::autodiff::tracked;
use self::backward::{Gradients, Wanted};
use self::forward::Forward;
use self::pack::{Heads, readable};
use crate::flex::storage::{Storage, shaped};

/// The sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    batch: usize,
    heads: usize,
    /// Queries.
    queries: usize,
    /// Keys and values.
    keys: usize,
    /// Numbers of a query and of a key.
    width: usize,
    /// Numbers of a value.
    value_width: usize,
}

impl Sizes {
    fn of(query: [usize; 4], value: [usize; 4]) -> Self {
        let [batch, heads, queries, width] = query;
        let [_, _, keys, value_width] = value;
        Self {
            batch,
            heads,
            queries,
            keys,
            width,
            value_width,
        }
    }

    /// What scores are multiplied with.
    fn scale(&self) -> f32 {
        (1.0 / (self.width as f64).sqrt()) as f32
    }
}

/// Whether the kernels take an attention of these tensors: nothing is empty.
pub(crate) fn taken(query: &Tensor<4>, value: &Tensor<4>) -> bool {
    let sizes = query.dims().into_iter().chain(value.dims());
    sizes.into_iter().all(|size| size > 0)
}

/// `softmax(query keyᵀ / √width) value`, all `[batch, heads, length, width]`.
pub(crate) fn forward(query: Storage, key: Storage, value: Storage) -> Storage {
    run(query, key, value, false).0
}

/// The output, and the logarithm of each softmax's denominator, `[batch, queries, heads]`, which is empty unless it is to be
/// kept.
fn run(query: Storage, key: Storage, value: Storage, keep: bool) -> (Storage, Vec<f32>) {
    let (query, key, value) = (readable(query), readable(key), readable(value));
    let sizes = Sizes::of(query.shape().dims(), value.shape().dims());
    let forward = Forward::new(
        Heads::new(&query),
        Heads::new(&key),
        Heads::new(&value),
        sizes,
    );
    let (output, logarithms) = forward.run(keep);
    let Sizes {
        batch,
        heads,
        queries,
        value_width,
        ..
    } = sizes;
    // Heads side by side, as the projection that follows reads them.
    let output = shaped(output, [batch, queries, heads, value_width]).transpose(1, 2);
    (output, logarithms)
}

/// What the backward pass starts from.
#[derive(Debug)]
struct Outcome {
    query: Storage,
    key: Storage,
    value: Storage,
    output: Storage,
    logarithms: Storage,
    /// The gradient of the output.
    gradient: Storage,
}

/// The gradients of query, key and value; those that are not wanted are `None`.
fn backward(outcome: Outcome, wanted: Wanted) -> [Option<Storage>; 3] {
    let query = readable(outcome.query);
    let key = readable(outcome.key);
    let value = readable(outcome.value);
    let output = readable(outcome.output);
    let gradient = readable(outcome.gradient);
    let sizes = Sizes::of(query.shape().dims(), value.shape().dims());
    let pass = Gradients {
        query: Heads::new(&query),
        key: Heads::new(&key),
        value: Heads::new(&value),
        output: Heads::new(&output),
        gradient: Heads::new(&gradient),
        logarithms: outcome.logarithms.storage::<f32>(),
        sizes,
        wanted,
    };
    let [query, key, value] = pass.run();
    let Sizes {
        batch,
        heads,
        queries,
        keys,
        width,
        value_width,
    } = sizes;
    let tensor = |values: Option<Vec<f32>>, length, width| {
        values.map(|values| shaped(values, [batch, heads, length, width]))
    };
    [
        tensor(query, queries, width),
        tensor(key, keys, width),
        tensor(value, keys, value_width),
    ]
}
