"""Writes synthetic prompts, one a line, for tools/rouge_filter_bench.py.

    python tools/rouge_prompts.py 1000000 prompts.txt

Ten templates with slots for nouns (20,000), adjectives (5,000), participles (3,000), places (4,000) and styles (600); each slot draws a word
by Zipf's law (frequency 1 / rank). Function words stand in the templates, so that about half of all tokens are among the commonest. One prompt
in seven is a copy of an earlier one with one or two words replaced, left out, doubled or swapped. The mean is 12 tokens. The same count and
seed give the same bytes, and a longer file begins with a shorter one.
"""

import random
import sys
from bisect import bisect
from itertools import accumulate

TEMPLATES = """
a {a} {n} {v} a {a} {n} in the {p}
{k} {a} {n}s on a {a} {n}, {s}
a photo of a {n} and a {n} {v} near the {p}
the {a} {n} of a {n} with {k} {n}s, {s}, {s}
a {n} made of {n}, {v} in a {a} {p}, {s}
portrait of a {a} {n} with a {a} {n} and {a} {n}, {s}
{a} {p} with a {n} to the left of a {a} {n}
a {a} {n} and {k} {a} {n}s {v} on the {n} at the {p} during a {a} {n}
close up of a {n} {v} under a {n}
an illustration of the {n} that is {v} a {a} {n} while the {n} is {v}, {s}
""".strip().splitlines()
SIZES = {"n": 20000, "a": 5000, "v": 3000, "p": 4000, "s": 600}
NUMBERS = "two three four five six seven".split()
SYLLABLES = [c + v + e for c in "b d f g k l m n p r s t v z br st gl tr ch".split() for v in "aeiou" for e in ["", "n", "r", "l", "st"]]


def vocabulary(rng, size, ending, taken):
    words = []
    while len(words) < size:
        word = "".join(rng.choice(SYLLABLES) for _ in range(rng.choice([1, 2, 2, 3, 3]))) + ending
        if word not in taken:
            taken.add(word)
            words.append(word)
    return words


def change(rng, text):
    words = text.split()
    for _ in range(rng.choice([1, 1, 2])):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        action = rng.randrange(4)
        if action == 0 and len(words) > 4:
            del words[i]
        elif action == 1:
            words[i] = words[j]
        elif action == 2:
            words.insert(i, words[j])
        else:
            words[i], words[j] = words[j], words[i]
    return " ".join(words)


def prompts(count, seed=5):
    rng = random.Random(seed)
    taken = set()
    words = {k: vocabulary(rng, n, {"v": "ing", "a": "y"}.get(k, ""), taken) for k, n in SIZES.items()}
    weights = {k: list(accumulate(1 / rank for rank in range(1, n + 1))) for k, n in SIZES.items()}
    words["k"], weights["k"] = NUMBERS, list(accumulate(1 / rank for rank in range(1, 7)))
    templates = []
    for template in TEMPLATES:
        parts = template.replace("{", "\0{").replace("}", "}\0").split("\0")
        templates.append([(part[1], True) if part.startswith("{") else (part, False) for part in parts if part])
    texts = []
    for _ in range(count):
        if texts and rng.random() < 1 / 7:
            texts.append(change(rng, texts[rng.randrange(len(texts))]))
            continue
        out = []
        for part, is_slot in rng.choice(templates):
            if is_slot:
                table = weights[part]
                part = words[part][bisect(table, rng.random() * table[-1])]
            out.append(part)
        texts.append("".join(out))
    return texts


if __name__ == "__main__":
    with open(sys.argv[2], "w") as file:
        file.writelines(text + "\n" for text in prompts(int(sys.argv[1])))
