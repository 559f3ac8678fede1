"""Writes crates/selma-rouge/tests/fixtures/rouge_l.json: ROUGE-L of text pairs as PyPI's rouge_score has it.

    pip install rouge-score==0.1.2
    python tools/make_rouge_fixtures.py

Scores are the 16 hexadecimal digits of the IEEE 754 double, so that a reader cannot round them.
"""

import json
import random
import struct
from pathlib import Path

from rouge_score import rouge_scorer

OUT = Path(__file__).parent.parent / "crates/selma-rouge/tests/fixtures/rouge_l.json"

# Lower-casing into ASCII (İ, the Kelvin sign), final sigma, characters that only look like token characters, the
# separators of Unicode, and texts without tokens.
EDGE = [
    "",
    " ",
    "\t\n\u00a0\u2003\u3000",
    "_",
    "...",
    "a",
    "A",
    "snake_case_name",
    "snake case name",
    "don't stop",
    "dont stop",
    "3.5 metres",
    "35 metres",
    "x2 2x 22",
    "İstanbul at night",
    "istanbul at night",
    "i stanbul at night",
    "\u212Aelvin",
    "kelvin",
    "\u212Bngstrom",
    "ΟΔΟΣ street",
    "οδος street",
    "a Σ b",
    "café au lait",
    "cafe\u0301 au lait",
    "caf au lait",
    "ﬁne ﬂour",
    "fine flour",
    "naïve straße",
    "NAÏVE STRASSE",
    "①②③ １２３",
    "123",
    "红色的猫",
    "красный кот",
    "قطة حمراء",
    "red 猫 cat",
    "red cat",
    "a\u200bb",
    "ab",
    "a\u00adb",
    "a\u2014b",
    "a\u0000b",
    "\U0001f600 smile \U0001f600",
    "smile",
    "\U0001d41a\U0001d41b",
    "ſhort",
    "short",
    "the the the the the",
    "the",
]

WORDS = "a red blue green cube ball on under the table with two small large cats Cat, and-or 4k 8K".split()


def near_pair(rng, length):
    """A text and a copy with a few words removed, replaced, doubled or swapped."""
    text = [rng.choice(WORDS) for _ in range(length)]
    other = list(text)
    for _ in range(rng.randrange(1, 2 + length // 4)):
        i = rng.randrange(len(other))
        action = rng.randrange(4)
        if action == 0 and len(other) > 1:
            del other[i]
        elif action == 1:
            other[i] = rng.choice(WORDS)
        elif action == 2:
            other.insert(i, other[i])
        else:
            j = rng.randrange(len(other))
            other[i], other[j] = other[j], other[i]
    return " ".join(text), " ".join(other)


def tie(lcs, target_len, prediction_len):
    """Texts of the given lengths with the given longest common subsequence."""
    target = [f"w{i}" for i in range(lcs)] + [f"t{i}" for i in range(target_len - lcs)]
    prediction = [f"p{i}" for i in range(prediction_len - lcs)] + [f"w{i}" for i in range(lcs)]
    return " ".join(target), " ".join(prediction)


def pairs():
    rng = random.Random(20240311)
    for text in EDGE:
        yield text, text
    for left, right in zip(EDGE, EDGE[1:]):
        yield left, right
        yield right, left
    # Lengths at which 2 * lcs / (m + n) is exactly 0.8 or 0.7: the floats fall on either side.
    for numerator, denominator in [(8, 10), (7, 10)]:
        for m in range(1, 21):
            for n in range(m, 21):
                lcs, rest = divmod(numerator * (m + n), 2 * denominator)
                if rest == 0 and lcs <= m and rng.random() < 0.6:
                    yield tie(lcs, m, n)
    for length in list(range(1, 40)) * 4 + [63, 64, 65, 127, 128, 129]:
        yield near_pair(rng, length)


def bits(value):
    return struct.pack(">d", value).hex()


def main():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    lines = []
    for target, prediction in pairs():
        score = scorer.score(target, prediction)["rougeL"]
        row = [target, prediction, bits(score.precision), bits(score.recall), bits(score.fmeasure)]
        lines.append(json.dumps(row))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(lines)} pairs, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
