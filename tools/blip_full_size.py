"""Compares BLIP-VQA and ImageReward at their published sizes, with random weights, to transformers.

    cargo build --release --bin selma
    python tools/blip_full_size.py [--model vqa|reward] [--pictures 2] [--scratch blip-full-size] [--selma target/release/selma]

Written with torch 2.15 and transformers 5.24; f32 on the CPU. The weights are torch's initial ones, with biases that make the answers differ, and the vocabulary has as many tokens as BERT's. Prints the largest differences of
P(yes) / (P(yes) + P(no)) and of the answers, or of the rewards in relation to the largest, and the seconds of each program. The folder takes 2 GB and is removed.
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

import make_blip_fixtures as tiny

QUESTIONS = ["Is there a red circle?", "Are there two cats?"]


def make_pictures(folder, count):
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(count):
        blocks = generator.integers(0, 256, (8, 8, 3)).repeat(64, 0).repeat(64, 1)
        Image.fromarray(blocks[: 512 - 40 * index].astype(np.uint8)).save(folder / f"{index}.png")


def vocabulary(folder):
    tiny.VOCABULARY.extend(f"word{index}" for index in range(30522 - len(tiny.VOCABULARY)))
    tiny.write_vocabulary(folder)


def vqa(args, pictures):
    from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, BlipImageProcessorPil

    folder = args.scratch / "model"
    vocabulary(folder)
    torch.manual_seed(0)
    text = {"num_attention_heads": 12, "sep_token_id": tiny.SEP, "eos_token_id": tiny.SEP}
    model = BlipForQuestionAnswering(BlipConfig(text_config=text, vision_config={"initializer_range": 0.02})).eval()
    with torch.no_grad():
        # Else all tokens are about as likely.
        model.text_decoder.cls.predictions.bias.normal_(std=2.0)
        model.text_decoder.cls.predictions.transform.LayerNorm.weight.mul_(5.0)
    model.save_pretrained(folder)
    processor, tokenizer = BlipImageProcessorPil(), BertTokenizer.from_pretrained(folder, local_files_only=True)
    rows, wanted = ["item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,question_natural_language"], []
    begin = torch.tensor([[model.decoder_start_token_id]])
    words = tokenizer.convert_tokens_to_ids(["yes", "no"])
    start = time.monotonic()
    for index in range(args.pictures):
        pixels = processor(Image.open(pictures / f"{index}.png"), return_tensors="pt").pixel_values
        for place, question in enumerate(QUESTIONS):
            rows.append(f"{index},a picture,,{place + 1},0,entity,whole,entity,{question}")
            inputs = {"input_ids": torch.tensor([tokenizer(question).input_ids]), "pixel_values": pixels}
            with torch.no_grad():
                read = model.text_encoder(input_ids=inputs["input_ids"], encoder_hidden_states=model.vision_model(pixels).last_hidden_state).last_hidden_state
                yes, no = model.text_decoder(input_ids=begin, encoder_hidden_states=read).logits[0, -1].softmax(-1)[words].tolist()
                answer = model.generate(**inputs, max_length=20, do_sample=False, num_beams=args.beams)[0]
            wanted.append((yes / (yes + no), yes + no, tokenizer.decode(answer, skip_special_tokens=True)))
    print(f"transformers {time.monotonic() - start:.1f} s without loading")
    del model
    annotations, out = args.scratch / "questions.csv", args.scratch / "result.json"
    annotations.write_text("\n".join(rows) + "\n")
    command = [args.selma, "eval", "dsg", "--images", pictures, "--annotations", annotations, "--vqa", f"blip:{folder}", "--beams", str(args.beams), "--out", out]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(f"selma {time.monotonic() - start:.1f} s with loading")
    found = [question for item in json.loads(out.read_text())["items"] for question in item["questions"]]
    equal = sum(asked["answer"] == answer for asked, (_, _, answer) in zip(found, wanted))
    errors = [max(abs(asked["yes"]["probability"] / p - 1), abs(asked["yes"]["coverage"] / c - 1)) for asked, (p, c, _) in zip(found, wanted)]
    print(f"{equal} of {len(wanted)} answers are equal, for example {wanted[0][2]!r}; probabilities {wanted[0][:2]}, largest relative difference {max(errors):.1e}")


def reward(args, pictures):
    folder = args.scratch / "model"
    vocabulary(folder)
    torch.manual_seed(0)
    parts = tiny.reward_parts("published")
    state = {tiny.reward_name(part, key): value for part, module in enumerate(parts) for key, value in module.state_dict().items()}
    torch.save(state, folder / "ImageReward.pt")
    start = time.monotonic()
    with torch.no_grad():
        images = [Image.open(pictures / f"{index}.png") for index in range(args.pictures)]
        texts = [QUESTIONS[index % len(QUESTIONS)] for index in range(args.pictures)]
        wanted = tiny.rewards(folder, parts, images, texts, size=224, length=35)
    print(f"transformers {time.monotonic() - start:.1f} s without loading")
    del parts, state
    rows = [json.dumps({"file_name": f"{index}.png", "text": text}) for index, text in enumerate(texts)]
    (pictures / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    out = args.scratch / "scores.jsonl"
    start = time.monotonic()
    subprocess.run([args.selma, "eval", "score", "--scorer", "imagereward", "--weights", folder, "--images", pictures, "--out", out], check=True, stdout=subprocess.DEVNULL)
    found = torch.tensor([json.loads(line)["score"] for line in out.read_text().splitlines()])
    print(f"selma {time.monotonic() - start:.1f} s with loading; {wanted.tolist()}, largest relative difference {((found - wanted).abs().max() / wanted.abs().max()):.1e}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=["vqa", "reward"], default="vqa")
    parser.add_argument("--pictures", type=int, default=2)
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--scratch", type=Path, default=Path("blip-full-size"))
    parser.add_argument("--selma", type=Path, default=Path("target/release/selma"))
    args = parser.parse_args()
    args.selma = args.selma.resolve()
    args.scratch.mkdir()
    try:
        pictures = args.scratch / "pictures"
        make_pictures(pictures, args.pictures)
        {"vqa": vqa, "reward": reward}[args.model](args, pictures)
    finally:
        shutil.rmtree(args.scratch)


if __name__ == "__main__":
    main()
