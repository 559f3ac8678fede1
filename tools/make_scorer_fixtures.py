"""Makes the parity fixtures of selma-diffusion's scorers from transformers, OpenCLIP and torchvision.

    python tools/make_scorer_fixtures.py [--out crates/selma-diffusion/tests/fixtures/scorers]

Written with torch 2.15, transformers 5.24, open_clip_torch 3.3, torchvision 0.29; f32 on the CPU, fixed seeds, tiny random weights in f16:

    pictures/   tall, wide, odd, square, smaller than what the models take, and grey
    clip/       as OpenAI's CLIP and PickScore in the layout of transformers: quick_gelu, texts pooled at the largest id
    hps/        as HPS v2: OpenCLIP's names below `state_dict` in a file of PyTorch, exact GELU, `open_clip_config.json` for the heads
    head/       heads of aesthetic predictors for the embeddings of `clip/`

`expected.safetensors` has what Python makes of the pictures and the texts from these very files: pixels (in f16), embeddings and scores.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from make_diffusion_fixtures import randomise, write_json

SIZE = 16
PATCH = 4
LENGTH = 16
TEXTS = [
    "a photo of a red circle",
    "two blue squares above a small green triangle on a white background, near the pink cross",
    "three cats",
    "the large yellow star",
    "it's 8k",
    "a painting",
]
# As width and height.
PICTURES = {"tall": (21, 64), "wide": (75, 30), "odd": (45, 38), "square": (40, 40), "small": (11, 9), "grey": (50, 61)}
TOKENIZER = Path(__file__).parent.parent / "crates/selma-diffusion/tests/fixtures/tiny-sd/tokenizer"


def make_pictures(folder):
    """Hard edges, on which a cubic filter swings, and noise."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(7)
    for name, (width, height) in PICTURES.items():
        blocks = generator.integers(0, 2, (height // 6 + 1, width // 6 + 1, 3)) * 255
        picture = np.kron(blocks, np.ones((6, 6, 1)))[:height, :width]
        picture[height // 2 :] = generator.integers(0, 256, (height - height // 2, width, 3))
        image = Image.fromarray(picture.astype(np.uint8))
        (image.convert("L") if name == "grey" else image).save(folder / f"{name}.png", optimize=True)


def open_pictures(folder):
    return [Image.open(folder / f"{name}.png") for name in PICTURES]


def copy_tokenizer(folder):
    for path in TOKENIZER.iterdir():
        shutil.copyfile(path, folder / path.name)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    write_json(folder / "tokenizer_config.json", config | {"model_max_length": LENGTH})
    return len(json.loads((folder / "vocab.json").read_text()))


def halves(state):
    return {key: value.detach().half().clone() for key, value in state.items() if not key.endswith("position_ids")}


def make_clip(folder):
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True)
    vocabulary = copy_tokenizer(folder)
    tower = {"hidden_act": "quick_gelu", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": 12,
        "text_config": tower
        | {"num_attention_heads": 2, "vocab_size": vocabulary, "max_position_embeddings": LENGTH, "bos_token_id": 0, "eos_token_id": 2, "projection_dim": 512},
        "vision_config": tower | {"num_attention_heads": 4, "hidden_size": 20, "image_size": SIZE, "patch_size": PATCH, "projection_dim": 512},
    }
    model = randomise(CLIPModel(CLIPConfig(**config)), 11)
    with torch.no_grad():
        model.logit_scale.fill_(4.5)
    write_json(folder / "config.json", config)
    save_file(halves(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    processor = {
        "crop_size": {"height": SIZE, "width": SIZE},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"shortest_edge": SIZE},
    }
    write_json(folder / "preprocessor_config.json", processor)


def expect_clip(folder, pictures, expected):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    model = CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    pixels = processor([picture.convert("RGB") for picture in pictures], return_tensors="pt").pixel_values
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt").input_ids
    output = model(input_ids=ids, pixel_values=pixels)
    # These are normalised.
    images, texts = output.image_embeds, output.text_embeds
    cosines = (images * texts).sum(-1)
    expected |= {"clip.pixels": pixels, "clip.images": images, "clip.texts": texts}
    expected |= {"clip.scores": (100 * cosines).clamp(min=0), "pickscore.scores": model.logit_scale.exp() * cosines}
    return model


def make_heads(folder, width):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(13)
    widths = [width, 8, 6, 5, 4, 1]
    state = {}
    for place, inputs, outputs in zip([0, 2, 4, 6, 7], widths, widths[1:]):
        state[f"layers.{place}.weight"] = torch.randn(outputs, inputs, generator=generator)
        state[f"layers.{place}.bias"] = torch.randn(outputs, generator=generator)
    torch.save(state, folder / "improved.pth")
    torch.save({"weight": torch.randn(1, width, generator=generator), "bias": torch.randn(1, generator=generator)}, folder / "linear.pth")


def openai_transform(size):
    """That of OpenAI's `clip.load`."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

    steps = [Resize(size, interpolation=InterpolationMode.BICUBIC), CenterCrop(size), lambda image: image.convert("RGB"), ToTensor()]
    return Compose([*steps, Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))])


def expect_aesthetic(folder, model, pictures, expected):
    transform = openai_transform(SIZE)
    pixels = torch.stack([transform(picture) for picture in pictures])
    images = model.get_image_features(pixel_values=pixels)
    images = getattr(images, "pooler_output", images)
    images = images / images.norm(dim=-1, keepdim=True)
    linear = torch.load(folder / "linear.pth")
    scores = images
    state = torch.load(folder / "improved.pth")
    for place in [0, 2, 4, 6, 7]:
        scores = scores @ state[f"layers.{place}.weight"].T + state[f"layers.{place}.bias"]
    expected |= {"aesthetic.pixels": pixels, "aesthetic.scores": scores[:, 0], "linear.scores": (images @ linear["weight"].T + linear["bias"])[:, 0]}


def make_hps(folder):
    from open_clip.model import CLIP

    folder.mkdir(parents=True)
    vocabulary = copy_tokenizer(folder)
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": SIZE, "layers": 1, "width": 20, "head_width": 10, "patch_size": PATCH, "mlp_ratio": 2.0},
        "text_cfg": {"context_length": LENGTH, "vocab_size": vocabulary, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 2.0},
    }
    torch.manual_seed(17)
    model = randomise(CLIP(**config), 17)
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {}})
    torch.save({"state_dict": halves(model.state_dict()), "epoch": 1}, folder / "HPS_v2_compressed.pt")


def expect_hps(folder, pictures, expected):
    from open_clip.model import CLIP
    from transformers import CLIPTokenizer

    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    model = CLIP(**config).eval()
    state = torch.load(folder / "HPS_v2_compressed.pt")["state_dict"]
    model.load_state_dict({key: value.float() for key, value in state.items()})
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt").input_ids
    pixels = torch.stack([hps_transform(picture) for picture in pictures])
    images, texts = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
    expected |= {"hps.pixels": pixels, "hps.images": images, "hps.texts": texts, "hps.scores": (images @ texts.T).diagonal()}


def hps_transform(picture, full=SIZE):
    """`preprocess_val` of hpsv2 1.2.0 (`src/open_clip/transform.py`: ToTensor, ResizeMaxSize, Normalize)."""
    import torchvision.transforms.functional as F
    from torchvision.transforms import InterpolationMode, Normalize, ToTensor

    image = ToTensor()(picture.convert("RGB"))
    height, width = image.shape[1:]
    scale = full / float(max(height, width))
    if scale != 1.0:
        size = tuple(round(side * scale) for side in (height, width))
        image = F.resize(image, size, InterpolationMode.BICUBIC)
        down, right = full - size[0], full - size[1]
        image = F.pad(image, padding=[right // 2, down // 2, right - right // 2, down - down // 2], fill=0)
    return Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))(image)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("crates/selma-diffusion/tests/fixtures/scorers"))
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    make_pictures(out / "pictures")
    make_clip(out / "clip")
    make_heads(out / "head", 12)
    make_hps(out / "hps")
    pictures = open_pictures(out / "pictures")
    expected = {}
    with torch.no_grad():
        model = expect_clip(out / "clip", pictures, expected)
        expect_aesthetic(out / "head", model, pictures, expected)
        expect_hps(out / "hps", pictures, expected)
    pixels = {key: value.half() for key, value in expected.items() if key.endswith("pixels")}
    save_file({key: value.contiguous().clone() for key, value in (expected | pixels).items()}, out / "expected.safetensors")
    for key, value in expected.items():
        if key.endswith("scores"):
            print(key, value.tolist())


if __name__ == "__main__":
    main()
