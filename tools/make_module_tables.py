#!/usr/bin/env python3
"""Makes the module tables of crates/selma-lora: every layer of SD 1, SD 2 and SDXL that can have a LoRA.

    python tools/make_module_tables.py

The models are built from their published configurations on torch's meta device, so no weights are
needed. A line of a table is a path and the shape of its weight; a number of the path may be a range,
`attentions.0-2`, which stands for one line for each number in it.

Needs torch, diffusers, transformers.
"""

import itertools
import json
import pathlib
import re

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "crates/selma-diffusion/tests/fixtures/published_configs.json"
TABLES = ROOT / "crates/selma-lora/src/models"
MODELS = {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl-base"}


def layers(component, config):
    """Path and weight shape of every linear layer and convolution."""
    with torch.device("meta"):
        if component == "unet":
            model = UNet2DConditionModel.from_config(config)
        elif component == "text_encoder":
            model = CLIPTextModel(CLIPTextConfig(**config))
        else:
            model = CLIPTextModelWithProjection(CLIPTextConfig(**config))
    for path, layer in model.named_modules():
        if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)):
            # A level that transformers 5 left out of one of the two classes; checkpoints have it.
            if path.startswith("encoder.layers."):
                path = f"text_model.{path}"
            yield f"{component}.{path}", tuple(layer.weight.shape)


def ranges(numbers):
    """0, 1, 2, 5 as (0, 2), (5, 5)."""
    for _, run in itertools.groupby(enumerate(sorted(numbers)), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in run]
        yield run[0], run[-1]


def compact(rows):
    """Joins rows that differ in one number only into ranges, from the last number to the first."""
    rows = {(tuple(re.split(r"(?<=\.)(\d+)(?=\.|$)", path)), shape) for path, shape in rows}
    places = max(len(pieces) for pieces, _ in rows)
    for place in reversed(range(1, places, 2)):
        groups = {}
        for pieces, shape in rows:
            if place < len(pieces):
                key = (pieces[:place], pieces[place + 1 :], shape)
                groups.setdefault(key, []).append(pieces[place])
            else:
                groups[(pieces, None, shape)] = None
        rows = set()
        for (before, after, shape), numbers in groups.items():
            if numbers is None:
                rows.add((before, shape))
                continue
            for first, last in ranges(map(int, numbers)):
                text = f"{first}" if first == last else f"{first}-{last}"
                rows.add(((*before, text, *after), shape))
    return sorted(("".join(pieces), shape) for pieces, shape in rows)


def main():
    configs = json.loads(CONFIGS.read_text())
    TABLES.mkdir(parents=True, exist_ok=True)
    for name, source in MODELS.items():
        rows = [
            row
            for component in ["unet", "text_encoder", "text_encoder_2"]
            if component in configs[source]
            for row in layers(component, configs[source][component])
        ]
        lines = [f"{path} {' '.join(map(str, shape))}" for path, shape in compact(rows)]
        text = "\n".join(lines) + "\n"
        (TABLES / f"{name}.txt").write_text(text)
        print(f"{name}: {len(rows)} layers in {len(lines)} lines, {len(text)} bytes")


if __name__ == "__main__":
    main()
