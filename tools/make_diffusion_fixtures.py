"""Makes the parity fixtures of selma-diffusion from diffusers, transformers and PEFT.

    python tools/make_diffusion_fixtures.py [--out crates/selma-diffusion/tests/fixtures] [--only models,schedulers,tokenizer,training]

Written with torch 2.15, diffusers 0.42.1, transformers 5.23, peft 0.21; f32 on the CPU, fixed seeds. Two tiny pipelines:

    tiny-sd     as SD 1.x: f32 files with the published key names (`text_model.`, `position_ids`, VAE `query/key/value/proj_attn`), sparse
                configs that lean on defaults, convolutional projections, quick_gelu, epsilon prediction, `vocab.json` + `merges.txt`
    tiny-sd-v   as SD 2.x: f16 files with today's key names, linear projections, heads per level, two layers per block, gelu,
                v prediction, DDIM with a stray `skip_prk_steps`, `tokenizer.json` with `!` as the pad token of `special_tokens_map.json`

Each holds `parity/*.safetensors`, the inputs and outputs of its parts as diffusers computes them from these very files.
"""

import argparse
import contextlib
import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from clip_tokenizer_fixtures import make_tokenizer, make_tokenizer_cases
from scheduler_fixtures import make_scheduler_cases

SD1_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}
SD2_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 2,
    "block_out_channels": [8, 12],
    "center_input_sample": False,
    "cross_attention_dim": 16,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    # More channels than groups: one value per group would cancel the time embedding and hide mistakes in it.
    "norm_num_groups": 4,
    "out_channels": 4,
    "sample_size": 8,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
}
VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [8, 12],
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D"],
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "out_channels": 3,
    "sample_size": 16,
    "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"],
}
CLIP = {
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    # The published files say 2, which stands for "pool at the largest id".
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 16,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 32,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 1,
    "torch_dtype": "float32",
}
MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": [None, None],
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
PROMPT = "a photo of a red circle left of 2 blue squares"


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def randn(generator, *shape):
    return torch.randn(*shape, generator=generator)


def save(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to(torch.int32) if v.dtype == torch.int64 else v.detach() for k, v in tensors.items()}
    save_file({k: v.contiguous().clone() for k, v in tensors.items()}, path)


def randomise(model, seed, gain=1.0):
    """Weights far enough from the initialisation's zeros and ones that every one of them shows in the output."""
    g = torch.Generator().manual_seed(seed)
    norms = (torch.nn.GroupNorm, torch.nn.LayerNorm)
    with torch.no_grad():
        for module in model.modules():
            for name, p in module.named_parameters(recurse=False):
                if isinstance(module, norms):
                    p.copy_((1.0 if name == "weight" else 0.0) + 0.3 * randn(g, *p.shape))
                elif name == "bias":
                    p.copy_(0.2 * randn(g, *p.shape))
                elif isinstance(module, torch.nn.Embedding):
                    p.copy_(0.7 * randn(g, *p.shape))
                else:
                    p.copy_(gain * randn(g, *p.shape) / math.sqrt(p[0].numel()))
    return model


def sd1_text_keys(state):
    """Key names of the published SD 1.x text encoders, with the position_ids buffer that they carry."""
    state = {k if k.startswith("text_model.") else f"text_model.{k}": v for k, v in state.items()}
    positions = state["text_model.embeddings.position_embedding.weight"].shape[0]
    state["text_model.embeddings.position_ids"] = torch.arange(positions).unsqueeze(0)
    return state


def sd1_vae_keys(state):
    names = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    out = {}
    for key, value in state.items():
        for new, old in names.items():
            key = key.replace(new, old)
        out[key] = value
    return out


