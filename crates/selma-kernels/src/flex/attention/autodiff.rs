//! The backward pass of attention. Of the forward pass it keeps the operands, the output, and one number a query and head.

use burn::backend::Flex;
use burn::backend::autodiff::{
    Autodiff, NodeId,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind},
};
use burn::backend::tensor::FloatTensor;

use super::{Outcome, Wanted, backward, forward, run};
use crate::flex::storage::{Storage, shaped};

/// The backward step. The parents are query, key and value.
#[derive(Debug)]
struct Step;

/// What the gradients need besides that of the output.
#[derive(Clone, Debug)]
struct State {
    operands: [NodeId; 3],
    output: Storage,
    logarithms: Storage,
}

/// A tensor of the CPU backend with autodiff.
type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

impl Backward<Flex, 3> for Step {
    type State = State;

    fn backward(self, ops: Ops<State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let State {
            operands,
            output,
            logarithms,
        } = ops.state;
        let [query, key, value]: [Storage; 3] =
            operands.map(|node| checkpointer.retrieve_node_output(node));
        let gradient = grads.consume::<Flex>(&ops.node);
        let outcome = Outcome {
            query,
            key,
            value,
            output,
            logarithms,
            gradient,
        };
        let [query, key, value] = &ops.parents;
        let wanted = Wanted {
            query: query.is_some(),
            key: key.is_some(),
            value: value.is_some(),
        };
        for (parent, gradient) in ops.parents.into_iter().zip(backward(outcome, wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                grads.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// Attention, with its backward step recorded where an operand is tracked.
pub(crate) fn tracked<C: CheckpointStrategy>(
    query: Tracked<C>,
    key: Tracked<C>,
    value: Tracked<C>,
) -> Tracked<C> {
    let prepared = Step
        .prepare::<C>([query.node(), key.node(), value.node()])
        .compute_bound()
        .stateful();
    match prepared {
        OpsKind::Tracked(mut prep) => {
            let operands = [&query, &key, &value].map(|operand| prep.checkpoint(operand));
            let (query, key, value) = (
                query.into_primitive(),
                key.into_primitive(),
                value.into_primitive(),
            );
            let (output, logarithms) = run(query, key, value, true);
            let count = logarithms.len();
            let state = State {
                operands,
                output: output.clone(),
                logarithms: shaped(logarithms, [count]),
            };
            prep.finish(state, output)
        }
        OpsKind::UnTracked(prep) => {
            let output = forward(
                query.into_primitive(),
                key.into_primitive(),
                value.into_primitive(),
            );
            prep.finish(output)
        }
    }
}
