"""Makes the parity fixtures of BLIP-VQA and ImageReward from transformers.

    python tools/make_blip_fixtures.py [--out crates/selma-diffusion/tests/fixtures/blip]

Written with torch 2.15, transformers 5.24, Pillow 13; f32 on the CPU, fixed seeds, tiny random weights in f16:

    vqa/      as Salesforce/blip-vqa-base in the layout of transformers, with BERT's `vocab.txt`
    reward/   as ImageReward.pt: the names of BLIP's own program, with its `med_config.json` and `vocab.txt`

The pictures are those of `make_scorer_fixtures.py`. `expected.safetensors` has what Python makes of them and the questions from these very files: pixels of the first three (in
f16), ids, first logits, the tokens of greedy and beam search, filled up with -1, and rewards.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from make_diffusion_fixtures import randn, randomise, write_json
from make_scorer_fixtures import halves, open_pictures

SIZE = 16
PATCH = 4
QUESTIONS = [
    "Is there a red circle?",
    "what colour is the large star, and how many of them are there?",
    "Café?",
    "Are these cats unknownword 3.5 [SEP] no",
]
MEAN, STD = 0.16717362830052426, 1.0333394966054072
WORDS = "a the is are there of how many what in this these them large red blue green circle star cat square painting yes no and it color three two".split()
PIECES = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["##our", "##s"]
VOCABULARY = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"?.,!'", *"0123456789", *"abcdefghijklmnopqrstuvwxyz", *WORDS[1:], *PIECES]
SEP = VOCABULARY.index("[SEP]")


def write_vocabulary(folder):
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))


def text_config():
    return {
        "vocab_size": len(VOCABULARY) + 2,
        "hidden_size": 16,
        "encoder_hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "bos_token_id": len(VOCABULARY),
        "sep_token_id": SEP,
        "eos_token_id": SEP,
        "pad_token_id": 0,
    }


def make_vqa(folder):
    from transformers import BlipConfig, BlipForQuestionAnswering

    write_vocabulary(folder)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": SIZE, "patch_size": PATCH, "hidden_act": "gelu"}
    config = {"architectures": ["BlipForQuestionAnswering"], "model_type": "blip", "text_config": text_config(), "vision_config": vision}
    model = randomise(BlipForQuestionAnswering(BlipConfig(**config)), 23)
    with torch.no_grad():
        # So that answers end, some of them.
        model.text_decoder.cls.predictions.bias[SEP] += 1.5
    write_json(folder / "config.json", config)
    state = halves(model.state_dict())
    # Tied, and as in the published files they are there once.
    state = {key: value for key, value in state.items() if ".predictions.decoder." not in key}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"})
    processor = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_processor_type": "BlipImageProcessor",
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "rescale_factor": 0.00392156862745098,
        "size": {"height": SIZE, "width": SIZE},
    }
    write_json(folder / "preprocessor_config.json", processor)


def padded(rows, length):
    return torch.tensor([row + [-1] * (length - len(row)) for row in rows])


def expect_vqa(folder, pictures, expected):
    from transformers import BertTokenizer, BlipForQuestionAnswering, BlipImageProcessorPil

    model = BlipForQuestionAnswering.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    processor = BlipImageProcessorPil.from_pretrained(folder, local_files_only=True)
    tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    pixels = processor([picture.convert("RGB") for picture in pictures], return_tensors="pt").pixel_values
    ids = [tokenizer(question).input_ids for question in QUESTIONS]
    logits, greedy, beam, texts = [], [], [], []
    begin = torch.tensor([[model.decoder_start_token_id]])
    for picture in pixels:
        for question in ids:
            inputs = {"input_ids": torch.tensor([question]), "pixel_values": picture[None], "attention_mask": torch.ones(1, len(question), dtype=torch.long)}
            seen = model.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
            read = model.text_encoder(input_ids=inputs["input_ids"], encoder_hidden_states=seen).last_hidden_state
            logits.append(model.text_decoder(input_ids=begin, encoder_hidden_states=read).logits[0, -1])
            greedy.append(model.generate(**inputs, max_length=20, do_sample=False, num_beams=1)[0].tolist())
            beam.append(model.generate(**inputs, max_length=20, do_sample=False, num_beams=5)[0].tolist())
            texts.append(tokenizer.decode(greedy[-1], skip_special_tokens=True))
    print("lengths", sorted({len(row) for row in greedy}), sorted({len(row) for row in beam}), "differ", sum(a != b for a, b in zip(greedy, beam)))
    print(texts[:4])
    write_json(folder / "answers.json", texts)
    expected |= {"vqa.pixels": pixels, "vqa.ids": padded(ids, 32), "vqa.logits": torch.stack(logits), "vqa.greedy": padded(greedy, 20), "vqa.beam": padded(beam, 20)}


def reward_parts(size="tiny"):
    from transformers import BlipTextConfig, BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    # Heads of BLIP's own program have 64 channels at every size.
    tower = {"hidden_size": 64, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 1, "image_size": SIZE, "patch_size": PATCH}
    text, widths = text_config(), [16, 12, 8, 6, 4, 1]
    if size == "published":
        tower = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 224, "patch_size": 16, "initializer_range": 0.02}
        text, widths = {"num_attention_heads": 12}, [768, 1024, 128, 64, 16, 1]
    vision = BlipVisionConfig(**tower, layer_norm_eps=1e-6)
    text = BlipTextConfig(**text | {"encoder_hidden_size": vision.hidden_size})
    layers = [torch.nn.Linear(*pair) for pair in zip(widths, widths[1:])]
    mlp = torch.nn.Sequential(layers[0], torch.nn.Dropout(), layers[1], torch.nn.Dropout(), layers[2], torch.nn.Dropout(), layers[3], layers[4])
    return BlipVisionModel(vision).eval(), BlipTextModel(text, add_pooling_layer=False).eval(), mlp.eval()


def reward_name(part, key):
    """The names of BLIP's own program (`vit.py`, `med.py`)."""
    if part != 0:
        return f"blip.text_encoder.{key}" if part == 1 else f"mlp.layers.{key}"
    for ours, theirs in [
        ("embeddings.class_embedding", "cls_token"),
        ("embeddings.position_embedding", "pos_embed"),
        ("embeddings.patch_embedding", "patch_embed.proj"),
        ("encoder.layers", "blocks"),
        ("layer_norm", "norm"),
        ("self_attn.projection", "attn.proj"),
        ("self_attn", "attn"),
        ("post_layernorm", "norm"),
    ]:
        key = key.replace(ours, theirs)
    return f"blip.visual_encoder.{key}"


