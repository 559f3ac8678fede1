"""Compares the scorers that are CLIPs at their published sizes, with random weights, to transformers and OpenCLIP.

    cargo build --release --bin selma
    python tools/scorer_full_size.py [--size vit-h-14|vit-l-14|vit-b-32] [--scorers clip pickscore hps aesthetic] [--pictures 4] [--scratch scorer-full-size] [--selma target/release/selma]

Written with torch 2.15, transformers 5.24, open_clip_torch 3.3 and torchvision 0.29; f32 on the CPU. CLIP score and PickScore are compared at every size, HPS v2 at its own (ViT-H/14: OpenCLIP's names in
a file of f16, as it was published), and LAION's aesthetic predictor at its own (ViT-L/14, with the five layers of `improved-aesthetic-predictor`). The weights are the libraries' initial ones, with a
`logit_scale` as of PickScore. Prints the largest differences of the scores in relation to the largest score, and the seconds of each program, loading included. The folder takes up to 4 GB for ViT-H/14 and
is removed.
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

from make_scorer_fixtures import hps_transform, openai_transform

SIZES = {
    "vit-b-32": ({"hidden_size": 512, "num_attention_heads": 8, "num_hidden_layers": 12}, {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "patch_size": 32}, 512),
    "vit-l-14": ({"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12}, {"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14}, 768),
    "vit-h-14": ({"hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 24}, {"hidden_size": 1280, "num_attention_heads": 16, "num_hidden_layers": 32, "patch_size": 14}, 1024),
}
SCORERS = ["clip", "pickscore", "aesthetic", "hps"]
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


def opened(pictures, count):
    return [Image.open(pictures / f"{index}.png") for index in range(count)]


def tokens(count):
    import open_clip

    return open_clip.tokenize([TEXTS[index % len(TEXTS)] for index in range(count)])


def expected(model, pictures, count):
    from transformers import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil()(opened(pictures, count), return_tensors="pt").pixel_values
    ids = tokens(count)
    with torch.no_grad():
        output = model(input_ids=ids, pixel_values=pixels)
    cosines = (output.image_embeds * output.text_embeds).sum(-1)
    return {"clip": (100 * cosines).clamp(min=0), "pickscore": model.logit_scale.exp() * cosines}


def make_head(path, width):
    torch.manual_seed(1)
    widths = [width, 1024, 128, 64, 16, 1]
    layers = {place: torch.nn.Linear(*pair) for place, pair in zip([0, 2, 4, 6, 7], zip(widths, widths[1:]))}
    torch.save({f"layers.{place}.{name}": value for place, layer in layers.items() for name, value in layer.state_dict().items()}, path)
    return layers.values()


def expected_aesthetic(model, layers, pictures, count):
    transform = openai_transform(224)
    pixels = torch.stack([transform(picture) for picture in opened(pictures, count)])
    with torch.no_grad():
        scores = model.get_image_features(pixel_values=pixels)
        scores = getattr(scores, "pooler_output", scores)
        scores = scores / scores.norm(dim=-1, keepdim=True)
        for layer in layers:
            scores = layer(scores)
    return scores[:, 0]


def make_hps(path):
    import open_clip

    torch.manual_seed(2)
    model = open_clip.create_model("ViT-H-14").half()
    torch.save({"state_dict": model.state_dict()}, path)
    # What f16 has left of the weights.
    return model.float().eval()


def expected_hps(model, pictures, count):
    pixels = torch.stack([hps_transform(picture, 224) for picture in opened(pictures, count)])
    with torch.no_grad():
        images, texts = model.encode_image(pixels, normalize=True), model.encode_text(tokens(count), normalize=True)
    return (images * texts).sum(-1)


def compare(args, scorer, weights, wanted, *more):
    values, seconds = found(args.selma.resolve(), scorer, weights, args.scratch / "pictures", args.scratch / "scores.jsonl", *more)
    error = (values - wanted).abs().max() / wanted.abs().max()
    print(f"{scorer}: {wanted.tolist()}, largest relative difference {error:.1e}, {seconds:.1f} s with loading", flush=True)


def compare_clip(args, scorers):
    weights, pictures, head = args.scratch / "clip", args.scratch / "pictures", args.scratch / "head.pth"
    model = make(weights, args.size)
    start = time.monotonic()
    scores = expected(model, pictures, args.pictures)
    print(f"{args.size}: transformers {time.monotonic() - start:.1f} s without loading", flush=True)
    if "aesthetic" in scorers:
        layers = make_head(head, SIZES[args.size][2])
        scores["aesthetic"] = expected_aesthetic(model, layers, pictures, args.pictures)
    # Two models of this size do not fit every memory.
    del model
    for scorer in scorers:
        compare(args, scorer, weights, scores[scorer], *(["--head", head] if scorer == "aesthetic" else []))
    shutil.rmtree(weights)


def compare_hps(args):
    weights, pictures = args.scratch / "HPS_v2_compressed.pt", args.scratch / "pictures"
    model = make_hps(weights)
    wanted = expected_hps(model, pictures, args.pictures)
    del model
    compare(args, "hps", weights, wanted)


def found(selma, scorer, weights, pictures, out, *more):
    command = [selma, "eval", "score", "--scorer", scorer, "--weights", weights, "--images", pictures, "--out", out, *more]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return torch.tensor([json.loads(line)["score"] for line in out.read_text().splitlines()]), time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="vit-h-14")
    parser.add_argument("--scorers", nargs="+", choices=SCORERS, default=SCORERS, help="those that are compared, as far as they have this size")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--scratch", type=Path, default=Path("scorer-full-size"))
    parser.add_argument("--selma", type=Path, default=Path("target/release/selma"))
    args = parser.parse_args()
    args.scratch.mkdir()
    try:
        make_pictures(args.scratch / "pictures", args.pictures)
        of_size = {"vit-h-14": "hps", "vit-l-14": "aesthetic"}.get(args.size)
        scorers = [scorer for scorer in args.scorers if scorer in ("clip", "pickscore", of_size)]
        if scorers != ["hps"]:
            compare_clip(args, [scorer for scorer in scorers if scorer != "hps"])
        if "hps" in scorers:
            compare_hps(args)
    finally:
        shutil.rmtree(args.scratch)


if __name__ == "__main__":
    main()
