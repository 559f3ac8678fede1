#!/usr/bin/env python3
"""Makes the fixtures of crates/selma-lora that come from kohya's sd-scripts, and from files under old names.

    git clone https://github.com/kohya-ss/sd-scripts
    python tools/make_kohya_fixtures.py sd-scripts     # writes crates/selma-lora/tests/fixtures

`networks/lora.py` puts two adapters on a tiny Stable Diffusion, saves them, and merges them into its weights;
`networks/merge_lora.py` merges the two files; recorded are the dense updates. `kohya_names.txt` has the names that
`networks/lora.py` gives every module of SDXL in the original layout, each with the module that diffusers finds
under it, and the script asserts that it names the modules of SD 1 and SDXL's text encoders as the tables of
layers say. The attention processors of diffusers up to 0.21 can only be read today: a file with their names is made
here, and diffusers says what it does.

Needs torch, diffusers, peft, transformers, safetensors, einops. Was made with sd-scripts of 2026-02-16.
"""

import logging
import pathlib
import re
import sys
import types

import torch
from make_lora_fixtures import BLOCK, CONV, FF, FIXTURES, LINEAR, POINTWISE, ROOT, applied, text_encoder, unet
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

TEXT = "encoder.layers.0"
# Kohya's names of the modules in each file, with rank and alpha; an alpha of 0 stands for the rank.
ADAPTERS = {
    "kohya_a": {LINEAR: (4, 3), FF: (4, 1), POINTWISE: (4, 8), CONV: (4, 0), f"{TEXT}.mlp.fc1": (4, 6)},
    "kohya_b": {LINEAR: (4, 8), FF: (4, 2), POINTWISE: (4, 1), CONV: (4, 5), f"{TEXT}.mlp.fc1": (4, 4)},
}
RATIOS = [0.7, -0.4]
DTYPES = {"kohya_a": torch.float16, "kohya_b": torch.bfloat16}


def sd_scripts(folder):
    """The two modules, without what they import for training and logging."""
    sys.path[:0] = [str(folder), str(folder / "networks")]
    stub = lambda name, **members: sys.modules.update({name: types.SimpleNamespace(**members)})
    library = types.ModuleType("library")
    library.__path__ = [str(folder / "library")]
    sys.modules["library"] = library
    stub("library.utils", setup_logging=lambda *_: None)
    for name in ["sai_model_spec", "model_util"]:
        stub(f"library.{name}")
        setattr(library, name, sys.modules[f"library.{name}"])
    library.train_util = types.SimpleNamespace(
        SS_METADATA_KEY_V2="ss_v2", SS_METADATA_KEY_BASE_MODEL_VERSION="ss_base_model_version",
        load_metadata_from_safetensors=lambda _: {}, build_minimum_network_metadata=lambda *_: {},
        precalculate_safetensors_hashes=lambda *_: ("", ""),
    )
    sys.modules["library.train_util"] = library.train_util
    logging.disable(logging.WARNING)
    import lora
    import merge_lora
    from library import sdxl_original_unet

    return lora, merge_lora, sdxl_original_unet


class TransformersFour(torch.nn.Module):
    """The text encoder as sd-scripts meets it: with the level that transformers 5 left out."""

    def __init__(self, model):
        super().__init__()
        self.text_model = model


def network(lora, module_ranks, model_unet, model_text, kind):
    """A network on the modules given by their paths."""
    flat = lambda path: path.replace(".", "_")
    names = {
        ("lora_te_text_model_" if path.startswith("encoder.") else "lora_unet_") + flat(path): values
        for path, values in module_ranks.items()
    }
    made = lora.LoRANetwork(
        TransformersFour(model_text), model_unet, modules_dim={name: r for name, (r, _) in names.items()},
        modules_alpha={name: alpha for name, (_, alpha) in names.items()}, module_class=kind,
    )
    assert {x.lora_name for x in made.unet_loras + made.text_encoder_loras} == set(names)
    return made


def path_of(key):
    paths = {path.replace(".", "_"): path for adapter in ADAPTERS.values() for path in adapter}
    name = key.removeprefix("lora_unet_").removeprefix("lora_te_text_model_").split(".")[0]
    path = paths[name]
    return f"text_encoder.text_model.{path}" if path.startswith("encoder.") else f"unet.{path}"


