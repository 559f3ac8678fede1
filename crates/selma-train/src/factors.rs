//! What is trained on a model: the factors of an adapter, or the gates of a mixture and perhaps its factors.

use burn::optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer};
use burn::tensor::{Device, Gradients, Tensor, TensorData};
use selma_diffusion::DiffusionError;
use selma_diffusion::models::UNet2DConditionModel;
use selma_lora::nn::{LoraLayerMut, LoraLayers, detach};
use selma_lora::{Adapter, init};

use crate::{TrainError, ValidTrainConfig};

/// Name of the branches or of the mixture that is trained.
pub(crate) const BRANCH: &str = "trained";
/// The component that is adapted.
pub(crate) const COMPONENT: &str = "unet";

/// One factor: a tensor of the model as a flat vector, and the optimizer's state for it.
pub(crate) struct Factor {
    /// Path of the layer, then `a` or `b`, or of a mixture `gate`, `down` or `up`.
    pub(crate) name: String,
    /// First and second moments, flat; none before the first step.
    pub(crate) state: Option<AdamWState<1>>,
}

/// All factors of a training, in the order of the model's layers.
pub(crate) struct Factors {
    pub(crate) all: Vec<Factor>,
    optimizer: AdamW,
    max_grad_norm: f64,
}

/// An initial adapter for all layers of a model that are called like a target: A drawn from the seed, B zero.
pub(crate) fn initial(
    unet: &mut UNet2DConditionModel,
    config: &ValidTrainConfig,
) -> Result<Adapter, TrainError> {
    let layers = unet.lora_layers(COMPONENT);
    let is_target = |path: &str| {
        config.targets.iter().any(|target| {
            let before = path.strip_suffix(target.as_str());
            before.is_some_and(|before| before.ends_with('.'))
        })
    };
    let mut modules = Vec::new();
    for (path, layer) in &layers {
        if is_target(path) {
            let shape = layer.weight_shape();
            let module = init::gaussian(path, &shape, config.rank, config.alpha, config.seed)?;
            modules.push((path.clone(), module));
        }
    }
    if modules.is_empty() {
        return Err(TrainError::NoTargets {
            targets: config.targets.clone(),
            found: layers.into_iter().take(4).map(|(path, _)| path).collect(),
        });
    }
    Ok(Adapter::new(modules))
}

impl Factors {
    /// Marks as trainable the branches of a model, and of a mixture the gates, and the experts as well if they are trained with them.
    pub(crate) fn track(unet: &mut UNet2DConditionModel, config: &ValidTrainConfig) -> Self {
        let mut all = Vec::new();
        for_each_candidate(unet, |path, part, mut tensor| {
            if config.train_experts || !matches!(part, "down" | "up") {
                tensor.track();
                all.push(Factor {
                    name: format!("{path}.{part}"),
                    state: None,
                });
            }
        });
        let optimizer = AdamWConfig::new()
            .with_beta_1(config.beta1 as f32)
            .with_beta_2(config.beta2 as f32)
            .with_epsilon(config.epsilon as f32)
            .with_weight_decay(config.weight_decay as f32)
            .build();
        Self {
            all,
            optimizer,
            max_grad_norm: config.max_grad_norm,
        }
    }

    /// Adds gradients to the sums.
    pub(crate) fn accumulate(sums: &mut Vec<Tensor<1>>, gradients: Vec<Tensor<1>>) {
        *sums = if sums.is_empty() {
            gradients
        } else {
            let old = std::mem::take(sums).into_iter();
            old.zip(gradients)
                .map(|(sum, gradient)| sum + gradient)
                .collect()
        };
    }

    /// The norm of all gradients together.
    pub(crate) fn norm(gradients: &[Tensor<1>]) -> Result<f32, TrainError> {
        let squares = gradients
            .iter()
            .map(|gradient| gradient.clone().square().sum());
        let total = squares.reduce(|sum, square| sum + square);
        Ok(match total {
            Some(total) => scalar(&total)?.sqrt(),
            None => 0.0,
        })
    }

