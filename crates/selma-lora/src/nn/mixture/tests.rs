use std::collections::BTreeMap;

use burn::tensor::Tolerance;
use safetensors::SafeTensors;

use super::*;
use crate::nn::{
    LoraConv2d, LoraConv2dConfig, LoraLinear, LoraLinearConfig, attach, detach, extract, fuse,
    set_weight,
};
use crate::{Adapter, LoraModule, Merge, Method, Weighted, init, lora_layers};

#[derive(Module, Debug)]
struct Net {
    linear: LoraLinear,
    conv: LoraConv2d,
}
lora_layers!(Net { linear, conv });

fn net() -> Net {
    let device = Device::flex();
    Net {
        linear: LoraLinearConfig::new(6, 4).init(&device),
        conv: LoraConv2dConfig::new(6, 4, 1).init(&device),
    }
}

/// A tensor of the fixture that `tools/make_mixture_fixtures.py` makes with PyTorch.
fn array(name: &str) -> ArrayD<f32> {
    let bytes = include_bytes!("../../../tests/fixtures/mixture.safetensors");
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensor = file.tensor(name).unwrap();
    let (values, _) = tensor.data().as_chunks();
    let values = values.iter().map(|&x| f32::from_le_bytes(x)).collect();
    ArrayD::from_shape_vec(tensor.shape().to_vec(), values).unwrap()
}

fn recorded<const D: usize>(name: &str) -> Tensor<D> {
    tensor(&array(name), &Device::flex())
}

/// The experts of the fixture, as adapters of the layer.
fn experts() -> [Adapter; 3] {
    let scales = array("scales");
    [0, 1, 2].map(|index| {
        let (a, b) = (array(&format!("a.{index}")), array(&format!("b.{index}")));
        let alpha = f64::from(scales[index]) * a.shape()[0] as f64;
        let module = LoraModule::new(a, b, alpha).unwrap();
        Adapter::new([("unet.linear".to_owned(), module)])
    })
}

/// The mixture of a case of the fixture.
fn case(name: &str) -> Mixture {
    let experts = experts();
    let mut mixture = match name.strip_prefix("top") {
        Some(top_k) => Mixture::router(&experts.each_ref(), top_k.parse().unwrap(), 0).unwrap(),
        None => Mixture::weights(&experts.each_ref()).unwrap(),
    };
    let gate = array(if name == "weights" { "weights" } else { "gate" });
    for module in mixture.modules.values_mut() {
        let shape = module.gate.raw_dim();
        module.gate = gate.clone().into_shape_with_order(shape).unwrap();
    }
    mixture
}

fn close<const D: usize>(found: Tensor<D>, expected: Tensor<D>, tolerance: f64) {
    let tolerance = Tolerance::rel_abs(tolerance, tolerance);
    let expected = expected.into_data();
    found
        .into_data()
        .assert_approx_eq::<f32>(&expected, tolerance);
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    for name in ["top1", "top2", "top3", "weights"] {
        let mut net = net();
        case(name).attach_to(&mut net, "unet", "m", 1.0).unwrap();
        net.linear.weight = burn::module::Param::from_tensor(recorded("base"));
        net.linear.bias = None;
        let tracked = |tensor: &Tensor<2>| tensor.clone().autodiff().require_grad();
        if let Some(mixture) = &mut net.linear.mixture {
            mixture.gate = tracked(&mixture.gate);
            mixture.down = tracked(&mixture.down);
            mixture.up = tracked(&mixture.up);
        }
        let x = recorded::<3>("x").autodiff().require_grad();
        let output = net.linear.forward(x.clone());
        let expected = recorded(&format!("{name}.output"));
        close(output.clone().without_autodiff(), expected, 1e-5);
        let gradients = (output * recorded("upstream")).sum().backward();
        let expected = |of: &str| array(&format!("{name}.grad.{of}"));
        let x_expected = recorded(&format!("{name}.grad.x"));
        close(x.grad(&gradients).unwrap(), x_expected, 2e-5);
        let mixture = net.linear.mixture.unwrap();
        let device = Device::flex();
        let gate = expected(if name == "weights" { "weights" } else { "gate" });
        let found = mixture.gate.grad(&gradients).unwrap();
        let shape = found.dims();
        close(
            found,
            tensor::<2>(
                &gate.into_shape_with_order(shape).unwrap().into_dyn(),
                &device,
            ),
            2e-5,
        );
        let stack = |letter: &str, axis| {
            let all =
                [0, 1, 2].map(|index| recorded::<2>(&format!("{name}.grad.{letter}.{index}")));
            Tensor::cat(all.to_vec(), axis)
        };
        close(mixture.down.grad(&gradients).unwrap(), stack("a", 0), 2e-5);
        close(mixture.up.grad(&gradients).unwrap(), stack("b", 1), 2e-5);
    }
}

