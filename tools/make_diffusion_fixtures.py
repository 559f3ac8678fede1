"""Makes the parity fixtures of selma-diffusion from diffusers, transformers and PEFT.

    python tools/make_diffusion_fixtures.py [--out crates/selma-diffusion/tests/fixtures] [--only models,middle,options,schedulers,tokenizer,training,objectives]

Written with torch 2.15, diffusers 0.42.1, transformers 5.24, peft 0.21; f32 on the CPU, fixed seeds. Three tiny pipelines:

    tiny-sd     as SD 1.x: f32 files with the published key names (`text_model.`, `position_ids`, VAE `query/key/value/proj_attn`), sparse
                configs that lean on defaults, convolutional projections, quick_gelu, epsilon prediction, `vocab.json` + `merges.txt`
    tiny-sd-v   as SD 2.x: f16 files with today's key names, linear projections, heads per level, two layers per block, gelu,
                v prediction, DDIM with a stray `skip_prk_steps`, `tokenizer.json` with `!` as the pad token of `special_tokens_map.json`
    tiny-sdxl   as SDXL base: f16 files, two tokenizers and text encoders of different width and depth, the second with a projection,
                added conditions, transformers of 1, 2 and 3 blocks, no attention on the first level, Euler, `force_upcast`

Each holds `parity/*.safetensors`, the inputs and outputs of its parts as diffusers computes them from these very files.
"""

