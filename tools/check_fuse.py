"""Compares what `selma fuse` writes with `fuse_lora` of diffusers, on a pipeline and a random adapter for it.

    python tools/check_fuse.py [--model crates/selma-diffusion/tests/fixtures/tiny-sd] [--selma target/release/selma]

Ends with status 1 if a weight is off by more than rounding, or if other layers have changed than the adapter has.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

WEIGHT = 0.8
LAYERS = ("to_q", "to_v", "conv1")


def load(folder):
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


def random_adapter(unet):
    torch.manual_seed(0)
    tensors = {}
    for name, module in unet.named_modules():
        if name.endswith(LAYERS) and hasattr(module, "weight"):
            outputs, *inputs = module.weight.shape
            ones = [1] * (len(inputs) - 1)
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(2, *inputs) * 0.2
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(outputs, 2, *ones) * 0.2
    return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="crates/selma-diffusion/tests/fixtures/tiny-sd")
    parser.add_argument("--selma", default="target/release/selma")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        adapter, fused = Path(folder) / "adapter.safetensors", Path(folder) / "fused"
        pipeline = load(args.model)
        before = {name: weight.clone() for name, weight in pipeline.unet.named_parameters()}
        tensors = random_adapter(pipeline.unet)
        save_file(tensors, adapter)
        subprocess.run([args.selma, "fuse", "--model", args.model, "--out", fused, f"{adapter}={WEIGHT}"], check=True)
        pipeline.load_lora_weights(adapter)
        pipeline.fuse_lora(lora_scale=WEIGHT)
        pipeline.unload_lora_weights()
        expected = dict(pipeline.unet.named_parameters())
        worst, changed = 0.0, 0
        for name, weight in load(fused).unet.named_parameters():
            largest = weight.abs().max().clamp_min(1e-9)
            worst = max(worst, ((weight - expected[name]).abs().max() / largest).item())
            changed += int((weight != before[name]).any())
        print(f"{changed} layers changed, off by at most {worst:.1e} of the largest weight")
        if worst > 1e-6 or changed != len(tensors) // 2:
            sys.exit(f"expected {len(tensors) // 2} layers and 1e-6")


if __name__ == "__main__":
    main()