def make_pipeline(folder, published, seed):
    """Writes a pipeline in the layout of diffusers: `published` as SD 1.x's files are, otherwise as SD 2.x saved today."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet, vae, clip, index = dict(UNET), dict(VAE), dict(CLIP), dict(MODEL_INDEX)
    length = 77 if published else 16
    vocabulary = make_tokenizer(folder / "tokenizer", published, length)
    clip |= {"vocab_size": len(vocabulary), "max_position_embeddings": length}
    if not published:
        unet |= {
            "attention_head_dim": [2, 3],
            "use_linear_projection": True,
            "upcast_attention": True,
            "layers_per_block": 2,
            "_diffusers_version": "0.10.0",
        }
        vae |= {"scaling_factor": 0.5, "_diffusers_version": "0.10.0"}
        clip |= {"hidden_act": "gelu", "eos_token_id": len(vocabulary) - 1, "torch_dtype": "float16"}
        index |= {"scheduler": ["diffusers", "DDIMScheduler"]}
    parts = {
        "unet": (unet, randomise(UNet2DConditionModel.from_config(unet), seed)),
        "vae": (vae, randomise(AutoencoderKL.from_config(vae), seed + 1)),
        "text_encoder": (clip, randomise(CLIPTextModel(CLIPTextConfig(**clip)), seed + 2)),
    }
    for name, (config, model) in parts.items():
        write_json(folder / name / "config.json", config)
        state = {k: v.detach().clone() for k, v in model.state_dict().items() if not k.endswith("position_ids")}
        if published and name == "text_encoder":
            state = sd1_text_keys(state)
        elif published and name == "vae":
            state = sd1_vae_keys(state)
        elif not published:
            state = {k: v.half() for k, v in state.items()}
        file = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        save_file(state, folder / name / f"{file}.safetensors", metadata={"format": "pt"})
    write_json(folder / "scheduler" / "scheduler_config.json", SD1_SCHEDULER if published else SD2_SCHEDULER)
    write_json(folder / "model_index.json", index)


@contextlib.contextmanager
def recorded(model, paths, tensors, prefix=""):
    """Stores what the named sub-modules take and give; outputs that are tuples get `.0`, `.1`, ..."""

    def record(path, what, value):
        if torch.is_tensor(value):
            tensors[f"{prefix}{path}.{what}"] = value
        elif hasattr(value, "sample"):
            record(path, what, value.sample)
        elif isinstance(value, tuple):
            for i, item in enumerate(value):
                record(path, f"{what}.{i}", item)

    def hook(path):
        def call(_module, args, kwargs, output):
            record(path, "input", args[0] if args else kwargs["hidden_states"])
            record(path, "output", output)

        return call

    handles = [model.get_submodule(p).register_forward_hook(hook(p), with_kwargs=True) for p in paths]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def make_activations(folder, seed):
    from diffusers import StableDiffusionPipeline
    from diffusers.models.embeddings import get_timestep_embedding

    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    g = torch.Generator().manual_seed(seed)
    out = folder / "parity"

    ids = pipe.tokenizer(
        ["", PROMPT, "Naïve café: 3 éclairs & it's 10:45! " * 4],
        padding="max_length",
        truncation=True,
        max_length=pipe.tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    text = pipe.text_encoder(ids, output_hidden_states=True)
    save(
        out / "clip.safetensors",
        {
            "input_ids": ids,
            "last_hidden_state": text.last_hidden_state,
            "pooler_output": text.pooler_output,
            "penultimate_hidden_state": text.hidden_states[-2],
        },
    )

    # Two different timesteps in the batch, and an odd size whose upsampled halves do not fit unless the skip's size is used.
    context = randn(g, 2, 7, 16)
    sample, timestep = randn(g, 2, 4, 8, 8), torch.tensor([981, 17])
    odd, odd_timestep = randn(g, 1, 4, 9, 13), torch.tensor([500.25])
    tensors = {"sample": sample, "timestep": timestep.float(), "encoder_hidden_states": context}
    blocks = ["conv_in", "time_proj", "time_embedding", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"]
    with recorded(pipe.unet, blocks, tensors):
        tensors["output"] = pipe.unet(sample, timestep, context).sample
    tensors |= {"odd.sample": odd, "odd.timestep": odd_timestep, "odd.output": pipe.unet(odd, odd_timestep, context[:1]).sample}
    save(out / "unet.safetensors", tensors)

    image, latent = randn(g, 1, 3, 16, 16).tanh(), randn(g, 1, 4, 8, 8)
    tensors = {"image": image, "latent": latent}
    parts = ["encoder.down_blocks.0", "encoder.mid_block", "decoder.mid_block", "decoder.up_blocks.0"]
    with recorded(pipe.vae, parts, tensors):
        posterior = pipe.vae.encode(image).latent_dist
        tensors |= {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": pipe.vae.decode(latent).sample}
    save(out / "vae.safetensors", tensors)

    tensors = {"temb": randn(g, 2, 32), "encoder_hidden_states": context}
    hidden = randn(g, 2, 8, 8, 8)
    resnet, attention = "down_blocks.0.resnets.0", "down_blocks.0.attentions.0"
    inner = [f"{attention}.transformer_blocks.0{s}" for s in ["", ".attn1", ".attn2", ".ff"]]
    with recorded(pipe.unet, [resnet, attention, *inner, "down_blocks.0.downsamplers.0", "up_blocks.0.upsamplers.0"], tensors):
        pipe.unet.get_submodule(resnet)(hidden, tensors["temb"])
        pipe.unet.get_submodule(attention)(hidden, encoder_hidden_states=context)
        pipe.unet.get_submodule("down_blocks.0.downsamplers.0")(hidden)
        pipe.unet.get_submodule("up_blocks.0.upsamplers.0")(randn(g, 2, 12, 4, 4))
    times = torch.tensor([0.0, 1.0, 17.0, 500.25, 999.0])
    tensors["timesteps"] = times
    tensors["timestep_embedding.flip.shift0"] = get_timestep_embedding(times, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    tensors["timestep_embedding.noflip.shift1"] = get_timestep_embedding(times, 32, flip_sin_to_cos=False, downscale_freq_shift=1)
    save(out / "op.safetensors", tensors)
    make_loops(pipe, out, g)


def make_loops(pipe, out, g):
    """Whole text-to-image runs: key `<scheduler>.g<guidance>.{latents,image}`, from the same unit normal `init_latents`."""
    from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler

    pipe.set_progress_bar_config(disable=True)
    config = pipe.scheduler.config
    init = randn(g, 1, 4, 8, 8)
    tensors = {"init_latents": init}
    for name, kind in {"ddim": DDIMScheduler, "pndm": PNDMScheduler, "euler": EulerDiscreteScheduler, "ddpm": DDPMScheduler}.items():
        pipe.scheduler = kind.from_config(config)
        for guidance in [1.0, 7.5]:
            if name == "ddpm":
                # The only step is the last: its noise is scaled by 1e-10, so no generator need be matched.
                steps = 1
            else:
                steps = 8
            latents = pipe(
                PROMPT,
                negative_prompt="",
                guidance_scale=guidance,
                num_inference_steps=steps,
                latents=init.clone(),
                generator=torch.Generator().manual_seed(0),
                output_type="latent",
                height=16,
                width=16,
            ).images
            image = (pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
            tensors[f"{name}.g{guidance}.latents"], tensors[f"{name}.g{guidance}.image"] = latents, image
    path = out / "loop.safetensors"
    save(path, tensors)
    write_json(out / "loop.json", {"prompt": PROMPT, "negative_prompt": "", "steps": 8, "ddpm_steps": 1})


def train_lora(folder, batches, initial, accumulation, dtype=torch.float32):
    """The loop of diffusers' train_text_to_image_lora.py; returns the loss of each micro-batch and the final factors."""
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from peft import LoraConfig

    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32).to(dtype)
    scheduler = DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    unet.requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, init_lora_weights="gaussian", target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    factors = {n.replace(".default", ""): p for n, p in unet.named_parameters() if p.requires_grad}
    if initial is None:
        g = torch.Generator().manual_seed(7)
        return {n: randn(g, *p.shape) / 4 if ".lora_A." in n else torch.zeros_like(p) for n, p in sorted(factors.items())}
    with torch.no_grad():
        for name, p in factors.items():
            p.copy_(initial[name])
            p.data = p.data.to(dtype)
    optimizer = torch.optim.AdamW(factors.values(), lr=3e-3, betas=(0.9, 0.999), weight_decay=1e-2, eps=1e-8)
    losses = []
    for i in range(len(batches["timesteps"])):
        latents, noise, context = (batches[k][i].to(dtype) for k in ["latents", "noise", "encoder_hidden_states"])
        t = batches["timesteps"][i]
        noisy = scheduler.add_noise(latents, noise, t)
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, t)
        else:
            target = noise
        loss = torch.nn.functional.mse_loss(unet(noisy, t, context).sample, target)
        losses.append(loss.detach())
        (loss / accumulation).backward()
        if (i + 1) % accumulation == 0:
            torch.nn.utils.clip_grad_norm_(factors.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return torch.stack(losses), {n: p.detach() for n, p in factors.items()}


def make_training(folder, seed, size, accumulations):
    """Keys: the inputs `[step, batch, ..]`, `init.<factor>`, and per accumulation n `accum<n>.losses` and `accum<n>.<factor>`."""
    g = torch.Generator().manual_seed(seed)
    steps, batch = 20, 2
    batches = {
        "latents": randn(g, steps, batch, 4, size, size),
        "noise": randn(g, steps, batch, 4, size, size),
        "encoder_hidden_states": randn(g, steps, batch, 5, 16),
        "timesteps": torch.randint(0, 1000, (steps, batch), generator=g),
    }
    initial = train_lora(folder, batches, None, 1)
    tensors = dict(batches) | {f"init.{n}": p for n, p in initial.items() if ".lora_A." in n}
    for accumulation in accumulations:
        losses, final = train_lora(folder, batches, initial, accumulation)
        exact_losses, exact = train_lora(folder, batches, initial, accumulation, torch.float64)
        rounding = max((final[n] - exact[n]).norm() / exact[n].norm() for n in final)
        drift = ((losses - exact_losses) / exact_losses).abs().max()
        print(f"{folder.name} x{accumulation}: f32 against f64: losses {drift:.1e}, factors {rounding:.1e}; loss {losses[0]:.3f} -> {losses[-1]:.3f}")
        tensors[f"accum{accumulation}.losses"] = losses
        tensors |= {f"accum{accumulation}.{n}": p for n, p in final.items()}
    save(folder / "parity" / "training.safetensors", tensors)


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=root / "crates/selma-diffusion/tests/fixtures")
    parser.add_argument("--only", default="models,schedulers,tokenizer,training")
    args = parser.parse_args()
    only = set(args.only.split(","))
    torch.set_num_threads(1)
    sd1, sd2 = args.out / "tiny-sd", args.out / "tiny-sd-v"
    if "models" in only:
        with torch.no_grad():
            make_pipeline(sd1, True, 11)
            make_pipeline(sd2, False, 23)
            make_activations(sd1, 31)
            make_activations(sd2, 37)
    if "schedulers" in only:
        make_scheduler_cases(args.out / "schedulers")
    if "tokenizer" in only:
        make_tokenizer_cases(args.out, [sd1, sd2])
    if "training" in only:
        make_training(sd1, 41, 8, [1, 2])
        make_training(sd2, 43, 4, [1])


if __name__ == "__main__":
    main()