import argparse
import itertools
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
SDXL_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.19.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
# The published file with smaller numbers.
SDXL_UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.19.0.dev0",
    "act_fn": "silu",
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 4,
    "attention_head_dim": [1, 2, 4],
    "block_out_channels": [4, 8, 12],
    "center_input_sample": False,
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 20,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "downsample_padding": 1,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 1,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "norm_eps": 1e-05,
    "norm_num_groups": 2,
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "out_channels": 4,
    "projection_class_embeddings_input_dim": 34,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 8,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 3],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "upcast_attention": None,
    "use_linear_projection": True,
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
SDXL_MODEL_INDEX = {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0.dev0",
    "add_watermarker": None,
    "force_zeros_for_empty_prompt": True,
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
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
                if p.dim() == 0:
                    continue
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


def make_sdxl_pipeline(folder, seed):
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    length = 16
    vocabulary = make_tokenizer(folder / "tokenizer", True, length)
    make_tokenizer(folder / "tokenizer_2", True, length, pad="!")
    clip = CLIP | {"vocab_size": len(vocabulary), "max_position_embeddings": length, "torch_dtype": "float16"}
    # The first encoder's file names a projection, too, which its class does not have.
    first = clip | {"hidden_size": 8, "intermediate_size": 16, "projection_dim": 8}
    second = clip | {
        "architectures": ["CLIPTextModelWithProjection"],
        "hidden_act": "gelu",
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 3,
        "projection_dim": 10,
    }
    vae = VAE | {
        "_diffusers_version": "0.20.0.dev0",
        "block_out_channels": [4, 8],
        "force_upcast": True,
        "norm_num_groups": 2,
        "scaling_factor": 0.13025,
    }
    parts = {
        "unet": (SDXL_UNET, randomise(UNet2DConditionModel.from_config(SDXL_UNET), seed)),
        "vae": (vae, randomise(AutoencoderKL.from_config(vae), seed + 1)),
        "text_encoder": (first, randomise(CLIPTextModel(CLIPTextConfig(**first)), seed + 2)),
        "text_encoder_2": (second, randomise(CLIPTextModelWithProjection(CLIPTextConfig(**second)), seed + 3)),
    }
    for name, (config, model) in parts.items():
        write_json(folder / name / "config.json", config)
        state = {k: v.detach().half() for k, v in model.state_dict().items() if not k.endswith("position_ids")}
        if name.startswith("text_encoder"):
            state = {k if k.startswith("text_") else f"text_model.{k}": v for k, v in state.items()}
        file = "model" if name.startswith("text_encoder") else "diffusion_pytorch_model"
        save_file(state, folder / name / f"{file}.safetensors", metadata={"format": "pt"})
    write_json(folder / "scheduler" / "scheduler_config.json", SDXL_SCHEDULER)
    write_json(folder / "model_index.json", SDXL_MODEL_INDEX)


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


def load_pipeline(folder):
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_text(tokenizer, encoder, path):
    ids = tokenizer(
        ["", PROMPT, "Naïve café: 3 éclairs & it's 10:45! " * 4],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    text = encoder(ids, output_hidden_states=True)
    tensors = {"input_ids": ids, "last_hidden_state": text.last_hidden_state, "penultimate_hidden_state": text.hidden_states[-2]}
    pooled = "text_embeds" if hasattr(text, "text_embeds") else "pooler_output"
    save(path, tensors | {pooled: text[pooled]})


def make_activations(folder, seed):
    from diffusers.models.embeddings import get_timestep_embedding

    pipe = load_pipeline(folder)
    unet, config = pipe.unet, pipe.unet.config
    levels = range(len(config.block_out_channels))
    g = torch.Generator().manual_seed(seed)
    out = folder / "parity"

    make_text(pipe.tokenizer, pipe.text_encoder, out / "clip.safetensors")
    if hasattr(pipe, "text_encoder_2"):
        make_text(pipe.tokenizer_2, pipe.text_encoder_2, out / "clip_2.safetensors")

    # Two different timesteps in the batch, and an odd size whose upsampled halves do not fit unless the skip's size is used.
    context = randn(g, 2, 7, config.cross_attention_dim)
    sample, timestep = randn(g, 2, 4, 8, 8), torch.tensor([981, 17])
    odd, odd_timestep = randn(g, 1, 4, 9, 13), torch.tensor([500.25])
    tensors = {"sample": sample, "timestep": timestep.float(), "encoder_hidden_states": context}
    blocks = ["conv_in", "time_proj", "time_embedding", "mid_block"]
    blocks += [f"{side}_blocks.{level}" for side in ["down", "up"] for level in levels]
    added, first_added = None, None
    if config.addition_embed_type:
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        # Six different numbers each, so that none can be taken for another.
        time_ids = torch.tensor([[1024.0, 768.0, 3.0, 40.0, 1000.0, 900.0], [511.0, 2048.0, 0.0, 7.0, 64.0, 96.0]])
        added = {"text_embeds": randn(g, 2, width), "time_ids": time_ids}
        first_added = {k: v[:1] for k, v in added.items()}
        tensors |= added
        blocks.append("add_embedding")
    with recorded(unet, blocks, tensors):
        tensors["output"] = unet(sample, timestep, context, added_cond_kwargs=added).sample
    odd_output = unet(odd, odd_timestep, context[:1], added_cond_kwargs=first_added).sample
    tensors |= {"odd.sample": odd, "odd.timestep": odd_timestep, "odd.output": odd_output}
    save(out / "unet.safetensors", tensors)

    image, latent = randn(g, 1, 3, 16, 16).tanh(), randn(g, 1, 4, 8, 8)
    tensors = {"image": image, "latent": latent}
    parts = ["encoder.down_blocks.0", "encoder.mid_block", "decoder.mid_block", "decoder.up_blocks.0"]
    with recorded(pipe.vae, parts, tensors):
        posterior = pipe.vae.encode(image).latent_dist
        tensors |= {"mean": posterior.mean, "logvar": posterior.logvar, "decoded": pipe.vae.decode(latent).sample}
    save(out / "vae.safetensors", tensors)

    channels, bottom = config.block_out_channels, config.block_out_channels[-1]
    level = next(i for i in levels if config.down_block_types[i].startswith("CrossAttn"))
    tensors = {"temb": randn(g, 2, 4 * channels[0]), "encoder_hidden_states": context}
    hidden = randn(g, 2, channels[level], 8, 8)
    attention = f"down_blocks.{level}.attentions.0"
    inner = [f"{attention}.transformer_blocks.0{s}" for s in ["", ".attn1", ".attn2", ".ff"]]
    resnet, down, up = "down_blocks.0.resnets.0", f"down_blocks.{level}.downsamplers.0", "up_blocks.0.upsamplers.0"
    if level == len(channels) - 1:
        raise ValueError("the last level has no downsampler")
    with recorded(unet, [resnet, attention, *inner, down, up], tensors):
        first = hidden if level == 0 else randn(g, 2, channels[0], 8, 8)
        unet.get_submodule(resnet)(first, tensors["temb"])
        unet.get_submodule(attention)(hidden, encoder_hidden_states=context)
        unet.get_submodule(down)(hidden)
        unet.get_submodule(up)(randn(g, 2, bottom, 4, 4))
    times = torch.tensor([0.0, 1.0, 17.0, 500.25, 999.0])
    tensors["timesteps"] = times
    tensors["timestep_embedding.flip.shift0"] = get_timestep_embedding(times, 32, flip_sin_to_cos=True, downscale_freq_shift=0)
    tensors["timestep_embedding.noflip.shift1"] = get_timestep_embedding(times, 32, flip_sin_to_cos=False, downscale_freq_shift=1)
    save(out / "op.safetensors", tensors)
    make_loops(pipe, out, g)


def make_without_middle(folder):
    """The UNet without its middle, as the smaller models of BK-SDM, on the inputs of `unet.safetensors`."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet", torch_dtype=torch.float32, mid_block_type=None)
    given = load_file(folder / "parity" / "unet.safetensors")
    added = {key: given[key] for key in ["text_embeds", "time_ids"] if key in given}
    output = unet(given["sample"], given["timestep"], given["encoder_hidden_states"], added_cond_kwargs=added or None).sample
    save(folder / "parity" / "unet_without_middle.safetensors", {"output": output})


def make_loops(pipe, out, g):
    """Whole text-to-image runs: key `<scheduler>.g<guidance>.{latents,image}`, from the same unit normal `init_latents`."""
    from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler

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


def make_options(folder, seed):
    """Runs with options of the text and of SDXL's time ids: `options.json` holds the keyword arguments, `<name>` the final latents."""
    pipe = load_pipeline(folder)
    # With `clip_skip` the pipeline of SD 1 and 2 asks for a level that transformers 5 no longer has. Past `Module.__setattr__`, so that it is no sub-module.
    vars(pipe.text_encoder).setdefault("text_model", pipe.text_encoder)
    g = torch.Generator().manual_seed(seed)
    init = randn(g, 1, 4, 8, 8)
    negative = "a green triangle"
    cases = {
        "no_negative": {},
        "empty_negative": {"negative_prompt": ""},
        "negative": {"negative_prompt": negative},
        "clip_skip_0": {"clip_skip": 0},
        "clip_skip": {"clip_skip": 1, "negative_prompt": negative},
        "clip_skip_unguided": {"clip_skip": 1, "guidance_scale": 1.0},
        "long": {"prompt": "a red circle left of two blue squares, " * 12},
    }
    if hasattr(pipe, "text_encoder_2"):
        sizes = {"original_size": [700, 501], "crops_coords_top_left": [64, 5], "target_size": [32, 48]}
        other = {"negative_original_size": [300, 301], "negative_crops_coords_top_left": [1, 2], "negative_target_size": [90, 91]}
        # One of the two negative sizes alone is ignored.
        half = {"negative_original_size": [300, 301], "negative_crops_coords_top_left": [1, 2]}
        cases |= {"sizes": sizes, "negative_sizes": sizes | other, "half_of_negative_sizes": sizes | half}
    tensors = {"init_latents": init}
    for name, options in cases.items():
        cases[name] = options = {"prompt": PROMPT, "num_inference_steps": 4} | options
        call = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
        tensors[name] = pipe(**call, latents=init.clone(), output_type="latent", height=16, width=16).images
    save(folder / "parity" / "options.safetensors", tensors)
    write_json(folder / "parity" / "options.json", cases)


def denoising_loss(unet, scheduler, batch, gamma=None, input_noise=None):
    """As diffusers' train_text_to_image_lora.py and train_text_to_image.py (`--snr_gamma`, `--input_perturbation`) compute it."""
    from diffusers.training_utils import compute_snr

    latents, noise, t = batch["latents"], batch["noise"], batch["timesteps"]
    noisy = scheduler.add_noise(latents, noise if input_noise is None else input_noise, t)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, t) if velocity else noise
    prediction = unet(noisy, t, batch["encoder_hidden_states"], added_cond_kwargs=batch["added"]).sample
    if gamma is None:
        return torch.nn.functional.mse_loss(prediction, target)
    snr = compute_snr(scheduler, t).to(latents.dtype)
    weights = snr.clamp(max=gamma) / (snr + 1 if velocity else snr)
    losses = torch.nn.functional.mse_loss(prediction, target, reduction="none")
    return (losses.mean(dim=[1, 2, 3]) * weights).mean()


def dpo_loss(unet, scheduler, batch, rejected, beta):
    """As diffusers' research project train_diffusion_dpo.py computes it; the loss, and the share of pairs in the right order."""
    twice = {k: torch.cat([batch[k], batch[k]]) for k in ["noise", "timesteps", "encoder_hidden_states"]}
    added = batch["added"] and {k: torch.cat([v, v]) for k, v in batch["added"].items()}
    latents, t = torch.cat([batch["latents"], rejected]), twice["timesteps"]
    noisy = scheduler.add_noise(latents, twice["noise"], t)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, twice["noise"], t) if velocity else twice["noise"]

    def difference():
        prediction = unet(noisy, t, twice["encoder_hidden_states"], added_cond_kwargs=added).sample
        losses = torch.nn.functional.mse_loss(prediction, target, reduction="none").mean(dim=[1, 2, 3])
        better, worse = losses.chunk(2)
        return better - worse

    model = difference()
    unet.disable_adapters()
    with torch.no_grad():
        reference = difference()
    unet.enable_adapters()
    inside = -0.5 * beta * (model - reference)
    return -torch.nn.functional.logsigmoid(inside).mean(), (inside > 0).float().mean()