    /// One AdamW step at a learning rate, with gradients of this norm, which are clipped.
    pub(crate) fn step(
        &mut self,
        unet: &mut UNet2DConditionModel,
        gradients: Vec<Tensor<1>>,
        norm: f32,
        learning_rate: f64,
    ) {
        // torch.nn.utils.clip_grad_norm_ adds 1e-6 to the norm.
        let ratio = self.max_grad_norm / (f64::from(norm) + 1e-6);
        let scale = (self.max_grad_norm > 0.0 && ratio < 1.0).then_some(ratio);
        let mut steps = self.all.iter_mut().zip(gradients);
        let optimizer = &self.optimizer;
        for_each_factor(unet, |tensor| {
            let Some((factor, gradient)) = steps.next() else {
                return;
            };
            let gradient = match scale {
                Some(scale) => gradient.mul_scalar(scale),
                None => gradient,
            };
            tensor.update(|value| {
                let state = factor.state.take();
                let (value, state) = optimizer.step(learning_rate, value, gradient, state);
                factor.state = state;
                value
            });
        });
    }

    /// Sets the optimizer's state of a factor from flat host values.
    pub(crate) fn restore(
        factor: &mut Factor,
        time: usize,
        moment_1: Vec<f32>,
        moment_2: Vec<f32>,
        device: &Device,
    ) {
        let tensor = |values: Vec<f32>| {
            let count = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [count]), device)
        };
        let momentum = AdaptiveMomentumState::new(time, tensor(moment_1), tensor(moment_2));
        factor.state = Some(AdamWState::new(momentum));
    }
}

/// Gradients of all factors, flat and in their order, gathered from one pass back or several.
#[derive(Default)]
pub(crate) struct Gathered(Vec<Option<Tensor<1>>>);

impl Gathered {
    /// Adds what a pass back has found for the factors of a model.
    pub(crate) fn add(&mut self, unet: &mut UNet2DConditionModel, gradients: &Gradients) {
        let mut index = 0;
        for_each_factor(unet, |tensor| {
            if self.0.len() == index {
                self.0.push(None);
            }
            if let (Some(sum), Some(found)) = (self.0.get_mut(index), tensor.gradient(gradients)) {
                *sum = Some(match sum.take() {
                    Some(before) => before + found,
                    None => found,
                });
            }
            index += 1;
        });
    }

    /// The gradients; zero where the loss does not depend on a factor.
    pub(crate) fn finish(self, unet: &mut UNet2DConditionModel) -> Vec<Tensor<1>> {
        let mut found = self.0.into_iter();
        let mut all = Vec::new();
        for_each_factor(unet, |tensor| {
            let gradient = found.next().flatten();
            all.push(gradient.unwrap_or_else(|| tensor.zeros()));
        });
        all
    }
}

/// Takes the gradients' graph off what is trained.
pub(crate) fn untrack(unet: &mut UNet2DConditionModel) {
    for_each_candidate(unet, |_, _, mut tensor| tensor.untrack());
}

/// Takes what is trained out of a model.
pub(crate) fn without_branches(unet: &mut UNet2DConditionModel) {
    detach(unet, BRANCH);
}

/// Gives what is trained leaves of its own: the same values at the root of another graph.
pub(crate) fn renew(unet: &mut UNet2DConditionModel) {
    for_each_factor(unet, |mut tensor| {
        tensor.untrack();
        tensor.track();
    });
}

/// The value of a tensor with one element.
pub(crate) fn scalar(tensor: &Tensor<1>) -> Result<f32, TrainError> {
    let values = host(tensor.clone())?;
    values.first().copied().ok_or_else(|| TrainError::ReadBack {
        reason: "an empty tensor".to_owned(),
    })
}

/// Values of a tensor, in row-major order.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    let data = tensor.try_into_data();
    let data = data.map_err(DiffusionError::read_back)?.convert::<f32>();
    data.try_to_vec::<f32>()
        .map_err(|error| TrainError::ReadBack {
            reason: format!("{error:?}"),
        })
}