def make_reward(folder):
    write_vocabulary(folder)
    generator = torch.Generator().manual_seed(29)
    state = {"blip.vision_proj.weight": randn(generator, 4, 64).half(), "blip.text_proj.weight": randn(generator, 4, 16).half()}
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(32)[None]
    for part, module in enumerate(reward_parts()):
        randomise(module, 31 + part)
        state |= {reward_name(part, key): value for key, value in halves(module.state_dict()).items()}
    torch.save(state, folder / "ImageReward.pt")
    med = text_config()
    med = {key: value for key, value in med.items() if key not in ("bos_token_id", "sep_token_id", "eos_token_id", "encoder_hidden_size")}
    write_json(folder / "med_config.json", {"architectures": ["BertModel"], "add_cross_attention": True, "encoder_width": 768, "model_type": "bert"} | med)


def reward_pixels(picture, size):
    """As torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize`, which take Pillow for the first two."""
    image = picture.convert("RGB")
    width, height = image.size
    shorter = min(width, height)
    width, height = size * width // shorter, size * height // shorter
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    pixels = torch.from_numpy(np.array(image.crop((left, top, left + size, top + size)))).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]))
    return (pixels - mean) / std


def rewards(folder, parts, pictures, texts, size, length):
    """As `ImageReward.score`, with texts filled up to their greatest length."""
    from transformers import BertTokenizer

    vision, text, mlp = parts
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    scores = []
    for picture, asked in zip(pictures, texts):
        asked = tokenizer(asked, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        seen = vision(pixel_values=reward_pixels(picture, size)[None]).last_hidden_state
        mask = torch.ones(seen.shape[:2], dtype=torch.long)
        hidden = text(input_ids=asked.input_ids, attention_mask=asked.attention_mask, encoder_hidden_states=seen, encoder_attention_mask=mask).last_hidden_state
        scores.append((mlp(hidden[:, 0])[0, 0] - MEAN) / STD)
    return torch.stack(scores)


def expect_reward(folder, pictures, expected):
    """Texts have at most 35 tokens in the program, here 32, which is as many as there are positions."""
    state = torch.load(folder / "ImageReward.pt")
    parts = reward_parts()
    for part, module in enumerate(parts):
        module.load_state_dict({key: state[reward_name(part, key)].float() for key in module.state_dict()})
    texts = [QUESTIONS[index % len(QUESTIONS)] for index in range(len(pictures))]
    expected["reward.scores"] = rewards(folder, parts, pictures, texts, SIZE, 32)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("crates/selma-diffusion/tests/fixtures/blip"))
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    make_vqa(out / "vqa")
    make_reward(out / "reward")
    pictures = open_pictures(out.parent / "scorers/pictures")
    expected = {}
    with torch.no_grad():
        expect_vqa(out / "vqa", pictures[:3], expected)
        expect_reward(out / "reward", pictures, expected)
    expected["vqa.pixels"] = expected["vqa.pixels"].half()
    save_file({key: value.contiguous().clone() for key, value in expected.items()}, out / "expected.safetensors")
    print("rewards", expected["reward.scores"].tolist())


if __name__ == "__main__":
    main()
