"""Draws with the bundled model in diffusers and in this workspace, from the same initial latents, and compares.

    pip install torch diffusers transformers safetensors pillow numpy
    cargo build --release --bin selma
    python tools/compare_miniature.py --selma target/release/selma

Prints, over all prompts, the relative error of the final latents and the differences of the pictures in grey levels.
Ends with status 1 if a latent differs by more than 2e-3 of the largest, or a pixel by more than 2 levels. With --out,
both pictures of each prompt are left there, side by side.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

PROMPTS = [
    "a red circle",
    "two small blue squares left of a large yellow star on a grey background",
    "a green heart above an orange ring on a sand background",
    "three white triangles on a navy background",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--selma", type=Path, required=True, help="the command-line program")
    parser.add_argument("--model", type=Path, default=Path("models/mini"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--out", type=Path, help="folder for the pictures")
    args = parser.parse_args()

    pipeline = StableDiffusionPipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    side = pipeline.unet.config.sample_size
    shape = (len(PROMPTS), pipeline.unet.config.in_channels, side, side)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    settings = dict(num_inference_steps=args.steps, guidance_scale=args.guidance, latents=latents)
    final = pipeline(PROMPTS, output_type="latent", **settings).images
    theirs = pipeline(PROMPTS, output_type="np", **settings).images
    theirs = (theirs * 255).round().astype(np.int32)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        save_file({"latents": latents}, folder / "init.safetensors")
        command = [args.selma, "generate", "--model", args.model, "--out", folder / "picture.png"]
        command += ["--steps", str(args.steps), "--guidance", str(args.guidance)]
        command += ["--init-latents", folder / "init.safetensors", "--save-latents", folder / "final.safetensors"]
        for prompt in PROMPTS:
            command += ["--prompt", prompt]
        subprocess.run(command, check=True)
        found = load_file(folder / "final.safetensors")["latents"]
        pictures = [Image.open(folder / f"picture-{number + 1}.png") for number in range(len(PROMPTS))]
        ours = np.stack([np.asarray(picture.convert("RGB"), dtype=np.int32) for picture in pictures])

    error = ((found - final).abs().max() / final.abs().max()).item()
    levels = np.abs(ours - theirs)
    print(f"{len(PROMPTS)} prompts, {args.steps} steps, guidance {args.guidance}")
    print(f"final latents: largest difference {error:.1e} of the largest latent")
    print(f"pictures: {100 * (levels == 0).mean():.2f}% of the values equal, largest difference {levels.max()} levels")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for number, pair in enumerate(zip(theirs, ours), start=1):
            Image.fromarray(np.concatenate(pair, axis=1).astype(np.uint8)).save(args.out / f"{number}.png")
    if error > 2e-3 or levels.max() > 2:
        sys.exit("the pictures differ")


if __name__ == "__main__":
    main()