/// A factor, whatever its rank.
enum FactorMut<'a> {
    Matrix(&'a mut Tensor<2>),
    Kernel(&'a mut Tensor<4>),
}

impl FactorMut<'_> {
    fn is_tracked(&self) -> bool {
        match self {
            Self::Matrix(tensor) => tensor.is_require_grad(),
            Self::Kernel(tensor) => tensor.is_require_grad(),
        }
    }

    fn track(&mut self) {
        match self {
            Self::Matrix(tensor) => **tensor = tensor.clone().autodiff().require_grad(),
            Self::Kernel(tensor) => **tensor = tensor.clone().autodiff().require_grad(),
        }
    }

    fn untrack(&mut self) {
        match self {
            Self::Matrix(tensor) => **tensor = tensor.clone().without_autodiff(),
            Self::Kernel(tensor) => **tensor = tensor.clone().without_autodiff(),
        }
    }

    /// The gradient, flat, if the pass back has met the factor.
    fn gradient(self, gradients: &Gradients) -> Option<Tensor<1>> {
        fn flat<const D: usize>(tensor: &Tensor<D>, gradients: &Gradients) -> Option<Tensor<1>> {
            let count = tensor.shape().num_elements();
            Some(tensor.grad(gradients)?.reshape([count]))
        }
        match self {
            Self::Matrix(tensor) => flat(tensor, gradients),
            Self::Kernel(tensor) => flat(tensor, gradients),
        }
    }

    /// A gradient of zero, flat.
    fn zeros(self) -> Tensor<1> {
        fn flat<const D: usize>(tensor: &Tensor<D>) -> Tensor<1> {
            let count = tensor.shape().num_elements();
            Tensor::zeros([count], &tensor.device().without_autodiff())
        }
        match self {
            Self::Matrix(tensor) => flat(tensor),
            Self::Kernel(tensor) => flat(tensor),
        }
    }

    fn update(self, change: impl FnOnce(Tensor<1>) -> Tensor<1>) {
        fn updated<const D: usize>(
            tensor: &Tensor<D>,
            change: impl FnOnce(Tensor<1>) -> Tensor<1>,
        ) -> Tensor<D> {
            let shape = tensor.dims();
            let count = tensor.shape().num_elements();
            let flat = tensor.clone().without_autodiff().reshape([count]);
            change(flat).reshape(shape).autodiff().require_grad()
        }
        match self {
            Self::Matrix(tensor) => *tensor = updated(tensor, change),
            Self::Kernel(tensor) => *tensor = updated(tensor, change),
        }
    }
}

/// Visits all that is trained, in an order that is always the same.
fn for_each_factor(unet: &mut UNet2DConditionModel, mut visit: impl FnMut(FactorMut<'_>)) {
    for_each_candidate(unet, |_, _, tensor| {
        if tensor.is_tracked() {
            visit(tensor);
        }
    });
}

/// Visits all that could be trained: the path of the layer, what it is there, and the tensor.
fn for_each_candidate(
    unet: &mut UNet2DConditionModel,
    mut visit: impl FnMut(&str, &'static str, FactorMut<'_>),
) {
    for (path, layer) in unet.lora_layers(COMPONENT) {
        match layer {
            LoraLayerMut::Linear(layer) => {
                let branches = layer.branches.iter_mut();
                for branch in branches.filter(|branch| branch.name == BRANCH) {
                    visit(&path, "a", FactorMut::Matrix(&mut branch.a));
                    visit(&path, "b", FactorMut::Matrix(&mut branch.b));
                }
                let mixture = layer.mixture.iter_mut();
                for mixture in mixture.filter(|mixture| mixture.name == BRANCH) {
                    visit(&path, "gate", FactorMut::Matrix(&mut mixture.gate));
                    visit(&path, "down", FactorMut::Matrix(&mut mixture.down));
                    visit(&path, "up", FactorMut::Matrix(&mut mixture.up));
                }
            }
            LoraLayerMut::Conv2d(layer) => {
                let branches = layer.branches.iter_mut();
                for branch in branches.filter(|branch| branch.name == BRANCH) {
                    visit(&path, "a", FactorMut::Kernel(&mut branch.a));
                    visit(&path, "b", FactorMut::Kernel(&mut branch.b));
                }
            }
        }
    }
}
