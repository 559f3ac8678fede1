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

/// The backward step. The parents are the input, the weight and, where there is one, the bias.
#[derive(Debug)]
struct Step;

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

impl<const N: usize> Backward<Flex, N> for Step {
    type State = State;

    fn backward(self, ops: Ops<State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<Flex>(&ops.node);
        let mut parents = ops.parents.into_iter();
        let (x, weight, bias) = (parents.next(), parents.next(), parents.next());
        if let Some(node) = bias.flatten() {
            grads.register::<Flex>(node.id, backward_bias(dy.clone()));
        }
        if let Some(node) = weight.flatten()
            && let Some(dw) = ops.state.weight(dy.clone(), checkpointer)
        {
            grads.register::<Flex>(node.id, dw);
        }
        if let Some(node) = x.flatten() {
            grads.register::<Flex>(node.id, ops.state.input(dy));
        }
    }
}

/// The convolution, with its backward step recorded where a parent is tracked.
pub(crate) fn tracked<C: CheckpointStrategy>(
    x: Tracked<C>,
    weight: Tracked<C>,
    bias: Option<Tracked<C>>,
    options: Options,
) -> Tracked<C> {
    let (node_x, node_weight) = (x.node(), weight.node());
    match bias {
        None => {
            let prep = Step.prepare::<C>([node_x, node_weight]);
            finish(prep.compute_bound().stateful(), x, weight, None, options)
        }
        Some(bias) => {
            let prep = Step.prepare::<C>([node_x, node_weight, bias.node()]);
            let bias = Some(bias.into_primitive());
            finish(prep.compute_bound().stateful(), x, weight, bias, options)
        }
    }
}

fn finish<C: CheckpointStrategy, const N: usize>(
    prepared: OpsKind<Step, Flex, State, C, N>,
    x: Tracked<C>,
    weight: Tracked<C>,
    bias: Option<Storage>,
    options: Options,
) -> Tracked<C> {
    match prepared {
        OpsKind::Tracked(mut prep) => {
            let state = State {
                x: weight.is_tracked().then(|| prep.checkpoint(&x)),
                ..State::new::<C>(&x, &weight, options)
            };
            let y = forward(x.into_primitive(), weight.into_primitive(), bias, options);
            prep.finish(state, y)
        }
        OpsKind::UnTracked(prep) => {
            let y = forward(x.into_primitive(), weight.into_primitive(), bias, options);
            prep.finish(y)
        }
    }
}
