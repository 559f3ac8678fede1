"""Compares PickScore and CLIP score of a CLIP at its published size, with random weights, to transformers.

    cargo build --release --bin selma
    python tools/scorer_full_size.py [--size vit-h-14|vit-l-14|vit-b-32] [--pictures 4] [--scratch scorer-full-size] [--selma target/release/selma]

Written with torch 2.15, transformers 5.24 and open_clip_torch 3.3; f32 on the CPU. The weights are torch's initial ones, with a `logit_scale` as of PickScore. Prints the largest differences of the scores
in relation to the largest score, and the seconds of each program, loading included. The folder takes 4 GB for ViT-H/14 and is removed.
"""

import argparse
import json
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIZES = {
    "vit-b-32": ({"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 12}, {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "patch_size": 32}, 512),
    "vit-l-14": ({"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}, {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14}, 768),
    "vit-h-14": ({"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24}, {"hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32, "patch_size": 14}, 1024),
}
TEXTS = ["a photo of a red circle", "two blue squares above a small green triangle", "three cats", "an astronaut riding a horse, in the style of van gogh"]


def make(folder, size):
    from transformers import CLIPConfig, CLIPModel

    text, vision, width = SIZES[size]
    act = {"hidden_act": "gelu" if size == "vit-h-14" else "quick_gelu"}
    towers = [tower | act | {"intermediate_size": 4 * tower["hidden_size"]} for tower in (text, vision)]
    towers[0] |= {"eos_token_id": 2}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=towers[0], vision_config=towers[1], projection_dim=width)).eval()
    with torch.no_grad():
        model.logit_scale.fill_(4.6)
    model.save_pretrained(folder, max_shard_size="100GB")
    return model


def make_pictures(folder, count):
    folder.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for index in range(count):
        blocks = generator.integers(0, 256, (8, 8, 3)).repeat(64, 0).repeat(64, 1)
        picture = Image.fromarray(blocks[: 512 - 40 * index].astype(np.uint8))
        picture.save(folder / f"{index}.png")
        rows.append(json.dumps({"file_name": f"{index}.png", "text": TEXTS[index % len(TEXTS)]}))
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n")


def expected(model, pictures, count):
    import open_clip
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil()
    images = [Image.open(pictures / f"{index}.png") for index in range(count)]
    pixels = processor(images, return_tensors="pt").pixel_values
    ids = open_clip.tokenize([TEXTS[index % len(TEXTS)] for index in range(count)])
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=pixels)
    cosines = (output.image_embeds * output.text_embeds).sum(-1)
    return {"clip": (100 * cosines).clamp(min=0), "pickscore": model.logit_scale.exp() * cosines}


def found(selma, scorer, weights, pictures, out):
    command = [selma, "eval", "score", "--scorer", scorer, "--weights", weights, "--images", pictures, "--out", out]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return torch.tensor([json.loads(line)["score"] for line in out.read_text().splitlines()]), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="vit-h-14")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--scratch", type=Path, default=Path("scorer-full-size"))
    parser.add_argument("--selma", type=Path, default=Path("target/release/selma"))
    args = parser.parse_args()
    args.scratch.mkdir()
    try:
        weights, pictures = args.scratch / "clip", args.scratch / "pictures"
        model = make(weights, args.size)
        make_pictures(pictures, args.pictures)
        start = time.monotonic()
        scores = expected(model, pictures, args.pictures)
        print(f"{args.size}: transformers {time.monotonic() - start:.1f} s without loading")
        # Two models of this size do not fit every memory.
        del model
        for scorer, wanted in scores.items():
            values, seconds = found(args.selma.resolve(), scorer, weights, pictures, args.scratch / "scores.jsonl")
            error = (values - wanted).abs().max() / wanted.abs().max()
            print(f"{scorer}: {wanted.tolist()}, largest relative difference {error:.1e}, {seconds:.1f} s with loading")
    finally:
        shutil.rmtree(args.scratch)


if __name__ == "__main__":
    main()
