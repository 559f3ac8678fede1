"""Times the diversity filter against loops over rouge_score, rapidfuzz and rougers, all in one run.

    pip install rouge-score==0.1.2 rapidfuzz numpy
    cargo build --release -p selma-benches --example rouge_filter
    python tools/rouge_filter_bench.py target/release/examples/rouge_filter

The prompts are those of tools/rouge_prompts.py. All ways decide the same question (is F with any kept prompt greater than 0.8), each number of
kept prompts is compared, and times are CPU seconds of one thread, so that other work on the machine matters little; `batch` has all threads, and
its time is the clock's. The loops are quadratic: rouge_score is timed on 1,000 prompts and rougers on 4,000, and what 20,000 would take is the time
of one pair by the number of pairs, printed as an estimate. The loop over rouge_score is SELMA's without its pool of 16 processes, which it makes
anew for each prompt (about 0.1 s): tokens are cut once, every pair is scored.
"""

import json
import subprocess
import sys
import tempfile
import time

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import LCSseq
from rouge_prompts import prompts
from rouge_score import rouge_scorer, tokenize


def rouge_score_loop(texts):
    kept, pairs = [], 0
    for text in texts:
        tokens = tokenize.tokenize(text, None)
        scores = [rouge_scorer._score_lcs(other, tokens).fmeasure for other in kept]
        pairs += len(kept)
        if not scores or max(scores) <= 0.8:
            kept.append(tokens)
    return len(kept), pairs


def rapidfuzz_blocks(texts, size=256):
    """Every token a character, so that rapidfuzz compares strings; a block of prompts against all kept ones in one call."""
    letters = {}
    strings = []
    for text in texts:
        tokens = tokenize.tokenize(text, None)
        strings.append("".join(chr(0xE000 + letters.setdefault(token, len(letters))) for token in tokens))
    kept, pairs = [], 0

    def near(queries, targets):
        common = process.cdist(queries, targets, scorer=LCSseq.similarity, dtype=np.uint16).astype(np.float64)
        precision = common / np.array([len(q) for q in queries])[:, None]
        recall = common / np.array([len(t) for t in targets])[None, :]
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(2 * precision * recall / (precision + recall)) > 0.8

    for start in range(0, len(strings), size):
        block = strings[start : start + size]
        far = ~near(block, kept).any(axis=1) if kept else np.ones(len(block), bool)
        inside = near(block, block)
        added = []
        for i in range(len(block)):
            pairs += len(kept) + len(added)
            if far[i] and not inside[i, added].any():
                added.append(i)
        kept += [block[i] for i in added]
    return len(kept), pairs


def timed(name, loop, texts):
    start, clock = time.process_time(), time.perf_counter()
    kept, pairs = loop(texts)
    cpu, wall = time.process_time() - start, time.perf_counter() - clock
    print(f"{name:12} {len(texts):>9,} prompts  {kept:>8,} kept  {cpu:10.2f} s CPU  {wall:10.2f} s clock  {1e9 * cpu / pairs:12,.0f} ns/pair", flush=True)
    return kept, pairs, cpu / pairs


def run(binary, way, path, count):
    done = subprocess.run([binary, way, path, str(count)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def program(binary, way, path, count):
    row = run(binary, way, path, count)
    memory = "" if way != "offer" else f"  {row['bytes']} bytes a kept prompt beyond its text"
    print(f"{way:12} {count:>9,} prompts  {row['kept']:>8,} kept  {row['cpu_seconds']:10.2f} s CPU  {row['seconds']:10.2f} s clock{memory}", flush=True)
    return row


def main():
    binary = sys.argv[1]
    texts = prompts(1_000_000)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(text + "\n" for text in texts)
        file.flush()
        print("one pair, ns:", run(binary, "pairs", file.name, 2000), flush=True)
        kept, _, per_pair = timed("rouge_score", rouge_score_loop, texts[:1000])
        assert kept == program(binary, "offer", file.name, 1000)["kept"]
        row = program(binary, "rougers", file.name, 4000)
        assert row["kept"] == program(binary, "offer", file.name, 4000)["kept"]
        kept, pairs, _ = timed("rapidfuzz", rapidfuzz_blocks, texts[:20_000])
        for count in [20_000, 100_000, 1_000_000]:
            ours = program(binary, "offer", file.name, count)
            assert ours["kept"] == program(binary, "batch", file.name, count)["kept"]
            if count == 20_000:
                assert kept == ours["kept"]
                estimate = pairs * per_pair
                print(f"rouge_score  {count:>9,} prompts  estimate {estimate:,.0f} s, {estimate / ours['cpu_seconds']:,.0f} times ours", flush=True)


if __name__ == "__main__":
    main()
