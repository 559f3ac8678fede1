"""Makes the parity fixtures of what a picture can be asked for, from the tiny pipelines that `make_diffusion_fixtures.py` has made.

    python tools/make_pipeline_fixtures.py [--fixtures crates/selma-diffusion/tests/fixtures]

Written with torch 2.15, diffusers 0.42.1, transformers 5.23, Pillow 13.0, scipy 1.17; f32 on the CPU, fixed seeds. Into the folder `parity` of each pipeline:

    requests.safetensors   latents of text-to-image with `guidance_rescale`, with two prompts that have negative prompts of their own, and with every
                           scheduler that draws no noise: `<scheduler>.latents`; from `init_latents`
    img2img.safetensors    `picture` and the same `resized` to the next multiple of the VAE's factor and `enlarged`, u8 [height, width, 3]; the noise that
                           the pipeline draws (`posterior_noise`, `noise`), the `clean` latents, and `<scheduler>.s<strength>.latents`;
                           for SDXL also `sizes.latents`, UniPC's with sizes and crops of its own
    tiling.safetensors     `latents` decoded and `image` encoded in tiles
"""

import argparse
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image

from make_diffusion_fixtures import PROMPT, randn, save
from scheduler_fixtures import KINDS

# The random schedulers draw from torch's generator, which no other library has; `scheduler_fixtures.py` holds them with noise in closed form.
RANDOM = ["ddpm", "euler_a", "dpmpp_2m_sde", "lcm"]
STEPS = 8
GUIDANCE = 7.5


def schedulers(config):
    for name, (kind, added) in KINDS.items():
        if name not in RANDOM:
            yield name, kind.from_config({**config, **added})


def make_requests(pipe, out, g):
    original = pipe.scheduler
    config = original.config
    init = randn(g, 2, 4, 8, 8)
    tensors = {"init_latents": init}

    def draw(prompts, **settings):
        settings = {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS, "output_type": "latent", "height": 16, "width": 16, **settings}
        return pipe(prompts, latents=init[: len(prompts)].clone(), **settings).images

    for name, scheduler in schedulers(config):
        pipe.scheduler = scheduler
        tensors[f"{name}.latents"] = draw([PROMPT])
    pipe.scheduler = KINDS["ddim"][0].from_config(config)
    for share in [0.3, 1.0]:
        tensors[f"rescale.{share}"] = draw([PROMPT], guidance_rescale=share)
    tensors["negatives"] = draw([PROMPT, "two blue squares"], negative_prompt=["red", "a blurry photo"])
    pipe.scheduler = original
    save(out / "requests.safetensors", tensors)


def make_image_to_image(pipe, out, g):
    pipe = AutoPipelineForImage2Image.from_pipe(pipe)
    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    # Noise and a gradient: every weight of the filter shows, and both ends of the range are passed.
    picture = (randn(g, 13, 19, 3) * 90 + torch.linspace(0, 255, 19)[None, :, None]).clamp(0, 255).round().byte()
    image = PIL.Image.fromarray(picture.numpy())
    tensors = {"picture": picture}
    for name, size in {"resized": (18, 12), "enlarged": (40, 24)}.items():
        tensors[name] = torch.from_numpy(np.array(image.resize(size, PIL.Image.Resampling.LANCZOS)))
    # What the pipeline draws from its generator: first for the VAE's distribution, then for the scheduler.
    generator = torch.Generator().manual_seed(5)
    shape = (1, 4, 6, 9)
    tensors["posterior_noise"], tensors["noise"] = (torch.randn(shape, generator=generator) for _ in range(2))
    latents = pipe.vae.encode(pipe.image_processor.preprocess(image)).latent_dist
    tensors["clean"] = (latents.mean + latents.std * tensors["posterior_noise"]) * pipe.vae.config.scaling_factor

    def draw(strength, **settings):
        settings |= {"guidance_scale": GUIDANCE, "num_inference_steps": STEPS, "output_type": "latent"}
        return pipe(PROMPT, image=image, strength=strength, generator=torch.Generator().manual_seed(5), **settings).images

    for name, scheduler in schedulers(config):
        pipe.scheduler = scheduler
        for strength in [0.6] if name != "pndm" else [0.3, 0.6, 0.9, 1.0]:
            tensors[f"{name}.s{strength}.latents"] = draw(strength)
    if hasattr(pipe, "text_encoder_2"):
        # Here each negative size counts by itself, and the negative crop does not.
        sizes = {"crops_coords_top_left": (3, 5), "negative_original_size": (8, 6), "negative_crops_coords_top_left": (1, 2)}
        tensors["sizes.latents"] = draw(0.6, **sizes)
    save(out / "img2img.safetensors", tensors)


def make_tiling(vae, out, g):
    vae.enable_tiling()
    # Neither is a whole number of tiles of 8 latents, and the last column is a single latent wide.
    latents, image = randn(g, 2, 4, 15, 13), randn(g, 1, 3, 26, 38).tanh()
    posterior = vae.encode(image).latent_dist
    tensors = {"latents": latents, "decoded": vae.decode(latents).sample, "image": image, "mean": posterior.mean, "logvar": posterior.logvar}
    save(out / "tiling.safetensors", tensors)
    vae.disable_tiling()


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fixtures", type=Path, default=root / "crates/selma-diffusion/tests/fixtures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, seed in {"tiny-sd": 51, "tiny-sd-v": 53, "tiny-sdxl": 59}.items():
        folder, g = args.fixtures / name, torch.Generator().manual_seed(seed)
        pipe = AutoPipelineForText2Image.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        with torch.no_grad():
            make_requests(pipe, folder / "parity", g)
            make_image_to_image(pipe, folder / "parity", g)
            make_tiling(pipe.vae, folder / "parity", g)


if __name__ == "__main__":
    main()
