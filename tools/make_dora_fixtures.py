#!/usr/bin/env python3
"""Makes the DoRA fixtures of crates/selma-lora from PEFT, diffusers and LyCORIS.

    python tools/make_dora_fixtures.py     # writes crates/selma-lora/tests/fixtures

PEFT puts DoRA (rsLoRA, ranks and alphas by pattern) on a tiny UNet and saves its folder, diffusers saves it as a
file; LyCORIS decomposes LoCon, LoHa and LoKr, with lengths of outputs and of inputs. Recorded are the weights
before, and how far the tools move them when they merge in double precision.

Needs torch, diffusers, transformers, peft, safetensors, lycoris-lora.
"""

import peft
import torch
from lycoris.modules import LoConModule, LohaModule, LokrModule
from make_lora_fixtures import CONV, CROSS, FIXTURES, LINEAR, POINTWISE, save_adapter, unet
from make_lora_kinds_fixtures import LAYERS, kohya_name, randomise, save
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

CONFIG = LoraConfig(
    r=3, lora_alpha=4, target_modules=[LINEAR, CROSS, POINTWISE, CONV], use_dora=True, use_rslora=True,
    rank_pattern={"resnets.0.conv1": 2}, alpha_pattern={"to_q": 5},
)
# Kind, layer, options; lengths of inputs last.
LYCORIS = [
    (LoConModule, "linear", {}),
    (LoConModule, "conv", {}),
    (LoConModule, "conv", {"use_tucker": True}),
    (LohaModule, "conv", {}),
    (LokrModule, "linear", {}),
    (LoConModule, "pointwise", {"wd_on_out": False}),
    (LoConModule, "conv", {"wd_on_out": False}),
    (LohaModule, "conv", {"wd_on_out": False}),
]


def of_peft(golden):
    """A folder of PEFT, and what `merge_and_unload` makes of the weights."""
    base = unet().double()
    for parameter in base.parameters():
        parameter.data = parameter.data.float().double()
    before = {name: parameter.detach().clone() for name, parameter in base.named_parameters()}
    model = peft.get_peft_model(base, CONFIG)
    draw(model)
    targets = [name.removeprefix("base_model.model.") for name, layer in model.named_modules()
               if isinstance(layer, BaseTunerLayer)]
    save_single(model, FIXTURES / "peft_dora")
    after = dict(model.merge_and_unload().named_parameters())
    for target in targets:
        record(golden, f"peft.unet.{target}", before[f"{target}.weight"], after[f"{target}.weight"].detach())


    # The same adapter as diffusers saves it.
    model = unet().double()
    model.add_adapter(CONFIG, "default")
    draw(model)
    save_adapter(model, "default", FIXTURES / "named_dora.safetensors")


def draw(model):
    generator = torch.Generator().manual_seed(40)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name:
            values = torch.randn(parameter.shape, generator=generator)
            # Lengths near those of the weights, some shorter and some longer.
            new = parameter.detach() * (1 + values * 0.3) if "magnitude" in name else values * 0.3
            parameter.data.copy_(new.float())


def save_single(model, folder):
    """Saves in single precision and leaves the model as it was."""
    doubles = {name: parameter.data for name, parameter in model.named_parameters()}
    save(model, folder)
    for name, parameter in model.named_parameters():
        parameter.data = doubles[name]


def of_lycoris(golden):
    file = {}
    for number, (kind, layer, options) in enumerate(LYCORIS):
        name = kohya_name(layer, number)
        base = LAYERS[layer]()
        generator = torch.Generator().manual_seed(50 + number)
        base.weight.data.copy_(torch.randn(base.weight.shape, generator=generator) * 0.5)
        module = kind(name, base.double(), lora_dim=2, alpha=3, weight_decompose=True, **options).double()
        lengths = module.dora_scale.detach().clone().double()
        randomise(module, number)
        values = torch.randn(lengths.shape, generator=generator)
        module.dora_scale.data = (lengths * (1 + values * 0.3)).float().double()
        # As the forward pass does it. get_merged_weight multiplies LoHa and LoKr by their scale twice.
        diff = module.make_weight() * module.scale if kind is LoConModule else module.get_weight(base.weight.shape)
        merged = module.apply_weight_decompose(base.weight + diff.reshape(base.weight.shape))
        record(golden, f"lycoris.{name}", base.weight.detach(), merged.detach())
        state = module.custom_state_dict() if hasattr(module, "custom_state_dict") else module.state_dict()
        for key, value in state.items():
            if key != "scalar":
                file[f"lora_unet_{name}.{key}"] = value.detach().float().contiguous()
    save_file(file, FIXTURES / "lycoris_dora.safetensors")


def record(golden, name, before, after):
    golden[f"base_{name}"] = before.float().contiguous()
    golden[name] = (after - before).flatten(1).float().contiguous()


def main():
    golden = {}
    of_peft(golden)
    of_lycoris(golden)
    save_file(golden, FIXTURES / "dora_dw.safetensors")
    for path in [*FIXTURES.glob("*dora*.safetensors"), *FIXTURES.glob("peft_dora/*")]:
        path.chmod(0o644)
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
