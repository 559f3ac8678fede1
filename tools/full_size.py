"""Compares the networks of SD 1.5, SD 2.1 and SDXL at their published sizes, with random weights, to diffusers and transformers: results, time and memory.

    cargo build --release --example full_size
    cargo build --release --package selma-benches --features candle --example candle_full_size
    python tools/full_size.py [--families sd15 sd21 sdxl-base] [--parts text_encoder unet vae] [--rounds 1] [--scratch full-size]
        [--candle target/release/examples/candle_full_size]

Written with torch 2.15, diffusers 0.42.1, transformers 5.24; f32 on the CPU. All run in processes of their own, one after the other, on the same file. The weights are
torch's initial ones. With `--candle` the same is done with candle-transformers for SD 1.5. A folder of models takes up to 14 GB in `--scratch` and is removed when its family is done, and the machine needs 24 GB of memory for SDXL.

A row has the largest difference of the results from diffusers' relative to the largest value; seconds to load; seconds of a run; the most memory held,
the mapped file included, at the end of the loading and in all. In a round each program loads and runs twice, one program after the other, so that a machine that is slower for
a while is so for all. The first of the two runs does not count: transformers and diffusers map the file and read it when it is first needed. The medians of the rounds are printed.
diffusers' UNet and VAE use `channels_last` (of both layouts the faster one on a CPU).
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

CONFIGS = Path(__file__).parent.parent / "crates/selma-diffusion/tests/fixtures/published_configs.json"
# Side of the latents, and samples of the UNet.
SIZES = {"sd15": (64, 2), "sd21": (64, 2), "sdxl-base": (128, 1)}
VOCABULARY = 49408
# Of a program in a round; the first does not count.
RUNS = 2


def classes(part):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    return {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}[part]


def make(folder, part, config):
    """Writes a network with random weights."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig

    torch.manual_seed(0)
    kind = classes(part)
    model = kind(CLIPTextConfig(**config)) if part.startswith("text") else kind.from_config(config)
    model.save_pretrained(folder / part, max_shard_size="100GB")
    shutil.copyfile(write_json(folder / "published.json", config), folder / part / "config.json")
    if part == "text_encoder":
        # candle knows the names from before transformers 5.
        save_file({f"text_model.{key.removeprefix('text_model.')}": value for key, value in model.state_dict().items()}, folder / part / "old_names.safetensors")


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def make_inputs(path, part, config, side, batch):
    import torch
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(1)

    def randn(*shape):
        return torch.randn(shape, generator=g)

    if part.startswith("text"):
        ids = torch.randint(1000, 40000, (2, 77), generator=g, dtype=torch.int32)
        ids[0, 20:] = ids[1, 76:] = VOCABULARY - 1
        inputs = {"input_ids": ids}
    elif part == "vae":
        inputs = {"latents": randn(1, 4, side, side)}
    else:
        inputs = {"sample": randn(batch, 4, side, side), "timesteps": torch.full((batch,), 501.0), "context": randn(batch, 77, config["cross_attention_dim"])}
        if config.get("addition_embed_type"):
            inputs["text_embeds"] = randn(batch, 1280)
    save_file(inputs, path)


def run_torch(folder, part, inputs, outputs, repeats):
    """In a process of its own: loads, runs, writes the results and prints what it took."""
    import torch
    from safetensors.torch import load_file, save_file

    kind = classes(part)
    # What is imported, and not of the model.
    torch.set_grad_enabled(False)
    start = time.perf_counter()
    # In f32 even where the configuration says that the published weights are in f16.
    model = kind.from_pretrained(folder / part, **{"dtype" if part.startswith("text") else "torch_dtype": torch.float32})
    load_seconds = time.perf_counter() - start
    loaded = peak()
    inputs = load_file(inputs)
    if not part.startswith("text"):
        model = model.to(memory_format=torch.channels_last)

    def forward():
        if part.startswith("text"):
            out = model(inputs["input_ids"], output_hidden_states=True)
            pooled = out.text_embeds if part.endswith("2") else out.pooler_output
            return {"last_hidden_state": out.last_hidden_state, "pooled": pooled, "penultimate": out.hidden_states[-2]}
        if part == "vae":
            return {"decoded": model.decode(inputs["latents"].to(memory_format=torch.channels_last)).sample}
        added = None
        sample = inputs["sample"].to(memory_format=torch.channels_last)
        if "text_embeds" in inputs:
            size = [8 * sample.shape[2], 8 * sample.shape[3]]
            added = {"text_embeds": inputs["text_embeds"], "time_ids": torch.tensor([size + [0, 0] + size] * sample.shape[0], dtype=torch.float32)}
        return {"sample": model(sample, inputs["timesteps"], inputs["context"], added_cond_kwargs=added).sample}

    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        results = forward()
        seconds.append(time.perf_counter() - start)
    save_file({name: tensor.contiguous() for name, tensor in results.items()}, outputs)
    print(json.dumps({"load_seconds": load_seconds, "loaded_bytes": loaded, "run_seconds": seconds, "peak_bytes": peak()}))


