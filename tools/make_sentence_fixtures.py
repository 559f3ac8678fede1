"""Makes the parity fixtures of selma-diffusion's sentence encoders from transformers.

    python tools/make_sentence_fixtures.py [--out crates/selma-diffusion/tests/fixtures/sentences]

Written with torch 2.15, transformers 5.24; f32 on the CPU, fixed seeds, tiny random weights in f16:

    mpnet/   as sentence-transformers/all-mpnet-base-v2, with `tokenizer.json`; texts longer than the farthest bucket of distances
    bert/    as sentence-transformers/all-MiniLM-L6-v2, with BERT's `vocab.txt`

`expected.safetensors` has what the class `SBERTModel` of TIFA's program (`tifascore/mc_sbert.py`) makes of the texts, all in one batch: ids, filled up with -1, and embeddings.
`tifa.json` has the choices that it takes answers for.
"""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from make_blip_fixtures import VOCABULARY, padded
from make_diffusion_fixtures import randomise, write_json
from make_scorer_fixtures import halves

TEXTS = [
    "green",
    "Two cats, and a large RED star!",
    "Café",
    "",
    "yes",
    "unknownword 3.5 <mask> [SEP] no </s> it <pad> is [UNK] red",
    "how many stars are there in this painting of a blue circle " * 12,
]
QUESTIONS = [
    ("what color is the star?", "a pale green", ["red", "green", "blue", "a color"]),
    ("how many cats are there?", "there are 2 of them", ["one", "two", "three", "4"]),
    ("is there a circle?", "No", ["yes", "no"]),
    ("what is this?", "the large painting", ["a star", "cats", "painting"]),
    ("is it blue?", "yes", ["no", "yes"]),
]
# Texts of the first are longer than 128 tokens, beyond which all distances are alike.
LENGTHS = {"mpnet": 150, "bert": 20}


def sizes(vocabulary):
    return {
        "vocab_size": vocabulary,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }


def save(folder, model, config):
    write_json(folder / "config.json", config)
    state = halves(model.state_dict())
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "modules.json", [{"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"} for place, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")])])
    modes = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]}
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": config["hidden_size"]} | modes)


def make_mpnet(folder):
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    words = ["<s>", "<pad>", "</s>", "<unk>", *VOCABULARY, "<mask>"]
    tokenizer = MPNetTokenizer({word: place for place, word in enumerate(words)}, model_max_length=LENGTHS["mpnet"])
    tokenizer.save_pretrained(folder)
    config = {"architectures": ["MPNetModel"], "model_type": "mpnet"} | sizes(len(words)) | {"max_position_embeddings": LENGTHS["mpnet"] + 2, "relative_attention_num_buckets": 32, "pad_token_id": 1}
    save(folder, randomise(MPNetModel(MPNetConfig(**config)), 41), config)


def make_bert(folder):
    from transformers import BertConfig, BertModel

    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))
    write_json(folder / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"})
    write_json(folder / "sentence_bert_config.json", {"do_lower_case": False, "max_seq_length": LENGTHS["bert"]})
    config = {"architectures": ["BertModel"], "model_type": "bert"} | sizes(len(VOCABULARY)) | {"max_position_embeddings": 32, "type_vocab_size": 2, "pad_token_id": 0}
    save(folder, randomise(BertModel(BertConfig(**config)), 43), config)


class Encoder:
    """As `SBERTModel`, with the length that sentence-transformers would give it."""

    def __init__(self, folder, length):
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
        self.length = length

    def embed(self, texts):
        inputs = self.tokenizer(texts, padding=True, truncation=True, max_length=self.length, return_tensors="pt")
        with torch.no_grad():
            hidden = self.model(**inputs)[0]
        mask = inputs.attention_mask.unsqueeze(-1).expand(hidden.size()).float()
        means = torch.sum(hidden * mask, 1) / torch.clamp(mask.sum(1), min=1e-9)
        return F.normalize(means, p=2, dim=1), inputs

    def choose(self, answer, choices):
        """The choice, and by how much it is the nearest."""
        if answer in choices:
            return answer, 1.0
        cosines = self.embed(choices)[0] @ self.embed([answer])[0][0]
        nearest = cosines.topk(2).values
        return choices[cosines.argmax().item()], (nearest[0] - nearest[1]).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("crates/selma-diffusion/tests/fixtures/sentences"))
    out = parser.parse_args().out
    shutil.rmtree(out, ignore_errors=True)
    expected, mapped = {}, {}
    for name, make in [("mpnet", make_mpnet), ("bert", make_bert)]:
        (out / name / "1_Pooling").mkdir(parents=True)
        make(out / name)
        encoder = Encoder(out / name, LENGTHS[name])
        embeddings, inputs = encoder.embed(TEXTS)
        rows = [row[: int(mask.sum())].tolist() for row, mask in zip(inputs.input_ids, inputs.attention_mask)]
        expected |= {f"{name}.embeddings": embeddings, f"{name}.ids": padded(rows, LENGTHS[name])}
        chosen = [encoder.choose(answer, choices) for _, answer, choices in QUESTIONS]
        print(name, "lengths", [len(row) for row in rows], "margins", [round(margin, 3) for _, margin in chosen])
        print(" ".join(encoder.tokenizer.convert_ids_to_tokens(rows[5])))
        mapped[name] = [choice for choice, _ in chosen]
    cases = [{"question": question, "choices": choices, "free_form_vqa": answer} for question, answer, choices in QUESTIONS]
    write_json(out / "tifa.json", [case | {name: mapped[name][place] for name in mapped} for place, case in enumerate(cases)])
    save_file({key: value.contiguous().clone() for key, value in expected.items()}, out / "expected.safetensors")


if __name__ == "__main__":
    main()
