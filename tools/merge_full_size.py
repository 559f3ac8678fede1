"""Merges five random adapters of rank 128 for SD 1.5 and for SDXL, by this crate, PEFT and mergekit: time and memory.

    cargo build --release -p selma-lora --example merge_full_size
    python tools/merge_full_size.py [--models sd1 sdxl] [--only svd] [--repeats 3] [--peer-repeats 1] [--dtype f16] [--scratch merge-full-size] [--program target/release/examples/merge_full_size]

Written with torch 2.15, peft 0.21.2, mergekit 0.1.5, safetensors 0.8; on the CPU. The layers are those that sd-scripts adapts by default: all linear layers and 1x1
convolutions in the transformers of the UNet (192 in SD 1.5, 722 in SDXL). Every measurement is a process of its own; those of one program follow each other.

- Ours: from five files to a file, everything included (opening, SHA-256 of the inputs, the self-check, writing and syncing); the whole model. `svd` also in memory, as PEFT does it: the second of two merges, as the first call is not counted for the peers either.
- `add_weighted_adapter` of PEFT (`cat`, `svd`, `ties_svd` with density 0.5, rank 128): in memory, in f32, on a model of these layers that has the adapters already.
  The base weights have no memory of their own. `cat` is measured on the whole model. The others are measured on one layer of every shape, each time multiplied by the number of layers that have it: the
  whole SDXL takes a quarter of an hour.
- mergekit: its `ties` and `task_arithmetic` on the dense `dW` of one layer of every shape, multiplied likewise, `B A` included; no LoRA is made of the result,
  which ours includes (`mk_ties`, `mk_task_arithmetic`).
- A plain copy of the factors of all five, in memory, beside `mean` of adapters in memory.

Processor seconds are those of all threads and say more where other programs keep the cores busy. Memory is VmHWM. With one thread for every program: `--threads 1` (torch's threads wait for each other where others keep the cores busy).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

RANK = 128
ADAPTERS = 5
DENSITY = 0.5


def peak():
    # Not `getrusage`, which counts the process that this one was forked from.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].removesuffix("kB"))


def clocks():
    """By the clock, and of the processors."""
    return [time.perf_counter(), time.process_time()]


def since(start):
    return [now - then for now, then in zip(clocks(), start)]


def random_factors(shape, generator):
    import torch

    out, inputs, *kernel = shape
    a = torch.randn(RANK, inputs, *kernel, generator=generator) / 16
    b = torch.randn(out, RANK, *[1 for _ in kernel], generator=generator) / 16
    return a, b


def peft_model(layers):
    """Layers of these shapes without memory for their weights, each with five adapters of random numbers."""
    import torch
    from peft import LoraConfig, get_peft_model

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for i, (out, inputs, *kernel) in enumerate(layers):
                with torch.device("meta"):
                    layer = torch.nn.Conv2d(inputs, out, 1, bias=False) if kernel else torch.nn.Linear(inputs, out, bias=False)
                layer.weight = torch.nn.Parameter(torch.zeros(1).expand(layer.weight.shape), requires_grad=False)
                self.add_module(f"layer{i}", layer)

    names = [f"layer{i}" for i in range(len(layers))]
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=names)
    model = get_peft_model(Model(), config, adapter_name="a0")
    for i in range(1, ADAPTERS):
        model.add_adapter(f"a{i}", config)
    generator = torch.Generator().manual_seed(0)
    for name, shape in zip(names, layers):
        layer = getattr(model.base_model.model, name)
        for i in range(ADAPTERS):
            a, b = random_factors(shape, generator)
            layer.lora_A[f"a{i}"].weight.data = a
            layer.lora_B[f"a{i}"].weight.data = b
    return model


def run_peft(method, layers):
    import torch

    model = peft_model(layers)
    options = {"cat": {}, "svd": {"svd_rank": RANK}, "ties_svd": {"svd_rank": RANK, "density": DENSITY}}[method]
    with torch.no_grad():
        start = clocks()
        model.add_weighted_adapter([f"a{i}" for i in range(ADAPTERS)], [1.0] * ADAPTERS, "merged", combination_type=method, **options)
        return since(start)


def run_mergekit(method, layers):
    import torch
    from mergekit.merge_methods import registry
    from mergekit.merge_methods.base import TensorGroup

    merge = registry.get(method)
    generator = torch.Generator().manual_seed(0)
    per = lambda value: {i + 1: value for i in range(ADAPTERS)}
    took = [0.0, 0.0]
    for shape in layers:
        factors = [random_factors(shape, generator) for _ in range(ADAPTERS)]
        start = clocks()
        deltas = [b.flatten(1) @ a.flatten(1) for a, b in factors]
        group = TensorGroup.from_tensors([torch.zeros_like(deltas[0]), *deltas], base_index=0)
        density = DENSITY if method == "ties" else 1.0
        merge.merge_group(
            group, weight=per(1.0), density=per(density), int8_mask=False, normalize=merge.default_normalize, rescale=merge.default_rescale, **{"lambda": 1.0}
        )
        took = [x + y for x, y in zip(took, since(start))]
    return took


def run_here(kind, method, layers):
    """In a process of its own: merges and prints what it took."""
    import torch

    torch.set_grad_enabled(False)
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    run = {"peft": run_peft, "mergekit": run_mergekit}[kind]
    # What is set up at the first call is not counted.
    run(method, [(2 * RANK, 2 * RANK)])
    seconds, processor_seconds = run(method, layers)
    print(json.dumps({"seconds": seconds, "processor_seconds": processor_seconds, "peak_bytes": peak()}))


def child(command):
    # As long as the program `selma` has freed memory kept.
    environment = {"MIMALLOC_PURGE_DELAY": "10000", **os.environ}
    result = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=environment)
    return json.loads(result.stdout.strip().splitlines()[-1])


def peer(kind, method, layers):
    return child([sys.executable, __file__, "--here", kind, method, json.dumps(layers)])


def by_shape(kind, method, shapes):
    """One layer of every shape, multiplied by the number of layers."""
    results = [(count, peer(kind, method, [shape])) for shape, count in shapes.items()]
    return {
        **{key: sum(count * result[key] for count, result in results) for key in ["seconds", "processor_seconds"]},
        "peak_bytes": max(result["peak_bytes"] for _, result in results),
        "layers": {str(list(shape)): round(result["processor_seconds"], 3) for shape, (_, result) in zip(shapes, results)},
    }


def median(results):
    return {key: statistics.median(result[key] for result in results) for key in ["seconds", "processor_seconds", "peak_bytes"]}


def recipe(method, **options):
    return json.dumps({"method": method, **options})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["sd1", "sdxl"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peer-repeats", type=int, default=1)
    parser.add_argument("--dtype", default="f16")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--scratch", type=Path, default=Path("merge-full-size"))
    parser.add_argument("--program", default="target/release/examples/merge_full_size")
    parser.add_argument("--only", nargs="+", help="rows of the table")
    parser.add_argument("--here", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        kind, method, layers = arguments.here
        run_here(kind, method, json.loads(layers))
        return
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    program = arguments.program
    print("| model | merge | by | seconds | processor seconds | GB at most |\n|---|---|---|---|---|---|", flush=True)
    for model in arguments.models:
        layers = [tuple(shape) for _, shape in child([program, "layers", model])]
        shapes = Counter(layers)
        inputs = [arguments.scratch / f"{model}-{i}.safetensors" for i in range(ADAPTERS)]
        for seed, path in enumerate(inputs):
            if not path.exists():
                child([program, "make", model, RANK, seed, arguments.dtype, path])
        output = arguments.scratch / "merged.safetensors"

        def ours(method, **options):
            def run():
                # Else the system's work with the old file would be counted, too.
                output.unlink(missing_ok=True)
                return child([program, "files", recipe(method, **options), arguments.dtype, output, *inputs])

            return run

        def in_memory(method, **options):
            def run():
                found = child([program, "memory", recipe(method, **options), 2, *inputs])
                # As with the peers, the first call is not counted.
                took = {key: found[f"merge_{key}"][-1] for key in ["seconds", "processor_seconds"]}
                return {**took, "peak_bytes": found["peak_bytes"]}

            return run

        # Of every row: who runs it.
        rows = {
            "sum": {"selma `sum`": ours("sum"), "PEFT `cat`": lambda: peer("peft", "cat", layers)},
            "svd": {
                "selma `svd`": ours("svd", rank=RANK),
                "selma `svd`, in memory": in_memory("svd", rank=RANK),
                "PEFT `svd`": lambda: by_shape("peft", "svd", shapes),
            },
            "ties_svd": {
                "selma `peft_ties_svd`": ours("peft_ties_svd", rank=RANK, density=DENSITY),
                "PEFT `ties_svd`": lambda: by_shape("peft", "ties_svd", shapes),
            },
            "core_ties": {"selma `core_ties`": ours("core_ties", rank=RANK, density=DENSITY)},
            "mk_ties": {
                "selma `mk_ties`": ours("mk_ties", rank=RANK, density=DENSITY),
                "mergekit `ties`": lambda: by_shape("mergekit", "ties", shapes),
            },
            "mk_task_arithmetic": {
                "selma `mk_task_arithmetic`": ours("mk_task_arithmetic", rank=RANK),
                "mergekit `task_arithmetic`": lambda: by_shape("mergekit", "task_arithmetic", shapes),
            },
            "mean": {"selma `mean`": ours("mean")},
        }
        for row, runs in rows.items():
            if arguments.only and row not in arguments.only:
                continue
            for name, run in runs.items():
                # In a row: after another program the system has other memory to clear.
                repeats = arguments.repeats if name.startswith("selma") else arguments.peer_repeats
                found = [run() for _ in range(repeats)]
                took = median(found)
                print(f"| {model} | {row} | {name} | {took['seconds']:.2f} | {took['processor_seconds']:.2f} | {took['peak_bytes'] / 1e9:.2f} |", flush=True)
                if "layers" in found[0]:
                    print(f"<!-- processor seconds a layer: {json.dumps(found[0]['layers'])} -->", flush=True)
        if arguments.only and "copy" not in arguments.only:
            continue
        beside_copies = child([program, "memory", recipe("mean"), 2 * arguments.repeats + 1, *inputs])
        for name, key in [("a plain copy", "copy"), ("selma `mean`", "merge")]:
            seconds, processor = (statistics.median(beside_copies[f"{key}_{unit}"]) for unit in ["seconds", "processor_seconds"])
            rate = 2 * beside_copies["bytes"] / seconds / 1e9
            print(f"| {model} | in memory | {name} | {seconds:.3f} ({rate:.1f} GB/s read and written) | {processor:.3f} | {beside_copies['peak_bytes'] / 1e9:.2f} |", flush=True)


if __name__ == "__main__":
    main()
