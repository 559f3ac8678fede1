//! The backward pass of the convolution. The input is kept only where the weight is tracked.

use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Flex, TensorMetadata};

use super::{Options, Sizes, backward_bias, backward_input, backward_weight, forward};
use crate::flex::storage::Storage;

/// The backward step of a convolution without a bias.
#[derive(Debug)]
struct Unbiased;

/// The backward step of a convolution with a bias.
#[derive(Debug)]
struct Biased;

/// What the gradients need besides that of the output.
#[derive(Clone, Debug)]
struct State {
    /// The input, where the weight is tracked.
    x: Option<NodeId>,
    weight: Storage,
    sizes: Sizes,
    options: Options,
}

/// A tensor of the CPU backend with autodiff.
type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

impl State {
    /// The state where the weight is not tracked.
    fn new<C: CheckpointStrategy>(x: &Tracked<C>, weight: &Tracked<C>, options: Options) -> Self {
        Self {
            x: None,
            weight: weight.primitive().clone(),
            sizes: Sizes {
                input: x.primitive().shape().dims(),
                weight: weight.primitive().shape().dims(),
            },
            options,
        }
    }

    fn input(&self, dy: Storage) -> Storage {
        backward_input(self.weight.clone(), dy, self.sizes, self.options)
    }

    fn weight(&self, dy: Storage, checkpointer: &mut Checkpointer) -> Option<Storage> {
        let x: Storage = checkpointer.retrieve_node_output(self.x?);
        Some(backward_weight(x, dy, self.sizes, self.options))
    }
}

impl Backward<Flex, 2> for Unbiased {
    type State = State;

    fn backward(self, ops: Ops<State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let [x, weight] = ops.parents;
        if let Some(node) = weight
            && let Some(dw) = ops.state.weight(dy.clone(), checkpointer)
        {
            grads.register::<Flex>(node.id, dw);
        }
        if let Some(node) = x {
            grads.register::<Flex>(node.id, ops.state.input(dy));
        }
    }
}

impl Backward<Flex, 3> for Biased {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let [x, weight, bias] = ops.parents;
        if let Some(node) = bias {
            grads.register::<Flex>(node.id, backward_bias(dy.clone()));
        }
        if let Some(node) = weight
            && let Some(dw) = ops.state.weight(dy.clone(), checkpointer)
        {
            grads.register::<Flex>(node.id, dw);
        }
        if let Some(node) = x {
            grads.register::<Flex>(node.id, ops.state.input(dy));
        }
    }
}

/// The convolution without a bias, with its backward step recorded where a parent is tracked.
pub(crate) fn tracked<C: CheckpointStrategy>(
    x: Tracked<C>,
    weight: Tracked<C>,
    options: Options,
) -> Tracked<C> {
    match Unbiased
        .prepare::<C>([x.node(), weight.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let state = State {
                x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                ..State::new::<C>(&x, &weight, options)
            };
            let y = forward(x.into_primitive(), weight.into_primitive(), None, options);
            prep.finish(state, y)
        }
        OpsKind::UnTracked(prep) => {
            let y = forward(x.into_primitive(), weight.into_primitive(), None, options);
            prep.finish(y)
        }
    }
}

/// The convolution with a bias, with its backward step recorded where a parent is tracked.
pub(crate) fn tracked_biased<C: CheckpointStrategy>(
    x: Tracked<C>,
    weight: Tracked<C>,
    bias: Tracked<C>,
    options: Options,
) -> Tracked<C> {
    let shift = Some(bias.primitive().clone());
    match Biased
        .prepare::<C>([x.node(), weight.node(), bias.node()])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let state = State {
                x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                ..State::new::<C>(&x, &weight, options)
            };
            let y = forward(x.into_primitive(), weight.into_primitive(), shift, options);
            prep.finish(state, y)
        }
        OpsKind::UnTracked(prep) => {
            let y = forward(x.into_primitive(), weight.into_primitive(), shift, options);
            prep.finish(y)
        }
    }
}
