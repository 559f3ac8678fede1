"""Compares training of an adapter on the UNets of SD 1.5, SD 2.1 and SDXL at their published sizes, with random weights, to diffusers and PEFT: losses, time and memory.

    cargo build --release --example train_full_size
    python tools/train_full_size.py [--families sd15] [--rounds 1] [--steps 3] [--side 64] [--rank 128] [--scratch full-size] [--device cuda]

Written with torch 2.15, diffusers 0.42.1, peft 0.21.2; f32 on the CPU, one sample a step, rank 128 on the attention layers, AdamW and clipping as in diffusers' script.
Each program runs in a process of its own, one after the other, with and without computing again what is inside of layers (diffusers: `enable_gradient_checkpointing`), and with the frozen weights in bf16, from the
same file, factors and batches. A row has the largest difference of the losses from those of diffusers, relative; seconds of a step (the median of the rounds, of the steps after the first); the most memory
held, the mapped file included, when the model was loaded and in all. With `--device cuda` both compute on the first NVIDIA GPU (build with `--features cuda`); memory is the host's even so.
"""

import argparse
import json
import shutil
import statistics
import sys
import time
from pathlib import Path

from full_size import CONFIGS, child, classes, make, peak, write_json

TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def make_inputs(path, config, side, steps):
    import torch
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(1)
    inputs = {
        "latents": torch.randn((steps, 1, 4, side, side), generator=g),
        "noise": torch.randn((steps, 1, 4, side, side), generator=g),
        "context": torch.randn((steps, 1, 77, config["cross_attention_dim"]), generator=g),
        "timesteps": torch.randint(0, 1000, (steps,), generator=g).float(),
    }
    if config.get("addition_embed_type"):
        inputs["text_embeds"] = torch.randn((steps, 1, 1280), generator=g)
    save_file(inputs, path)


def make_factors(path, config, rank):
    """A drawn as PEFT's `gaussian` draws it, B zero, under diffusers' names."""
    import torch
    from safetensors.torch import save_file

    with torch.device("meta"):
        unet = classes("unet").from_config(config)
    g = torch.Generator().manual_seed(2)
    factors = {}
    for name, layer in unet.named_modules():
        if name.endswith(TARGETS):
            factors[f"unet.{name}.lora_A.weight"] = torch.randn((rank, layer.in_features), generator=g) / rank
            factors[f"unet.{name}.lora_B.weight"] = torch.zeros((layer.out_features, rank))
    save_file(factors, path)


def run_torch(folder, inputs, factors, steps, checkpointing, device):
    """In a process of its own: trains, and prints what it took."""
    import torch
    from diffusers import DDPMScheduler
    from peft import LoraConfig
    from safetensors.torch import load_file

    unet = classes("unet").from_pretrained(folder / "unet", torch_dtype=torch.float32).to(device)
    unet.requires_grad_(False)
    factors = load_file(factors)
    rank = len(next(iter(factors.values())))
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(TARGETS)))
    trained = {"unet." + n.replace(".default", ""): p for n, p in unet.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(factors[name])
    if checkpointing:
        unet.enable_gradient_checkpointing()
        unet.train()
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    optimizer = torch.optim.AdamW(trained.values(), lr=3e-4, weight_decay=1e-2)
    inputs, loaded = load_file(inputs, device=device), peak()
    losses, seconds = [], []
    for step in range(steps):
        start = time.perf_counter()
        latents, noise, t = inputs["latents"][step], inputs["noise"][step], inputs["timesteps"][step : step + 1].long()
        noisy = scheduler.add_noise(latents, noise, t)
        velocity = scheduler.config.prediction_type == "v_prediction"
        target = scheduler.get_velocity(latents, noise, t) if velocity else noise
        added = None
        if "text_embeds" in inputs:
            size = [8 * latents.shape[2], 8 * latents.shape[3]]
            added = {"text_embeds": inputs["text_embeds"][step], "time_ids": torch.tensor([size + [0, 0] + size], dtype=torch.float32, device=device)}
        loss = torch.nn.functional.mse_loss(unet(noisy, t, inputs["context"][step], added_cond_kwargs=added).sample, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"losses": losses, "step_seconds": seconds, "loaded_bytes": loaded, "peak_bytes": peak()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=["sd15"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--side", type=int, default=64, help="of the latents")
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--scratch", type=Path, default=Path("full-size"))
    parser.add_argument("--program", default="target/release/examples/train_full_size")
    parser.add_argument("--only", nargs="+", help="some of the rows")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--torch", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        folder, inputs, factors, steps, checkpointing, device = arguments.torch
        run_torch(Path(folder), inputs, factors, int(steps), checkpointing == "recompute", device)
        return
    configs = json.loads(CONFIGS.read_text())
    print("| model | by | difference | step, s | GB loaded | GB at most |\n|---|---|---|---|---|---|", flush=True)
    for family in arguments.families:
        config = configs[family]["unet"]
        folder = arguments.scratch / family
        (folder / "scheduler").mkdir(parents=True, exist_ok=True)
        kind = "StableDiffusionXLPipeline" if "text_encoder_2" in configs[family] else "StableDiffusionPipeline"
        write_json(folder / "model_index.json", {"_class_name": kind})
        write_json(folder / "scheduler" / "scheduler_config.json", configs[family]["scheduler"])
        for part in configs[family]:
            if part not in ("unet", "scheduler"):
                (folder / part).mkdir(exist_ok=True)
                write_json(folder / part / "config.json", configs[family][part])
        make(folder, "unet", config)
        inputs, factors = folder / "inputs.safetensors", folder / "factors.safetensors"
        make_inputs(inputs, config, arguments.side, arguments.steps)
        make_factors(factors, config, arguments.rank)
        common = list(map(str, [folder, inputs, factors, arguments.steps]))
        ours = [arguments.program, *common, "device=" + {"cpu": "flex"}.get(arguments.device, arguments.device)]
        theirs = [sys.executable, __file__, "--torch", *common]
        programs = {
            "diffusers + PEFT": [*theirs, "keep", arguments.device],
            "selma": ours,
            "diffusers + PEFT, checkpointing": [*theirs, "recompute", arguments.device],
            "selma, recompute": [*ours, "recompute"],
            "selma, bf16, recompute": [*ours, "recompute", "bf16"],
        }
        programs = {name: command for name, command in programs.items() if not arguments.only or name in arguments.only}
        took = {name: [] for name in programs}
        for _ in range(arguments.rounds):
            for name, command in programs.items():
                took[name].append(child(command))
        reference = next((took[name][0]["losses"] for name in took if name.startswith("diffusers")), None)
        for name, rounds in took.items():

            def median(value):
                return statistics.median(map(value, rounds))

            difference = ""
            if reference and not name.startswith("diffusers"):
                difference = f"{max(abs(x / y - 1) for x, y in zip(rounds[0]['losses'], reference, strict=True)):.1e}"
            seconds = median(lambda r: statistics.median(r["step_seconds"][1:] or r["step_seconds"]))
            memory = f"{median(lambda r: r['loaded_bytes']) / 1e9:.2f} | {median(lambda r: r['peak_bytes']) / 1e9:.2f}"
            print(f"| {family} | {name} | {difference} | {seconds:.2f} | {memory} |", flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