def train_lora(folder, batches, initial, accumulation, dtype=torch.float32, steps=None, loss_of=denoising_loss):
    """The loop of diffusers' train_text_to_image_lora.py; returns the loss of each micro-batch and the final factors. The batches come again where `steps` are more."""
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
    count = len(batches["timesteps"])
    for i in range(steps or count):
        batch = {k: batches[k][i % count].to(dtype) for k in ["latents", "noise", "encoder_hidden_states"]}
        batch["timesteps"] = batches["timesteps"][i % count]
        batch["added"] = {k: batches[k][i % count].to(dtype) for k in ["text_embeds", "time_ids"] if k in batches} or None
        loss = loss_of(unet, scheduler, batch)
        losses.append(loss.detach())
        (loss / accumulation).backward()
        if (i + 1) % accumulation == 0:
            torch.nn.utils.clip_grad_norm_(factors.values(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return torch.stack(losses), {n: p.detach() for n, p in factors.items()}


def make_training(folder, seed, size, accumulations, steps=20):
    """Keys: the inputs `[step, batch, ..]`, `init.<factor>`, and per accumulation n `accum<n>.losses` and `accum<n>.<factor>`."""
    g = torch.Generator().manual_seed(seed)
    config = json.loads((folder / "unet" / "config.json").read_text())
    batch = 2
    batches = {
        "latents": randn(g, steps, batch, 4, size, size),
        "noise": randn(g, steps, batch, 4, size, size),
        "encoder_hidden_states": randn(g, steps, batch, 5, config["cross_attention_dim"]),
        "timesteps": torch.randint(0, 1000, (steps, batch), generator=g),
    }
    if config.get("addition_embed_type"):
        width = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        batches["text_embeds"] = randn(g, steps, batch, width)
        batches["time_ids"] = torch.randint(0, 1025, (steps, batch, 6), generator=g).float()
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


def make_objectives(folder, steps=50):
    """Trajectories over the inputs of `training.safetensors`, again and again: `<case>.losses`, and `denoising.<factor>` after the last step.

    In `perturbation` the noise in the latents is `noise` and a tenth of the noise of the batch before. In `dpo` the latents of the batch before are the rejected
    ones, and beta is 10: with more, the loss multiplies rounding.
    """
    from safetensors.torch import load_file

    batches = load_file(folder / "parity" / "training.safetensors")
    initial = {k.removeprefix("init."): v for k, v in batches.items() if k.startswith("init.")}
    initial |= {k.removeprefix("accum1."): torch.zeros_like(v) for k, v in batches.items() if k.startswith("accum1.") and ".lora_B." in k}
    number, count = itertools.count(), len(batches["timesteps"])

    def before(name, dtype):
        return batches[name][(next(number) - 1) % count].to(dtype)

    def perturbed(unet, scheduler, batch):
        noise = batch["noise"]
        return denoising_loss(unet, scheduler, batch, input_noise=noise + 0.1 * before("noise", noise.dtype))

    def min_snr(unet, scheduler, batch):
        return denoising_loss(unet, scheduler, batch, gamma=5.0)

    accuracies = []

    def dpo(unet, scheduler, batch):
        loss, accuracy = dpo_loss(unet, scheduler, batch, before("latents", batch["latents"].dtype), 10.0)
        accuracies.append(accuracy)
        return loss

    tensors = {}
    for name, loss_of in {"denoising": denoising_loss, "min_snr": min_snr, "perturbation": perturbed, "dpo": dpo}.items():
        number = itertools.count()
        exact, exact_final = train_lora(folder, batches, initial, 1, torch.float64, steps, loss_of)
        number = itertools.count()
        accuracies.clear()
        losses, final = train_lora(folder, batches, initial, 1, torch.float32, steps, loss_of)
        drift = ((losses - exact) / exact).abs().max()
        rounding = max((final[n] - exact_final[n]).norm() / exact_final[n].norm() for n in final)
        print(f"{folder.name} {name}: f32 against f64: losses {drift:.1e}, factors {rounding:.1e}; loss {losses[0]:.3f} -> {losses[-1]:.3f}")
        tensors[f"{name}.losses"] = losses
        if name == "denoising":
            tensors |= {f"{name}.{n}": p for n, p in final.items()}
    tensors["dpo.accuracies"] = torch.stack(accuracies)
    save(folder / "parity" / "objectives.safetensors", tensors)


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=root / "crates/selma-diffusion/tests/fixtures")
    parser.add_argument("--only", default="models,middle,options,schedulers,tokenizer,training,objectives")
    parser.add_argument("--folders", default="tiny-sd,tiny-sd-v,tiny-sdxl", help="pipelines to make")
    args = parser.parse_args()
    only, folders = set(args.only.split(",")), args.folders.split(",")
    torch.set_num_threads(1)
    sd1, sd2, sdxl = (args.out / name for name in ["tiny-sd", "tiny-sd-v", "tiny-sdxl"])
    if "models" in only:
        with torch.no_grad():
            if sd1.name in folders:
                make_pipeline(sd1, True, 11)
                make_activations(sd1, 31)
            if sd2.name in folders:
                make_pipeline(sd2, False, 23)
                make_activations(sd2, 37)
            if sdxl.name in folders:
                make_sdxl_pipeline(sdxl, 47)
                make_activations(sdxl, 53)
    if "middle" in only:
        with torch.no_grad():
            for name in folders:
                make_without_middle(args.out / name)
    if "options" in only:
        with torch.no_grad():
            for name in folders:
                make_options(args.out / name, 59)
    if "schedulers" in only:
        make_scheduler_cases(args.out / "schedulers")
    if "tokenizer" in only:
        make_tokenizer_cases(args.out, [sd1 / "tokenizer", sd2 / "tokenizer", sdxl / "tokenizer_2"])
    if "training" in only:
        if sd1.name in folders:
            make_training(sd1, 41, 8, [1, 2])
        if sd2.name in folders:
            make_training(sd2, 43, 4, [1])
        if sdxl.name in folders:
            make_training(sdxl, 61, 8, [1], steps=10)
    if "objectives" in only:
        for name in folders:
            make_objectives(args.out / name)


if __name__ == "__main__":
    main()