#[test]
fn a_router_of_zeros_is_the_mean_merge() {
    let experts = experts();
    let weighted = experts.each_ref().map(|adapter| Weighted {
        adapter,
        weight: 1.0,
    });
    let (merged, _) = Merge::new(Method::Mean).run(&weighted).unwrap();
    let net = net();
    let (mut mixed, mut mean) = (net.clone(), net);
    let mixture = Mixture::router(&experts.each_ref(), 3, 0).unwrap();
    mixture.attach_to(&mut mixed, "unet", "m", 1.0).unwrap();
    attach(&mut mean, "unet", &merged, "m", 1.0).unwrap();
    let x = || recorded::<3>("x");
    close(mixed.linear.forward(x()), mean.linear.forward(x()), 1e-6);
    let mixture = Mixture::weights(&experts.each_ref()).unwrap();
    detach(&mut mixed, "m");
    mixture.attach_to(&mut mixed, "unet", "m", 1.0).unwrap();
    close(mixed.linear.forward(x()), mean.linear.forward(x()), 1e-6);
}

#[test]
fn the_first_of_equals_is_chosen_and_the_largest_alone_counts() {
    let kept = |logits: [f32; 3], top_k| {
        let data = TensorData::new(logits.to_vec(), [1, 3]);
        let dropped = dropped(Tensor::from_data(data, &Device::flex()), top_k);
        let dropped = dropped.into_data().try_to_vec::<f32>().unwrap();
        dropped.iter().map(|&x| x == 0.0).collect::<Vec<_>>()
    };
    assert_eq!(kept([0.0, 0.0, 0.0], 2), [true, true, false]);
    assert_eq!(kept([1.0, 2.0, 1.0], 2), [true, true, false]);
    assert_eq!(kept([-1.0, -3.0, -2.0], 1), [true, false, false]);
    // One expert alone is as strong as it is as an adapter.
    let mut mixture = case("top1");
    for module in mixture.modules.values_mut() {
        module.gate.fill(0.0);
        module.gate.row_mut(1).fill(1.0);
    }
    let net = net();
    let (mut mixed, mut alone) = (net.clone(), net);
    mixture.attach_to(&mut mixed, "unet", "m", 0.5).unwrap();
    attach(&mut alone, "unet", &experts()[1], "m", 0.5).unwrap();
    // All positive, so that the second logit is the largest.
    let x = || recorded::<3>("x").abs();
    close(mixed.linear.forward(x()), alone.linear.forward(x()), 1e-5);
}

#[test]
fn nothing_that_works_on_adapters_loses_a_mixture() {
    let mut net = net();
    let before = net.linear.weight.val().to_data();
    let (mixture, x) = (case("top2"), || recorded::<3>("x"));
    let plain = net.linear.forward(x()).to_data();
    let report = mixture.attach_to(&mut net, "unet", "m", 1.0).unwrap();
    assert_eq!(report.matched, ["unet.linear"]);
    let mixed = net.linear.forward(x());
    assert_eq!(
        extract_mixture(&mut net, "unet", "m", &mixture.experts).unwrap(),
        mixture
    );
    // It stays beside the weights, where a branch goes into them.
    assert_eq!(fuse(&mut net), 0);
    attach(&mut net, "unet", &experts()[0], "branch", 0.0).unwrap();
    assert_eq!(fuse(&mut net), 1);
    close(net.linear.forward(x()), mixed, 1e-6);
    let error = extract(&mut net, "unet", "m").unwrap_err().to_string();
    assert!(
        error.contains("unet.linear") && error.contains("a mixture"),
        "{error}"
    );
    assert!(extract_mixture(&mut net, "unet", "branch", &[]).is_err());
    let again = mixture
        .attach_to(&mut net, "unet", "other", 1.0)
        .unwrap_err()
        .to_string();
    assert!(
        again.contains("unet.linear") && again.contains("without a mixture"),
        "{again}"
    );
    assert_eq!(set_weight(&mut net, "m", 0.0), 1);
    assert_eq!(net.linear.forward(x()).to_data(), plain);
    assert_eq!((detach(&mut net, "m"), detach(&mut net, "m")), (1, 0));
    detach(&mut net, "branch");
    assert_eq!(net.linear.weight.val().to_data(), before);
    assert!(net.linear.mixture.is_none());
}

#[test]
fn models_that_a_mixture_does_not_fit_are_refused_and_left_alone() {
    let mut net = net();
    let refused = |net: &mut Net, mixture: &Mixture| {
        let error = mixture.attach_to(net, "unet", "m", 1.0).unwrap_err();
        assert!(net.linear.mixture.is_none());
        error.to_string()
    };
    let of = |path: &str, shape: &[usize]| {
        let module = init::gaussian(path, shape, 2, 2.0, 0).unwrap();
        Adapter::new([(path.to_owned(), module)])
    };
    let linear = of("unet.linear", &[4, 6]);
    for (path, shape, parts) in [
        ("unet.conv", [4, 6], ["unet.conv", "a convolution"]),
        ("unet.other", [4, 6], ["unet.other", "not in the model"]),
        ("unet.linear", [4, 8], ["unet.linear", "[4, 8]"]),
    ] {
        let other = of(path, &shape);
        let experts = if path == "unet.linear" {
            vec![&other]
        } else {
            vec![&linear, &other]
        };
        let mixture = Mixture::router(&experts, 1, 0).unwrap();
        let error = refused(&mut net, &mixture);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    let nothing = Mixture {
        modules: BTreeMap::new(),
        ..case("top3")
    };
    refused(&mut net, &nothing);
}
