#!/usr/bin/env python3
"""Makes the fixtures of crates/selma-lora from PEFT and diffusers, and checks its files with them.

    python tools/make_lora_fixtures.py make     # writes crates/selma-lora/tests/fixtures
    python tools/make_lora_fixtures.py check    # diffusers reads what the crate writes

`make` puts three adapters of unequal ranks, alphas and module sets on a tiny Stable Diffusion and
records, in double precision, the dense updates of each adapter and of PEFT's exact (`cat`) and
truncated (`svd`) merges with a negative weight. `check` needs cargo: it converts an adapter with
the example `convert` and compares the updates that diffusers applies.

Needs torch, diffusers, peft, transformers, safetensors.
"""

import pathlib
import subprocess
import sys
import tempfile

import peft
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = pathlib.Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "crates/selma-lora/tests/fixtures"
WEIGHTS = [0.7, -0.4, 1.3]
SVD_RANK = 3

BLOCK = "down_blocks.0.attentions.0"
LINEAR = f"{BLOCK}.transformer_blocks.0.attn1.to_q"
CROSS = f"{BLOCK}.transformer_blocks.0.attn2.to_k"
FF = f"{BLOCK}.transformer_blocks.0.ff.net.2"
POINTWISE = f"{BLOCK}.proj_in"
CONV = "down_blocks.1.resnets.0.conv1"

# Name -> (targets, default rank, default alpha, ranks by pattern, alphas by pattern)
ADAPTERS = {
    "a": ([LINEAR, CROSS, POINTWISE, CONV], 4, 8, {"resnets.0.conv1": 2}, {"to_q": 3}),
    "b": ([LINEAR, CROSS, FF, POINTWISE, CONV], 2, 2, {LINEAR: 5}, {"proj_in": 7}),
    "c": ([LINEAR, POINTWISE, CONV], 3, 1, {}, {r"(down|up)_blocks\.\d+\.resnets.*": 6}),
}


def unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=4,
    )


def text_encoder():
    torch.manual_seed(1)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=64, hidden_size=12, intermediate_size=24, num_hidden_layers=1,
            num_attention_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=2,
        )
    )


def pipeline():
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=4)
    return StableDiffusionPipeline(
        vae=vae, unet=unet(), text_encoder=text_encoder(), tokenizer=None,
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )


