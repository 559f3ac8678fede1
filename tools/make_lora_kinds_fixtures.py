#!/usr/bin/env python3
"""Makes the fixtures of crates/selma-lora for what is no plain LoRA, and for the folders of PEFT.

    python tools/make_lora_kinds_fixtures.py make     # writes crates/selma-lora/tests/fixtures
    python tools/make_lora_kinds_fixtures.py check    # PEFT loads the folders that the crate writes

`make` has LyCORIS build LoCon, LoHa, LoKr and full modules on linear layers, 1x1 and 3x3 convolutions,
and PEFT build LoRA (rsLoRA, ranks and alphas by pattern), LoHa and LoKr on a tiny UNet and text encoder;
it records the dense updates that both compute in double precision. `check` needs cargo.

Needs torch, diffusers, transformers, peft, safetensors, lycoris-lora.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
from lycoris.modules import FullModule, LoConModule, LohaModule, LokrModule
from make_lora_fixtures import CONV, CROSS, FIXTURES, LINEAR, POINTWISE, ROOT, text_encoder, unet
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

LAYERS = {
    "linear": lambda: torch.nn.Linear(8, 12, bias=False),
    "pointwise": lambda: torch.nn.Conv2d(6, 9, 1, bias=False),
    "conv": lambda: torch.nn.Conv2d(4, 6, 3, padding=1, bias=False),
}
# Kind, layer, options. alpha 3 on rank 2 and others: no scale is 1.
LYCORIS = [
    (LoConModule, "linear", {}),
    (LoConModule, "pointwise", {}),
    (LoConModule, "conv", {}),
    (LoConModule, "conv", {"use_tucker": True}),
    (LohaModule, "linear", {}),
    (LohaModule, "pointwise", {}),
    (LohaModule, "conv", {}),
    (LohaModule, "conv", {"use_tucker": True}),
    (LokrModule, "linear", {}),
    (LokrModule, "linear", {"decompose_both": True, "factor": 4, "lora_dim": 1}),
    (LokrModule, "linear", {"lora_dim": 100}),
    (LokrModule, "pointwise", {}),
    (LokrModule, "conv", {"lora_dim": 1}),
    (LokrModule, "conv", {"lora_dim": 1, "use_tucker": True}),
    (FullModule, "linear", {}),
    (FullModule, "conv", {}),
]


def kohya_name(layer, number):
    """A module of SD 1 for every module made; its size does not matter here."""
    if layer == "conv":
        return f"down_blocks_{number % 4}_resnets_{number // 4 % 2}_conv{1 + number // 8}"
    side = f"up_blocks_{1 + number % 3}_attentions_{number // 3 % 3}"
    if layer == "pointwise":
        return f"{side}_proj_in"
    return f"{side}_transformer_blocks_0_attn{1 + number // 9}_to_q"


def randomise(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(module.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator) * 0.5
        parameter.data.copy_(values.to(parameter.dtype))


def lycoris():
    plain, other, golden = {}, {}, {}
    for number, (kind, layer, options) in enumerate(LYCORIS):
        name = kohya_name(layer, number)
        base = LAYERS[layer]().double()
        if kind is FullModule:
            module = kind(name, base)
        else:
            options = {"lora_dim": 2, "alpha": 3, **options}
            module = kind(name, base, **options)
        module = module.double()
        randomise(module, number)
        if kind is FullModule:
            state = {"diff": module.weight.detach()}
            delta = module.weight.detach()
        else:
            # Not get_diff_weight, which multiplies by the scale twice.
            delta = module.make_weight() * module.scale if kind is LoConModule else module.get_weight(base.weight.shape)
            state = {
                key: value.detach() for key, value in module.custom_state_dict().items()
            } if hasattr(module, "custom_state_dict") else dict(module.state_dict())
        file = plain if kind is LoConModule else other
        for key, value in state.items():
            if key != "scalar":
                file[f"lora_unet_{name}.{key}"] = value.float().contiguous()
        golden[f"lycoris.{name}"] = delta.detach().flatten(1)
    save_file(plain, FIXTURES / "lycoris_locon.safetensors")
    save_file(other, FIXTURES / "lycoris_kinds.safetensors")
    return golden


TARGETS = [LINEAR, CROSS, POINTWISE, CONV]
PEFT = {
    "lora": LoraConfig(
        r=4, lora_alpha=6, target_modules=TARGETS, use_rslora=True,
        rank_pattern={"resnets.0.conv1": 2}, alpha_pattern={"to_q": 3},
    ),
    "loha": LoHaConfig(
        r=2, alpha=3, target_modules=TARGETS, use_effective_conv2d=True,
        rank_pattern={"to_k": 1}, alpha_pattern={"proj_in": 5},
    ),
    "lokr": LoKrConfig(r=1, alpha=3, target_modules=TARGETS, use_effective_conv2d=True),
}


def deltas(model, adapter="default"):
    return {
        name: layer.get_delta_weight(adapter).detach().flatten(1)
        for name, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    }


def wrapped(model, config, seed):
    model = peft.get_peft_model(model.double(), config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if any(part in name for part in ["lora_", "hada_", "lokr_"]):
            values = torch.randn(parameter.shape, generator=generator) * 0.5
            parameter.data.copy_(values.to(parameter.dtype))
    return model


def save(model, folder):
    """Files of single precision, without the card that PEFT writes beside them."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)


def folders():
    golden = {}
    for seed, (name, config) in enumerate(PEFT.items()):
        root = FIXTURES / f"peft_{name}"
        model = wrapped(unet(), config, 20 + seed)
        golden |= {
            f"peft_{name}.unet.{key.removeprefix('base_model.model.')}": delta
            for key, delta in deltas(model).items()
        }
        save(model, root / "unet" if name == "lora" else root)
    config = LoraConfig(r=3, lora_alpha=2, target_modules=["q_proj", "fc2"])
    model = wrapped(text_encoder(), config, 30)
    golden |= {
        f"peft_lora.text_encoder.text_model.{key.removeprefix('base_model.model.')}": delta
        for key, delta in deltas(model).items()
    }
    save(model, FIXTURES / "peft_lora/text_encoder")
    return golden


def make():
    golden = lycoris() | folders()
    save_file({k: v.float().contiguous() for k, v in golden.items()}, FIXTURES / "kinds_dw.safetensors")
    for path in FIXTURES.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
    print(f"{len(golden)} updates")


def check():
    """PEFT does with a folder that the crate wrote what it did with the one that the crate read."""
    source = FIXTURES / "peft_lora"
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "written"
        subprocess.run(
            ["cargo", "run", "-q", "--release", "-p", "selma-lora", "--example", "convert", "--",
             source, target, "peft"], check=True, cwd=ROOT,
        )
        for component, base in {"unet": unet, "text_encoder": text_encoder}.items():
            expected, found = (
                deltas(PeftModel.from_pretrained(base().double(), root / component))
                for root in (source, target)
            )
            assert expected.keys() == found.keys() and expected, component
            error = max(
                ((expected[key] - found[key]).norm() / expected[key].norm()).item() for key in expected
            )
            print(f"{component}: {len(found)} modules, relative error of dW at most {error:.1e}")
            config = json.loads((target / component / "adapter_config.json").read_text())
            print(f"  r {config['r']}, lora_alpha {config['lora_alpha']}, "
                  f"rank_pattern {config['rank_pattern']}, alpha_pattern {config['alpha_pattern']}")
            assert error < 1e-6, error


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]]()
