//! The optimizer of both trainings: Muon for the matrices, AdamW for the rest.

use burn::module::{Module, ModuleVisitor, Param, ParamGroup, ParamId};
use burn::optim::{AdamWConfig, ModuleOptimizer, Muon, MuonConfig, MuonState, Optimizer};
use burn::tensor::{Device, Tensor};

/// Peaks of the one-cycle learning rates.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// Of AdamW.
    pub(super) others: f64,
    /// Of Muon.
    pub(super) matrices: f64,
}

/// An optimizer of `model` that has made no step: `adamw`, and Muon for the weights of two or more dimensions, but for
/// tables of embeddings. Its learning rate is that of AdamW.
pub(super) fn optimizer(model: &impl Module, adamw: &AdamWConfig, rates: Rates) -> ModuleOptimizer {
    let mut found = Found::default();
    model.visit(&mut found);
    let matrices = Matrices {
        muon: MuonConfig::new().build(),
        rate: rates.matrices / rates.others,
    };
    adamw
        .init()
        .with_group(ParamGroup::from_ids(found.matrices), matrices, None)
}

/// Finds the weights that Muon is for.
#[derive(Default)]
struct Found {
    matrices: Vec<ParamId>,
    /// Kinds of the modules around the present one.
    containers: Vec<String>,
}

impl ModuleVisitor for Found {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D >= 2
            && !self
                .containers
                .iter()
                .any(|kind| kind.contains("Embedding"))
        {
            self.matrices.push(param.id);
        }
    }

    fn enter_module(&mut self, _name: &str, container_type: &str) {
        self.containers.push(container_type.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.containers.pop();
    }
}

/// Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024): the step is the momentum with
/// all its singular values made one. A convolution's kernel is a matrix of one row per output channel.
#[derive(Clone)]
struct Matrices {
    muon: Muon,
    /// The learning rate, relative to that of the other parameters.
    rate: f64,
}

impl Optimizer for Matrices {
    type State<const D: usize> = MuonState<2>;

    fn step<const D: usize>(
        &self,
        rate: f64,
        tensor: Tensor<D>,
        gradient: Tensor<D>,
        state: Option<MuonState<2>>,
    ) -> (Tensor<D>, Option<MuonState<2>>) {
        let shape = tensor.dims();
        let [tensor, gradient] = [tensor, gradient].map(matrix);
        let (tensor, state) = self.muon.step(rate * self.rate, tensor, gradient, state);
        (tensor.reshape(shape), state)
    }

    fn to_device<const D: usize>(state: MuonState<2>, device: &Device) -> MuonState<2> {
        Muon::to_device(state, device)
    }
}

/// A weight as a matrix of one row per first index.
fn matrix<const D: usize>(weight: Tensor<D>) -> Tensor<2> {
    let (rows, columns) = match weight.dims().split_first() {
        Some((&rows, columns)) => (rows, columns.iter().product()),
        None => (1, 1),
    };
    weight.reshape([rows, columns])
}
