"""Writes which tensors of the tiny pipelines make a single file in the original layout, checked by diffusers' own conversion.

    python tools/original_layout_fixtures.py [--out crates/selma-diffusion/tests/fixtures]

For each pipeline a line `original key, form, component, keys` of `original_layout.json`; the forms are `same`, `conv` (a matrix with two
dimensions of size 1 more), `rows` (several tensors below each other) and `turned` (a transpose). Rust makes the files of its tests from it.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OLD_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}


def unet_key(key, config):
    parts = key.split(".")
    for new, old in UNET.items():
        if key.startswith(new + "."):
            return old + key[len(new) :]
    per_level = config["layers_per_block"] + 1
    if parts[0] == "mid_block":
        slot = {"resnets": 2 * int(parts[2]), "attentions": 1}[parts[1]]
        return join(f"middle_block.{slot}", parts[1], parts[3:])
    level, kind, number = int(parts[1]), parts[2], int(parts[3])
    if parts[0] == "down_blocks":
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * per_level}.0.op.{parts[-1]}"
        return join(f"input_blocks.{level * per_level + 1 + number}.{int(kind == 'attentions')}", kind, parts[4:])
    if kind == "upsamplers":
        attention = config["up_block_types"][level].startswith("Cross")
        return f"output_blocks.{(level + 1) * per_level - 1}.{1 + attention}.conv.{parts[-1]}"
    return join(f"output_blocks.{level * per_level + number}.{int(kind == 'attentions')}", kind, parts[4:])


def join(block, kind, rest):
    if kind == "resnets":
        rest = [RESNET[rest[0]], *rest[1:]]
    return ".".join([block, *rest])


def vae_key(key, config):
    """The original key, and whether a matrix is a 1x1 convolution there."""
    parts = key.split(".")
    if parts[0] in ("quant_conv", "post_quant_conv"):
        return key, False
    side, rest = parts[0], ".".join(parts[1:])
    if rest.startswith("mid_block.attentions.0."):
        layer, field = rest[len("mid_block.attentions.0.") :].rsplit(".", 1)
        layer = OLD_VAE_ATTENTION.get(layer, layer)
        return f"{side}.mid.attn_1.{VAE_ATTENTION[layer]}.{field}", field == "weight" and layer != "group_norm"
    rest = rest.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    if rest.startswith("mid_block.resnets."):
        return f"{side}.mid.block_{int(parts[3]) + 1}." + ".".join(rest.split(".")[3:]), False
    if parts[1] in ("down_blocks", "up_blocks"):
        level, kind, number = int(parts[2]), parts[3], parts[4]
        tail = ".".join(rest.split(".")[4:])
        if parts[1] == "up_blocks":
            level = len(config["block_out_channels"]) - 1 - level
        where = f"{side}.{parts[1][:-7]}.{level}"
        return (f"{where}.block.{number}.{tail}" if kind == "resnets" else f"{where}.{kind[:-2]}.{tail}"), False
    return f"{side}.{rest}", False


def open_clip_rows(keys, prefix, component):
    """Rows for an encoder in OpenCLIP's names."""
    rows = []
    for key in keys:
        short = key.removeprefix("text_model.")
        if short == "embeddings.position_embedding.weight":
            rows.append([prefix + "positional_embedding", "same", component, [key]])
        elif short == "text_projection.weight":
            rows.append([prefix + "text_projection", "turned", component, [key]])
        elif short.startswith("embeddings.token_embedding."):
            rows.append([prefix + "token_embedding.weight", "same", component, [key]])
        elif short.startswith("final_layer_norm."):
            rows.append([prefix + "ln_final." + short.split(".")[-1], "same", component, [key]])
        elif ".self_attn.q_proj." in short:
            layer, field = short.split(".")[2], short.split(".")[-1]
            parts = [key.replace("q_proj", name) for name in ("q_proj", "k_proj", "v_proj")]
            rows.append([f"{prefix}transformer.resblocks.{layer}.attn.in_proj_{field}", "rows", component, parts])
        elif ".k_proj." not in short and ".v_proj." not in short:
            _, _, layer, *rest = short.split(".")
            name = OPEN_CLIP[".".join(rest[:-1])]
            rows.append([f"{prefix}transformer.resblocks.{layer}.{name}.{rest[-1]}", "same", component, [key]])
    return rows


