"""Packs CLIP's vocabulary for selma-diffusion, and encodes strings with it by transformers' CLIPTokenizer.

    python tools/clip_vocabulary.py bpe_simple_vocab_16e6.txt.gz

The file is that of OpenAI's CLIP (MIT), as the packages `clip-anytorch` and `open_clip_torch` carry it. What is written, merges.bin, is
two little-endian u16 a merge: the ids of its parts. An id is that of a byte (0 to 255), of a byte at the end of a word (256 to 511), or
512 and the number of an earlier merge.
"""

import argparse
import gzip
import json
import struct
import tempfile
from pathlib import Path

from clip_tokenizer_fixtures import STRINGS, byte_alphabet

# What openai/clip-vit-large-patch14 has: 256 bytes, twice, the merges, and the two special tokens.
VOCABULARY = 49408


def token(content):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def main():
    root = Path(__file__).resolve().parent.parent / "crates/selma-diffusion"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("vocabulary", type=Path)
    args = parser.parse_args()
    lines = gzip.open(args.vocabulary).read().decode().split("\n")[1 : VOCABULARY - 512 - 2 + 1]
    letters = list(byte_alphabet().values())
    ids = {token: i for i, token in enumerate(letters + [letter + "</w>" for letter in letters])}
    packed = b""
    for line in lines:
        left, right = line.split()
        packed += struct.pack("<HH", ids[left], ids[right])
        assert left + right not in ids
        ids[left + right] = len(ids)
    for special in ["<|startoftext|>", "<|endoftext|>"]:
        ids[special] = len(ids)
    assert len(ids) == VOCABULARY
    (root / "src/tokenizer/standard/merges.bin").write_bytes(packed)

    from transformers import CLIPTokenizer

    cases = {"strings": STRINGS, "vocab_size": len(ids)}
    for name, pad in {"sd1": "<|endoftext|>", "sd2": "!"}.items():
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            (folder / "vocab.json").write_text(json.dumps(ids))
            (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
            # As the published pipelines have it.
            special = {"bos_token": token("<|startoftext|>"), "eos_token": token("<|endoftext|>"), "unk_token": token("<|endoftext|>"), "pad_token": pad}
            (folder / "special_tokens_map.json").write_text(json.dumps(special))
            (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 77, "tokenizer_class": "CLIPTokenizer"}))
            tokenizer = CLIPTokenizer.from_pretrained(folder)
        assert tokenizer.pad_token_id == (0 if pad == "!" else VOCABULARY - 1)
        # The ids that every implementation of CLIP gives.
        assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
        # Without the pad tokens at the end, which the count says.
        encoded = [tokenizer(text, truncation=True, max_length=77).input_ids for text in STRINGS]
        cases[name] = {"pad_token_id": tokenizer.pad_token_id, "ids": encoded}
    if cases["sd1"]["ids"] == cases["sd2"]["ids"]:
        raise SystemExit("'!' should be special where it is the pad token")
    (root / "tests/fixtures/standard_tokens.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
