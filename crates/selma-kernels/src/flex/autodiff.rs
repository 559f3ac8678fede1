//! The backward passes. Each keeps the input of its operation alone and computes the rest again, which is cheaper than
//! the memory traffic of keeping it.

use core::marker::PhantomData;

use burn::backend::Flex;
use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{
        base::Checkpointer, retro_forward::RetroForward, state::BackwardStates,
        strategy::CheckpointStrategy,
    },
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::tensor::FloatTensor;

use super::math::{Activation, Gelu, Silu};
use super::norm::{self, Options};
use super::storage::Storage;
use super::{Kernels, attention, conv, elementwise, geglu};

/// An operation on one tensor, with its gradient.
trait Unary: core::fmt::Debug + Clone + Send + 'static {
    /// The output for the input `x`.
    fn forward(x: Storage) -> Storage;
    /// The gradient with respect to the input `x`, for the gradient `dy` with respect to the output.
    fn backward(x: Storage, dy: Storage) -> Storage;
}

/// An activation of every number.
#[derive(Clone, Debug)]
struct Elementwise<A>(PhantomData<A>);

impl<A: Activation> Unary for Elementwise<A> {
    fn forward(x: Storage) -> Storage {
        elementwise::forward::<A>(x)
    }

    fn backward(x: Storage, dy: Storage) -> Storage {
        elementwise::backward::<A>(x, dy)
    }
}

/// GEGLU.
#[derive(Clone, Debug)]
struct Geglu;

impl Unary for Geglu {
    fn forward(x: Storage) -> Storage {
        geglu::forward(x)
    }

    fn backward(x: Storage, dy: Storage) -> Storage {
        geglu::backward(x, dy)
    }
}

/// The backward step of a [`Unary`].
#[derive(Debug)]
struct UnaryBackward<O>(PhantomData<O>);

impl<O: Unary> Backward<Flex, 1> for UnaryBackward<O> {
    type State = NodeId;

    fn backward(self, ops: Ops<NodeId, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let x = checkpointer.retrieve_node_output(ops.state);
        unary::<Flex, _>(ops.parents, ops.node, grads, |dy| O::backward(x, dy));
    }
}

/// Computes the output of a [`Unary`] again, where gradient checkpointing did not keep it.
#[derive(Debug)]
struct Recompute<O> {
    input: NodeId,
    operation: PhantomData<O>,
}

impl<O: Unary> RetroForward for Recompute<O> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let x = states.get_state::<Storage>(&self.input);
        states.save(out_node, O::forward(x));
    }
}

/// Runs a [`Unary`] and records its backward step where `x` is tracked.
fn tracked<O: Unary, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<Flex, C>>,
) -> FloatTensor<Autodiff<Flex, C>> {
    let node = x.node();
    let recompute = Recompute::<O> {
        input: node.id(),
        operation: PhantomData,
    };
    match UnaryBackward::<O>(PhantomData)
        .prepare::<C>([node])
        .memory_bound()
        .retro_forward(recompute)
        .parents([&x])
        .stateful()
    {
        OpsKind::Tracked(mut prep) => {
            let state = prep.checkpoint(&x);
            prep.finish(state, O::forward(x.primitive().clone()))
        }
        OpsKind::UnTracked(prep) => prep.finish(O::forward(x.into_primitive())),
    }
}

/// The backward step of the group normalisation.
#[derive(Debug)]
struct GroupNormBackward;

/// What [`GroupNormBackward`] needs besides the gradient.
#[derive(Clone, Debug)]
struct GroupNormState {
    x: NodeId,
    weight: Storage,
    bias: Storage,
    options: Options,
}

impl Backward<Flex, 3> for GroupNormBackward {
    type State = GroupNormState;

    fn backward(
        self,
        ops: Ops<GroupNormState, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let GroupNormState {
            x,
            weight,
            bias,
            options,
        } = ops.state;
        let x: Storage = checkpointer.retrieve_node_output(x);
        let dy = grads.consume::<Flex>(&ops.node);
        let [node_x, node_weight, node_bias] = ops.parents;
        if node_weight.is_some() || node_bias.is_some() {
            let (dw, db) =
                norm::backward_affine(x.clone(), weight.clone(), bias.clone(), dy.clone(), options);
            if let Some(node) = node_weight {
                grads.register::<Flex>(node.id, dw);
            }
            if let Some(node) = node_bias {
                grads.register::<Flex>(node.id, db);
            }
        }
        if let Some(node) = node_x {
            let dx = norm::backward_input(x, weight, bias, dy, options);
            grads.register::<Flex>(node.id, dx);
        }
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn kernel_silu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<Elementwise<Silu>, C>(x)
    }

    fn kernel_gelu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<Elementwise<Gelu>, C>(x)
    }

    fn kernel_geglu(x: FloatTensor<Self>) -> FloatTensor<Self> {
        tracked::<Geglu, C>(x)
    }

    fn kernel_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: Options,
    ) -> FloatTensor<Self> {
        match GroupNormBackward
            .prepare::<C>([x.node(), weight.node(), bias.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(mut prep) => {
                let state = GroupNormState {
                    x: prep.checkpoint(&x),
                    weight: weight.primitive().clone(),
                    bias: bias.primitive().clone(),
                    options,
                };
                let y = norm::forward(
                    x.into_primitive(),
                    weight.into_primitive(),
                    bias.into_primitive(),
                    options,
                );
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(norm::forward(
                x.into_primitive(),
                weight.into_primitive(),
                bias.into_primitive(),
                options,
            )),
        }
    }

    fn kernel_attention(
        query: FloatTensor<Self>,
        key: FloatTensor<Self>,
        value: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        attention::tracked::<C>(query, key, value)
    }

    fn kernel_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        options: conv::Options,
    ) -> FloatTensor<Self> {
        conv::tracked::<C>(x, weight, None, options)
    }

    fn kernel_conv2d_biased(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: conv::Options,
    ) -> FloatTensor<Self> {
        conv::tracked::<C>(x, weight, Some(bias), options)
    }
}