def build(rows, states):
    made = {}
    for original, form, component, keys in rows:
        parts = [states[component][key] for key in keys]
        made[original] = {
            "same": lambda: parts[0],
            "conv": lambda: parts[0][:, :, None, None],
            "rows": lambda: torch.cat(parts),
            "turned": lambda: parts[0].T.contiguous(),
        }[form]()
    return made


def check(made, expected, what):
    missing = set(expected) ^ set(made)
    assert not missing, (what, sorted(missing)[:8])
    for key, value in expected.items():
        assert torch.equal(made[key], value), (what, key)


def short_names(state):
    return {k.removeprefix("text_model."): v for k, v in state.items() if not k.endswith("position_ids")}


def original_layout(config, states):
    """Which tensors of the components make the single file, a row each."""
    xl, open_clip = "text_encoder_2" in states, config["text_encoder"]["hidden_act"] == "gelu"
    rows = [["model.diffusion_model." + unet_key(key, config["unet"]), "same", "unet", [key]] for key in sorted(states["unet"])]
    for key in sorted(states["vae"]):
        original, conv = vae_key(key, config["vae"])
        rows.append(["first_stage_model." + original, "conv" if conv else "same", "vae", [key]])
    text = sorted(states["text_encoder"])
    if xl:
        first = "conditioner.embedders.0.transformer."
        rows += [[first + key if key.startswith("text_model.") else f"{first}text_model.{key}", "same", "text_encoder", [key]] for key in text]
        rows += open_clip_rows(sorted(states["text_encoder_2"]), "conditioner.embedders.1.model.", "text_encoder_2")
    elif open_clip:
        rows += open_clip_rows(text, "cond_stage_model.model.", "text_encoder")
    else:
        rows += [["cond_stage_model.transformer." + key, "same", "text_encoder", [key]] for key in text]
    return rows


def pipeline(folder):
    from diffusers.loaders import single_file_utils as oracle

    components = [path.parent.name for path in folder.glob("*/config.json")]
    config = {name: json.loads((folder / name / "config.json").read_text()) for name in components}
    states = {name: load_file(next((folder / name).glob("*.safetensors"))) for name in components}
    rows = original_layout(config, states)
    made = build(rows, states)
    assert len(made) == len(rows)
    converted = oracle.convert_ldm_unet_checkpoint(dict(made), config["unet"])
    check(converted, states["unet"], "unet")
    new_names = {v: k for k, v in OLD_VAE_ATTENTION.items()}
    expected = {}
    for key, value in states["vae"].items():
        for new, old in new_names.items():
            key = key.replace(f".attentions.0.{old}.", f".attentions.0.{new}.")
        expected[key] = value
    check(oracle.convert_ldm_vae_checkpoint(dict(made), config["vae"]), expected, "vae")

    class Model:
        def __init__(self, config):
            self.config = type("Config", (), config)

    xl, open_clip = "text_encoder_2" in components, config["text_encoder"]["hidden_act"] == "gelu"
    if xl or not open_clip:
        check(short_names(oracle.convert_ldm_clip_checkpoint(dict(made))), short_names(states["text_encoder"]), "text_encoder")
    if xl or open_clip:
        name, prefix = ("text_encoder_2", "conditioner.embedders.1.model.") if xl else ("text_encoder", "cond_stage_model.model.")
        converted = oracle.convert_open_clip_checkpoint(Model(config[name]), dict(made), prefix)
        check(short_names(converted), short_names(states[name]), name)
    return rows


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=root / "crates/selma-diffusion/tests/fixtures")
    out = parser.parse_args().out
    folders = [out / name for name in ["tiny-sd", "tiny-sd-v", "tiny-sdxl"] if (out / name).is_dir()]
    lines = []
    for folder in folders:
        rows = ",\n  ".join(json.dumps(row) for row in pipeline(folder))
        lines.append(f" {json.dumps(folder.name)}: [\n  {rows}\n ]")
    (out / "original_layout.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
