"""Times stable-diffusion.cpp on SD 1.5 at its published size, with random weights: the peer of `tools/full_size.py` that only runs whole pipelines.

    pip install scikit-build-core cmake ninja
    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary :all: --no-deps --no-build-isolation stable-diffusion-cpp-python==0.4.7
    python tools/sdcpp_full_size.py [--repeats 3] [--threads 2] [--flash] [--scratch full-size]

It recognises SD 1.5 only in a single file of the original layout, so one is written here. A step is with guidance, two samples that it computes one after
the other, at 512x512, everything in f32 on the CPU; the seconds are those of its own log and progress. Prints rows as `tools/full_size.py` does, without the
difference: whole pictures are drawn, from noise of its own.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from full_size import CONFIGS, make, peak, write_json

PARTS = {"text_encoder": "model", "unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}


def write_single_file(folder, path):
    """Writes SD 1.5 with random weights in the original layout."""
    from original_layout_fixtures import build, original_layout
    from safetensors.torch import load_file, save_file

    configs = json.loads(CONFIGS.read_text())["sd15"]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    for part in PARTS:
        make(folder, part, configs[part])
    states = {part: load_file(folder / part / f"{stem}.safetensors") for part, stem in PARTS.items()}
    # The names from before transformers 5, by which the file is recognised.
    states["text_encoder"] = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in states["text_encoder"].items()}
    made = build(original_layout(configs, states), states)
    # Two samples are one tensor in diffusers' memory layout; the file wants each whole.
    save_file({key: value.contiguous() for key, value in made.items()}, path)


def run(model, threads, repeats, flash):
    """In a process of its own: loads, draws, and prints what it took."""
    import stable_diffusion_cpp

    loaded = stable_diffusion_cpp.StableDiffusion(model_path=str(model), wtype="f32", n_threads=threads, diffusion_flash_attn=flash, verbose=True)
    at = peak()
    seconds = []
    loaded.generate_image(
        "a red kite over the sea",
        negative_prompt="blue",
        cfg_scale=7.5,
        width=512,
        height=512,
        sample_method="euler",
        sample_steps=repeats + 1,
        progress_callback=lambda step, steps, time: seconds.append(time),
    )
    print("\nRESULT " + json.dumps({"steps": seconds, "loaded_bytes": at, "peak_bytes": peak()}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=Path, default=Path("full-size"))
    parser.add_argument("--flash", action="store_true", help="its flash attention")
    parser.add_argument("--log", type=Path, help="keep its log")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, arguments.threads, arguments.repeats, arguments.flash)
        return
    folder = arguments.scratch / "sdcpp"
    model = arguments.scratch / "sd15.safetensors"
    write_single_file(folder, model)
    shutil.rmtree(folder)
    command = [sys.executable, __file__, "--run", str(model), "--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    result = subprocess.run([*command, *(["--flash"] if arguments.flash else [])], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    model.unlink()
    if arguments.log:
        arguments.log.write_text(result.stdout)
    if result.returncode:
        sys.exit(f"stable-diffusion.cpp ended with {result.returncode}:\n{result.stdout[-2000:]}")
    took = json.loads(re.findall(r"RESULT (.*)", result.stdout)[-1])

    def logged(name):
        return re.findall(name + r".* completed, taking ([\d.]+)s", result.stdout)[-1]

    # The first step also plans its graph.
    step = statistics.median(took["steps"][1:])
    memory = f"{took['loaded_bytes'] / 1e9:.2f} | {took['peak_bytes'] / 1e9:.2f}"
    print("| model | network | by | load, s | run, s | GB loaded | GB at most |\n|---|---|---|---|---|---|---|")
    print(f"| sd15 | unet | stable-diffusion.cpp | {logged('loading tensors')} | {step:.2f} | {memory} |")
    print(f"| sd15 | vae | stable-diffusion.cpp | | {logged('decode_first_stage')} | | |")
    print(f"| sd15 | text_encoder, twice | stable-diffusion.cpp | | {logged('get_learned_condition')} | | |")


if __name__ == "__main__":
    main()