def adapters(lora, golden):
    for seed, (name, ranks) in enumerate(ADAPTERS.items()):
        model_unet, model_text = unet(), text_encoder()
        made = network(lora, ranks, model_unet, model_text, lora.LoRAModule)
        made.apply_to(None, None)
        generator = torch.Generator().manual_seed(70 + seed)
        for _, parameter in sorted(made.named_parameters()):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
        path = FIXTURES / f"{name}.safetensors"
        made.save_weights(str(path), DTYPES[name], {"ss_network_dim": "4"})

        # What sd-scripts does to the weights when it merges the file into a model of zeros, in single precision.
        model_unet, model_text = unet(), text_encoder()
        for parameter in [*model_unet.parameters(), *model_text.parameters()]:
            parameter.data.zero_()
        made = network(lora, ranks, model_unet, model_text, lora.LoRAInfModule)
        made.merge_to(None, None, load_file(path), torch.float32, "cpu")
        for module in ranks:
            owner = model_text if module.startswith("encoder.") else model_unet
            key = path_of(module.replace(".", "_"))
            golden[f"{name}.{key}"] = owner.get_submodule(module).weight.detach().flatten(1).clone()


def alphas(lora, golden):
    """What sd-scripts makes of an alpha of 0, and of none."""
    state = {key: value for key, value in load_file(FIXTURES / "kohya_a.safetensors").items() if "resnets" not in key}
    for key in list(state):
        if "ff_net_2.alpha" in key:
            state[key] = torch.zeros_like(state[key])
        if "proj_in.alpha" in key:
            del state[key]
    path = FIXTURES / "kohya_alpha.safetensors"
    save_file(state, path)
    model_unet, model_text = unet(), text_encoder()
    for parameter in [*model_unet.parameters(), *model_text.parameters()]:
        parameter.data.zero_()
    made, loaded = lora.create_network_from_weights(
        1.0, str(path), None, TransformersFour(model_text), model_unet, for_inference=True
    )
    made.merge_to(None, None, loaded, torch.float32, "cpu")
    for module in ADAPTERS["kohya_a"]:
        if module != CONV:
            owner = model_text if module.startswith("encoder.") else model_unet
            weight = owner.get_submodule(module).weight
            golden[f"kohya_alpha.{path_of(module.replace('.', '_'))}"] = weight.detach().flatten(1).clone()


def merged(merge_lora, golden):
    files = [str(FIXTURES / f"{name}.safetensors") for name in ADAPTERS]
    state, *_ = merge_lora.merge_lora_models(files, RATIOS, torch.float32)
    for key, down in state.items():
        if key.endswith(".lora_down.weight"):
            name = key.removesuffix(".lora_down.weight")
            up, alpha = state[f"{name}.lora_up.weight"], state[f"{name}.alpha"]
            delta = up.double().flatten(1) @ down.double().flatten(1) * (alpha / down.shape[0])
            golden[f"merged.{path_of(name)}"] = delta.float()


def old_attention(golden):
    """Names of diffusers up to 0.21, with and without the component before them."""
    plain = {}
    generator = torch.Generator().manual_seed(80)
    draw = lambda *shape: torch.randn(shape, generator=generator) * 0.3
    for attention, inputs in [("attn1", 8), ("attn2", 12)]:
        for layer in ["to_q", "to_k", "to_v", "to_out"]:
            width = inputs if layer in ["to_k", "to_v"] else 8
            name = f"{BLOCK}.transformer_blocks.0.{attention}.processor.{layer}_lora"
            plain |= {f"{name}.down.weight": draw(2, width), f"{name}.up.weight": draw(8, 2)}
    named = {f"unet.{key}": value for key, value in plain.items()}
    for layer in ["q_proj", "k_proj", "v_proj", "out_proj"]:
        name = f"text_encoder.text_model.{TEXT}.self_attn.{layer}.lora_linear_layer"
        named |= {f"{name}.down.weight": draw(3, 12), f"{name}.up.weight": draw(12, 3)}
    for name, state in {"named_attention": named, "named_attention_plain": plain}.items():
        path = FIXTURES / f"{name}.safetensors"
        save_file(state, path)
        if name == "named_attention":
            for module, delta in applied(path).items():
                module = module.replace("text_encoder.encoder", "text_encoder.text_model.encoder")
                golden[f"attention.{module}"] = delta.float()