def peak():
    # Not `getrusage`, which counts the process that this one was forked from.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].removesuffix("kB"))


def compare(found, expected):
    from safetensors.torch import load_file

    found, expected = load_file(found), load_file(expected)
    return max(((found[name] - expected[name]).abs().max() / expected[name].abs().max()).item() for name in found)


def child(command):
    # As long as the program `selma` has freed memory kept.
    environment = {"MIMALLOC_PURGE_DELAY": "10000", **os.environ}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(result.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", default=list(SIZES))
    parser.add_argument("--parts", nargs="+", default=["text_encoder", "text_encoder_2", "unet", "vae"])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=Path("full-size"))
    parser.add_argument("--program", default="target/release/examples/full_size")
    parser.add_argument("--candle")
    parser.add_argument("--torch", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.torch:
        folder, part, inputs, outputs, repeats = arguments.torch
        run_torch(Path(folder), part, inputs, outputs, int(repeats))
        return
    configs = json.loads(CONFIGS.read_text())
    print("| model | network | by | difference | load, s | run, s | GB loaded | GB at most |\n|---|---|---|---|---|---|---|---|", flush=True)
    for family in arguments.families:
        side, batch = SIZES[family]
        folder = arguments.scratch / family
        folder.mkdir(parents=True, exist_ok=True)
        kind = "StableDiffusionXLPipeline" if "text_encoder_2" in configs[family] else "StableDiffusionPipeline"
        write_json(folder / "model_index.json", {"_class_name": kind})
        for part in arguments.parts:
            if part not in configs[family]:
                continue
            config = configs[family][part]
            inputs, expected, found = (folder / f"{name}.safetensors" for name in ["inputs", "expected", "found"])
            make(folder, part, config)
            make_inputs(inputs, part, config, side, batch)
            programs = {"diffusers": [sys.executable, __file__, "--torch"], "selma": [arguments.program]}
            if arguments.candle and family == "sd15":
                programs["candle"] = [arguments.candle]
            differences, took = {}, {name: [] for name in programs}
            for _ in range(arguments.rounds):
                for name, program in programs.items():
                    outputs = expected if name == "diffusers" else found
                    took[name].append(child([*program, *map(str, [folder, part, inputs, outputs, RUNS])]))
                    differences[name] = "" if name == "diffusers" else f"{compare(found, expected):.1e}"
            for name, rounds in took.items():

                def median(value):
                    return statistics.median(map(value, rounds))

                seconds = f"{median(lambda r: r['load_seconds']):.1f} | {median(lambda r: r['run_seconds'][-1]):.2f}"
                memory = f"{median(lambda r: r['loaded_bytes']) / 1e9:.2f} | {median(lambda r: r['peak_bytes']) / 1e9:.2f}"
                print(f"| {family} | {part} | {name} | {differences[name]} | {seconds} | {memory} |", flush=True)
            relative = [ours["run_seconds"][-1] / theirs["run_seconds"][-1] for ours, theirs in zip(took["selma"], took["diffusers"], strict=True)]
            print(f"selma / diffusers by round: {', '.join(f'{value:.2f}' for value in relative)}", file=sys.stderr)
            shutil.rmtree(folder / part)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
