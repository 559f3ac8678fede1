"""Writes crates/selma-rouge/tests/fixtures/rouge_pairs.json: checksums of rouge_score's scores and stems of generated texts.

    pip install rouge-score==0.1.2 nltk==3.10.4
    python tools/make_rouge_pairs.py

The texts are made by the same small generator here and in crates/selma-rouge/tests/rouge_pairs.rs, so that neither they nor their scores need to be
stored: 24,000 pairs with eight scores each, and 60,000 words. A checksum covers a thousand of them, so that a failure says where to look.
"""

import hashlib
import json
import struct
from pathlib import Path

from nltk.stem import porter
from rouge_score import rouge_scorer

OUT = Path(__file__).parent.parent / "crates/selma-rouge/tests/fixtures/rouge_pairs.json"
CHUNK = 1000
PAIRS = 24 * CHUNK
WORDS = 60 * CHUNK

BASES = "hop fall relat electr nation happ conflat tann fizz siz troubl gener adopt hope oper vile geo theo control decis l tr sk fl be agr yy syzyg 12 a".split()
SUFFIXES = (
    "s es ed ing ies ied y ational tional enci anci izer bli abli alli entli eli ousli ization ation ator alism iveness fulness ousness aliti iviti "
    "biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e "
    "ll eed sses ss at bl iz"
).split()
OTHERS = (
    "a the red cat on table skies dying lying tying news innings inning outings cannings howe proceed exceed succeed sky 3.5 don't snake_case caf\u00e9 "
    "\u0130stanbul \u212aelvin \u732b \u017fhort CATS Tables x2"
).split()
GAPS = [" ", " ", " ", " ", ", ", "-", "\t", ". ", "\n"]
LETTERS = "aeiouylszbcdfgnrt1"


class Random:
    """splitmix64."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return (z ^ (z >> 31)) % limit


def word(random):
    kind = random.below(4)
    if kind == 0:
        return BASES[random.below(len(BASES))] + SUFFIXES[random.below(len(SUFFIXES))]
    if kind == 1:
        return OTHERS[random.below(len(OTHERS))]
    # Few words, so that texts repeat themselves and each other.
    return OTHERS[random.below(6)]


def pair(random):
    length = 60 + random.below(80) if random.below(50) == 0 else random.below(25)
    target = [(word(random), GAPS[random.below(len(GAPS))]) for _ in range(length)]
    prediction = []
    unrelated = random.below(4) == 0
    for part in target:
        action = random.below(12)
        if unrelated or action == 0:
            prediction.append((word(random), GAPS[random.below(len(GAPS))]))
        elif action == 1:
            continue
        elif action == 2:
            prediction += [part, part]
        elif action == 3 and prediction:
            prediction.insert(random.below(len(prediction)), part)
        else:
            prediction.append(part)
    return tuple("".join(word + gap for word, gap in text) for text in (target, prediction))


def stemmed_word(random):
    if random.below(3) == 0:
        return "".join(LETTERS[random.below(len(LETTERS))] for _ in range(4 + random.below(7)))
    base = BASES[random.below(len(BASES))] + SUFFIXES[random.below(len(SUFFIXES))]
    return base + SUFFIXES[random.below(len(SUFFIXES))] if random.below(2) == 0 else base + "e"


def checksum(data):
    return hashlib.sha256(data).hexdigest()[:16]


def main():
    scorers = [rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"], use_stemmer=stem) for stem in (False, True)]
    random = Random(1)
    scores = []
    for _ in range(0, PAIRS, CHUNK):
        data = bytearray()
        for _ in range(CHUNK):
            target, prediction = pair(random)
            for scorer in scorers:
                for score in scorer.score(target, prediction).values():
                    data += struct.pack(">3d", score.precision, score.recall, score.fmeasure)
        scores.append(checksum(data))
    random = Random(2)
    stemmer = porter.PorterStemmer()
    stems = []
    for _ in range(0, WORDS, CHUNK):
        words = [stemmed_word(random) for _ in range(CHUNK)]
        words = [stemmer.stem(word) if len(word) > 3 else word for word in words]
        stems.append(checksum(" ".join(words).encode()))
    OUT.write_text(json.dumps({"scores": scores, "stems": stems}, indent=1) + "\n")
    print(f"{PAIRS} pairs, {WORDS} words, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