def randomise(model, adapter, seed):
    """B is not zero after training; single precision, so that files hold the same numbers."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if "lora_" in name and f".{adapter}." in name:
            values = torch.randn(parameter.shape, generator=generator) * 0.3
            parameter.data.copy_(values.to(parameter.dtype))


def deltas(model, adapter):
    return {
        name: layer.get_delta_weight(adapter).detach().flatten(1)
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer) and adapter in layer.lora_A
    }


def make():
    FIXTURES.mkdir(parents=True, exist_ok=True)
    base = unet().double()
    golden = {}
    for seed, (name, (targets, r, alpha, ranks, alphas)) in enumerate(ADAPTERS.items()):
        config = LoraConfig(
            r=r, lora_alpha=alpha, target_modules=targets, rank_pattern=ranks, alpha_pattern=alphas
        )
        base.add_adapter(config, adapter_name=name)
        randomise(base, name, seed)
        save_adapter(base, name, FIXTURES / f"expert_{name}.safetensors")
        for module, delta in deltas(base, name).items():
            golden[f"{name}.unet.{module}"] = delta

    # PEFT merges adapters through the model class that owns its layers.
    tuner = peft.LoraModel(unet().double(), base.peft_config["a"], "a")
    for name in ["b", "c"]:
        tuner.peft_config[name] = base.peft_config[name]
        tuner.inject_adapter(tuner.model, name)
    for seed, name in enumerate(ADAPTERS):
        randomise(tuner.model, name, seed)
        for module, delta in deltas(tuner.model, name).items():
            assert torch.equal(delta, golden[f"{name}.unet.{module}"]), (name, module)
    for method, options in {"cat": {}, "svd": {"svd_rank": SVD_RANK}}.items():
        tuner.add_weighted_adapter(
            list(ADAPTERS), WEIGHTS, method, combination_type=method, **options
        )
        for module, delta in deltas(tuner.model, method).items():
            golden[f"{method}.unet.{module}"] = delta
    save_file({k: v.float().contiguous() for k, v in golden.items()}, FIXTURES / "peft_dw.safetensors")

    other_namings()
    for path in FIXTURES.glob("*.safetensors"):
        path.chmod(0o644)
    total = sum(path.stat().st_size for path in FIXTURES.glob("*.safetensors"))
    print(f"{len(golden)} updates, {total} bytes in all")


def save_adapter(model, name, path):
    """The file that `save_lora_weights` writes today, with its metadata."""
    layers = {
        key: value.float().contiguous()
        for key, value in get_peft_model_state_dict(model, adapter_name=name).items()
    }
    metadata = model.peft_config[name].to_dict()
    StableDiffusionPipeline.save_lora_weights(
        path.parent, unet_lora_layers=layers, weight_name=path.name,
        unet_lora_adapter_metadata=json_ready(metadata),
    )


def json_ready(metadata):
    for key, value in metadata.items():
        if isinstance(value, set):
            metadata[key] = sorted(value)
    return metadata


def other_namings():
    """One adapter on UNet and text encoder under the other names, without metadata."""
    pipe = pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=[LINEAR, CONV]), "default")
    pipe.text_encoder.add_adapter(
        # With out_proj, by which diffusers recognises kohya's text encoders.
        LoraConfig(r=3, lora_alpha=3, target_modules=["q_proj", "out_proj", "fc2"]), "default"
    )
    randomise(pipe.unet, "default", 10)
    randomise(pipe.text_encoder, "default", 11)
    states = {
        "unet": get_peft_model_state_dict(pipe.unet, adapter_name="default"),
        "text_encoder": get_peft_model_state_dict(pipe.text_encoder, adapter_name="default"),
    }
    StableDiffusionPipeline.save_lora_weights(
        FIXTURES,
        unet_lora_layers=states["unet"],
        text_encoder_lora_layers=states["text_encoder"],
        weight_name="named_diffusers.safetensors",
    )
    # The conversion that diffusers' training scripts apply before saving.
    StableDiffusionPipeline.save_lora_weights(
        FIXTURES,
        unet_lora_layers=convert_state_dict_to_diffusers(states["unet"]),
        text_encoder_lora_layers=convert_state_dict_to_diffusers(states["text_encoder"]),
        weight_name="named_script.safetensors",
    )
    peft_named = {
        f"base_model.model.{component}.{key}": value
        for component, state in states.items()
        for key, value in state.items()
    }
    # Keys as sd-scripts writes them, half precision, alpha half of the rank.
    kohya = {}
    for key, value in convert_state_dict_to_kohya(
        {k.replace("base_model.model.", ""): v for k, v in peft_named.items()}
    ).items():
        key = key.replace("lora_text_encoder_", "lora_te_")
        kohya[key] = (value / 2 if key.endswith(".alpha") else value).half().contiguous()
    save_file(kohya, FIXTURES / "named_kohya.safetensors", metadata={"ss_network_dim": "Dynamic"})


def check():
    """Every format that the crate writes does in diffusers what the adapter says."""
    worst = 0.0
    cases = [
        (name, format)
        for name in ["expert_a", "expert_b", "named_diffusers"]
        for format in ["diffusers", "diffusers_script", "kohya"]
        # diffusers applies one alpha to all modules of a kohya file (see its converter).
        if format != "kohya" or name == "named_diffusers"
    ]
    for name, format in cases:
        source = FIXTURES / f"{name}.safetensors"
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder) / "converted.safetensors"
            subprocess.run(
                ["cargo", "run", "-q", "--release", "-p", "selma-lora", "--example", "convert", "--",
                 source, target, format], check=True, cwd=ROOT,
            )
            expected, found = applied(source), applied(target)
        assert expected.keys() == found.keys() and expected, (name, format, sorted(found))
        error = max(
            ((expected[key] - found[key]).norm() / expected[key].norm()).item() for key in expected
        )
        print(f"{name} as {format}: {len(found)} modules, relative error of dW at most {error:.1e}")
        worst = max(worst, error)
    assert worst < 1e-6, worst


def applied(path):
    """The updates that diffusers applies after loading a file."""
    pipe = pipeline()
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="x")
    return {
        f"{component}.{name}": delta
        for component in ["unet", "text_encoder"]
        for name, delta in deltas(getattr(pipe, component), "x").items()
    }


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]]()
