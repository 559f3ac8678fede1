"""Times stable-diffusion.cpp on SD 1.5 at its published size, with random weights: the peer of `tools/full_size.py` that only runs whole pipelines.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary :all: stable-diffusion-cpp-python==0.4.7
    python tools/sdcpp_full_size.py [--repeats 3] [--scratch full-size]

The parts' times are those of its own log, with guidance (two samples a step, which it computes one after the other) at 512x512, everything in f32 on the CPU.
Its convolutions are products with an unrolled input; other settings that were seen to be faster are flags of this script. Prints rows as `tools/full_size.py` does.
The pictures are noise, as the weights are.
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
    parser.add_argument("--show-log", action="store_true")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run, arguments.threads, arguments.repeats, arguments.flash)
        return
    folder = arguments.scratch / "sdcpp"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    configs = json.loads(CONFIGS.read_text())["sd15"]
    for part in ["text_encoder", "unet", "vae"]:
        make(folder, part, configs[part])
    command = [sys.executable, __file__, "--run", str(folder), "--threads", str(arguments.threads), "--repeats", str(arguments.repeats)]
    result = subprocess.run([*command, *(["--flash"] if arguments.flash else [])], check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    shutil.rmtree(folder)
    if arguments.show_log:
        print(result.stdout)
    took = json.loads(re.findall(r"RESULT (.*)", result.stdout)[-1])

    def logged(name):
        return re.findall(name + r" completed, taking ([\d.]+)s", result.stdout)[-1]

    # The first step also plans its graph.
    step = statistics.median(took["steps"][1:])
    memory = f"{took['loaded_bytes'] / 1e9:.2f} | {took['peak_bytes'] / 1e9:.2f}"
    loading = logged("loading tensors")
    print("| model | network | by | load, s | run, s | GB loaded | GB at most |\n|---|---|---|---|---|---|---|")
    print(f"| sd15 | unet | stable-diffusion.cpp | {loading} | {step:.2f} | {memory} |")
    print(f"| sd15 | vae | stable-diffusion.cpp | | {logged('decode_first_stage')} | | |")
    print(f"| sd15 | text_encoder, twice | stable-diffusion.cpp | | {logged('get_learned_condition')} | | |")


if __name__ == "__main__":
    main()
