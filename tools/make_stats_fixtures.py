#!/usr/bin/env python3
"""Makes crates/selma-eval/tests/fixtures/stats.json: quantiles by numpy, bootstrap intervals and permutation tests by
scipy, for values in clusters. Random intervals come with the tolerance that follows from their own spread.

Usage: python3 tools/make_stats_fixtures.py   (needs numpy and scipy)
"""
import json
from pathlib import Path

import numpy as np
from scipy import stats

OUT = Path(__file__).resolve().parent.parent / "crates/selma-eval/tests/fixtures/stats.json"
RESAMPLES = 5_000  # what the test draws


def ratio(sums, counts, axis=-1):
    return np.sum(sums, axis=axis) / np.sum(counts, axis=axis)


def difference(a, b, counts, axis=-1):
    return (np.sum(a, axis=axis) - np.sum(b, axis=axis)) / np.sum(counts, axis=axis)


def interval(data, statistic, confidence, resamples, seed):
    result = stats.bootstrap(data, statistic, paired=True, vectorized=True, method="percentile", batch=2000,
                             confidence_level=confidence, n_resamples=resamples, rng=np.random.default_rng(seed))
    return [result.confidence_interval.low, result.confidence_interval.high]


def reference(data, statistic, confidence):
    """The interval of many resamples, and four standard deviations of what RESAMPLES of them give."""
    low, high = interval(data, statistic, confidence, 200_000, 0)
    spread = np.std([interval(data, statistic, confidence, RESAMPLES, seed) for seed in range(1, 21)], axis=0)
    return {"confidence": confidence, "low": low, "high": high, "tolerance": 4 * float(spread.max())}


def main():
    rng = np.random.default_rng(7)
    quantiles = []
    for n in [1, 2, 5, 40]:
        values = np.round(rng.normal(size=n), 6)
        for q in [0.0, 0.025, 0.3, 0.5, 0.975, 1.0]:
            quantiles.append({"values": values.tolist(), "q": q, "quantile": float(np.quantile(values, q))})

    # Two models on the same prompts: an easy or hard prompt is so for both.
    means, pairs = [], []
    for n, confidence in [(12, 0.9), (80, 0.95)]:
        counts = rng.integers(1, 12, size=n)
        ease = rng.beta(3, 1, size=n)
        a = rng.binomial(counts, np.clip(ease + 0.08, 0, 1)).astype(float)
        b = rng.binomial(counts, ease).astype(float)
        case = {"counts": counts.tolist(), "a": a.tolist(), "b": b.tolist()}
        means.append(case | {"mean": float(ratio(a, counts))} | reference((a, counts), ratio, confidence))
        test = stats.permutation_test((a, b), lambda x, y, axis=-1: difference(x, y, counts, axis), vectorized=True,
                                      permutation_type="samples", n_resamples=10**5, rng=np.random.default_rng(0))
        pairs.append(case | {"difference": float(difference(a, b, counts)), "p": float(test.pvalue), "exact": n <= 16}
                     | reference((a, b, counts), difference, confidence))

    OUT.write_text(json.dumps({"resamples": RESAMPLES, "quantiles": quantiles, "means": means, "pairs": pairs}) + "\n")


if __name__ == "__main__":
    main()
