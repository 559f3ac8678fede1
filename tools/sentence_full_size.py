"""Compares sentence encoders at their published sizes to transformers, and the choices of `selma eval tifa` to those of TIFA's program.

    cargo build --release --bin selma
    python tools/sentence_full_size.py [--model DIR] [--scratch sentence-full-size] [--keep] [--selma target/release/selma]

Written with torch 2.15 and transformers 5.24; f32 on the CPU. Without --model: MPNet at the size of all-mpnet-base-v2, with random weights and a vocabulary of as many words; with it, a folder such as
all-MiniLM-L6-v2. Prints how many choices are equal and the seconds of each program. With --keep the scratch folder stays, and the vectors themselves are compared by

    SELMA_SENTENCES_DIR=$PWD/sentence-full-size cargo test --release --test sentences -- --nocapture the_folder
"""

import argparse
import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import make_blip_fixtures as blip
import make_sentence_fixtures as tiny

CHOICES = {
    "what color is it?": "red,green,blue,yellow,black,white,brown,orange,pink,purple,gray",
    "what animal is in the picture?": "dog,cat,horse,cow,sheep,bird,elephant,bear,zebra,giraffe,fish",
    "how many are there?": "one,two,three,four,five,six,seven,eight,nine,ten",
    "where is it?": "on the table,in the kitchen,at the beach,in a park,on a street,in the sky,at an airport,in a museum",
    "what is the man doing?": "surfing,skiing,reading a book,riding a bike,playing tennis,cooking,sleeping,swimming,walking",
    "what is it made of?": "wood,metal,glass,plastic,stone,paper,leather,cotton,ice",
    "what is the style of the picture?": "watercolor,oil painting,photograph,cartoon,sketch,pixel art,3d rendering",
}
ANSWERS = {
    "what color is it?": "scarlet,navy,lime,golden,a very dark shade,snow,chocolate,It is violet.,rose,silver and grey,the color of the sea",
    "what animal is in the picture?": "puppy,kitten,pony,a calf,lamb,parrot,an animal with a trunk,grizzly,a striped horse,salmon,a tall animal with a long neck",
    "how many are there?": "1,2,3,a pair,a dozen,There are 7 of them,none,4 or 5,eight.",
    "where is it?": "on a desk,kitchen,sand and sea,under a tree,road,above the clouds,on the runway,between paintings",
    "what is the man doing?": "he rides a wave,on a snowy slope,looking at a page,cycling,hitting a ball with a racket,making dinner,in bed,in the pool,taking a stroll",
    "what is it made of?": "oak,steel,a window,lego,granite,cardboard,hide,cloth,frozen water",
    "what is the style of the picture?": "aquarelle,oil on canvas,photo,anime,pencil drawing,8 bit,cgi",
}


def make(folder):
    """MPNet at its published size."""
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    blip.VOCABULARY.extend(f"word{index}" for index in range(30527 - 5 - len(blip.VOCABULARY)))
    words = ["<s>", "<pad>", "</s>", "<unk>", *blip.VOCABULARY, "<mask>"]
    MPNetTokenizer({word: place for place, word in enumerate(words)}, model_max_length=512).save_pretrained(folder)
    torch.manual_seed(0)
    # Larger than the initial ones, so that the layers change much.
    config = MPNetConfig(vocab_size=len(words), max_position_embeddings=514, initializer_range=0.05)
    MPNetModel(config).eval().save_pretrained(folder)


def questions(count):
    draw = random.Random(0)
    for number in range(count):
        question = draw.choice(sorted(CHOICES))
        choices = draw.sample(CHOICES[question].split(","), 4)
        yield {"id": f"a_{number}", "caption": "a picture", "question": question, "choices": choices, "answer": choices[0], "element_type": "other"}, draw.choice(ANSWERS[question].split(","))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--scratch", type=Path, default=Path("sentence-full-size"))
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--selma", type=Path, default=Path("target/release/selma"))
    args = parser.parse_args()
    folder = args.scratch / "model"
    args.scratch.mkdir()
    try:
        if args.model:
            shutil.copytree(args.model, folder)
        else:
            make(folder)
        limit = folder / "sentence_bert_config.json"
        encoder = tiny.Encoder(folder, json.loads(limit.read_text())["max_seq_length"] if limit.exists() else 512)
        asked = list(questions(args.questions))
        start = time.monotonic()
        chosen = [encoder.choose(answer, question["choices"]) for question, answer in asked]
        print(f"TIFA's program {time.monotonic() - start:.1f} s without loading, smallest margin {min(margin for _, margin in chosen):.1e}")
        short = sorted({text for question, answer in asked for text in [answer, *question["choices"]]}) + tiny.TEXTS[:-1]
        long = [tiny.TEXTS[-1], "a long text of many words " * 200]
        texts, embeddings = short + long, [encoder.embed(batch)[0] for batch in (short, long)]
        save_file({"embeddings": torch.cat(embeddings).contiguous()}, args.scratch / "expected.safetensors")
        (args.scratch / "texts.json").write_text(json.dumps(texts))
        details = {question["id"]: {question["question"]: {"free_form_vqa": answer}} for question, answer in asked}
        (args.scratch / "questions.json").write_text(json.dumps([question for question, _ in asked]))
        (args.scratch / "answers.json").write_text(json.dumps({"question_details": details}))
        out = args.scratch / "result.json"
        command = [args.selma.resolve(), "eval", "tifa", "--questions", args.scratch / "questions.json", "--answers", args.scratch / "answers.json", "--embedder", folder, "--out", out]
        start = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        result = json.loads(out.read_text())
        found = [item["questions"][0]["choice"] for item in result["items"]]
        equal = sum(choice == wanted for choice, (wanted, _) in zip(found, chosen))
        print(f"selma {seconds:.1f} s with loading; {result['methods']}; {equal} of {len(found)} choices are equal, for example {asked[0][1]!r}: {found[0]!r}")
    finally:
        if not args.keep:
            shutil.rmtree(args.scratch)


if __name__ == "__main__":
    main()