def names(lora, sdxl):
    """Every name that sd-scripts gives a module of SDXL, and what diffusers reads under it."""
    from diffusers import UNet2DConditionModel
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers, _maybe_map_sgm_blocks_to_diffusers,
    )
    import json

    tables = {
        model: {line.split(" ")[0] for line in expanded(ROOT / f"crates/selma-lora/src/models/{model}.txt")}
        for model in ["sd1", "sdxl"]
    }
    configs = json.loads((ROOT / "crates/selma-diffusion/tests/fixtures/published_configs.json").read_text())
    with torch.device("meta"):
        texts = [
            TransformersFour(text_encoder().__class__(CLIPTextConfig(**configs["sdxl-base"]["text_encoder"]))),
            CLIPTextModelWithProjection(CLIPTextConfig(**configs["sdxl-base"]["text_encoder_2"])),
        ]
        of_xl = lora.LoRANetwork(texts, sdxl.SdxlUNet2DConditionModel(), conv_lora_dim=1)
        of_one = lora.LoRANetwork(
            TransformersFour(text_encoder().__class__(CLIPTextConfig(**configs["sd15"]["text_encoder"]))),
            UNet2DConditionModel.from_config(configs["sd15"]["unet"]), conv_lora_dim=1,
        )
    flat = {
        model: {path.replace(".", "_"): path for path in table} for model, table in tables.items()
    }
    kohya = lambda made: [x.lora_name for x in made.unet_loras + made.text_encoder_loras]
    for name in kohya(of_one):
        name = name.replace("lora_te_", "text_encoder_").removeprefix("lora_")
        assert name in flat["sd1"], name
    print(len(kohya(of_one)), "names for SD 1,", len(kohya(of_xl)), "for SDXL")

    state = {}
    for name in kohya(of_xl):
        state |= {f"{name}.lora_down.weight": torch.zeros(1), f"{name}.lora_up.weight": torch.zeros(1)}
    lines = []
    for name in kohya(of_xl):
        if name.startswith("lora_te"):
            path = flat["sdxl"][name.replace("lora_te1_", "text_encoder_").replace("lora_te2_", "text_encoder_2_")]
        else:
            # diffusers renames block by block and then the rest.
            one = {key: value for key, value in state.items() if key.startswith(f"{name}.")}
            config = types.SimpleNamespace(layers_per_block=2)
            found, _ = _convert_non_diffusers_lora_to_diffusers(_maybe_map_sgm_blocks_to_diffusers(one, config))
            paths = {layer_of(key) for key in found}
            assert len(paths) == 1, (name, sorted(found))
            [path] = paths
            assert path in tables["sdxl"], (name, path)
        lines.append(f"{name} {path}")
    text = "\n".join(compact(lines)) + "\n"
    (FIXTURES / "kohya_names.txt").write_text(text)
    print(len(text), "bytes of names")


def layer_of(key):
    """The layer that a key of diffusers is for; attention has the names of its old processors."""
    processor = re.fullmatch(r"(.+)\.processor\.(to_[a-z]+)_lora\.(?:down|up)\.weight", key)
    if processor:
        return f"{processor[1]}.{processor[2].replace('to_out', 'to_out.0')}"
    return re.sub(r"\.lora\.(down|up)\.weight$", "", key)


def expanded(table):
    """The lines of a table of layers with their ranges written out."""
    for line in table.read_text().splitlines():
        todo = [line]
        while todo:
            line = todo.pop()
            found = re.search(r"(?<=\.)(\d+)-(\d+)(?=[. ])", line)
            if found is None:
                yield line
                continue
            numbers = range(int(found[1]), int(found[2]) + 1)
            todo += [line[: found.start()] + str(n) + line[found.end() :] for n in numbers]


def compact(lines):
    """Blocks and layers that differ in their number alone as one line, `{0-9}`."""
    groups = {}
    for line in lines:
        found = re.search(r"(transformer_blocks|layers)_(\d+)_", line)
        key = line if found is None else line.replace(found[0], f"{found[1]}_{{}}_").replace(
            f"{found[1]}.{found[2]}.", f"{found[1]}.{{}}.")
        groups.setdefault(key, []).append(int(found[2]) if found else 0)
    for key, numbers in groups.items():
        assert sorted(numbers) == list(range(len(numbers))), (key, numbers)
        yield key.replace("{}", f"{{0-{max(numbers)}}}")


def main():
    lora, merge_lora, sdxl = sd_scripts(pathlib.Path(sys.argv[1]).resolve())
    golden = {}
    adapters(lora, golden)
    alphas(lora, golden)
    merged(merge_lora, golden)
    old_attention(golden)
    save_file({key: value.contiguous() for key, value in golden.items()}, FIXTURES / "kohya_dw.safetensors")
    names(lora, sdxl)
    for path in [*FIXTURES.glob("kohya_*"), *FIXTURES.glob("named_attention*")]:
        path.chmod(0o644)
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
