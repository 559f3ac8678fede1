#!/usr/bin/env python3
"""Makes crates/selma-eval/tests/fixtures/stats.json: quantiles by numpy; bootstrap intervals and permutation tests, for
values in clusters, and rank correlations by scipy; McNemar's tests and Holm's correction by statsmodels; Krippendorff's
alpha by krippendorff; Bradley-Terry strengths by scipy's optimizer. Random intervals come with the tolerance that follows
from their own spread.

Usage: python3 tools/make_stats_fixtures.py   (needs numpy, scipy, statsmodels and krippendorff)
"""
import json
from pathlib import Path

import krippendorff
import numpy as np
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

OUT = Path(__file__).resolve().parent.parent / "crates/selma-eval/tests/fixtures/stats.json"
RESAMPLES = 5_000  # what the test draws


def ratio(sums, counts, axis=-1):
    return np.sum(sums, axis=axis) / np.sum(counts, axis=axis)


def difference(a, b, counts, axis=-1):
    return (np.sum(a, axis=axis) - np.sum(b, axis=axis)) / np.sum(counts, axis=axis)


def interval(data, statistic, confidence, resamples, seed, method):
    # Clusters are resampled whole: the positions are the sample.
    def of(index, axis=-1):
        return statistic(*(column[index] for column in data), axis=axis)

    result = stats.bootstrap((np.arange(len(data[0])),), of, vectorized=True, method=method, batch=2000,
                             confidence_level=confidence, n_resamples=resamples, rng=np.random.default_rng(seed))
    return [result.confidence_interval.low, result.confidence_interval.high]


def reference(data, statistic, confidence, method="percentile"):
    """The interval of many resamples, and four standard deviations of what RESAMPLES of them give."""
    low, high = interval(data, statistic, confidence, 200_000, 0, method)
    spread = np.std([interval(data, statistic, confidence, RESAMPLES, seed, method) for seed in range(1, 21)], axis=0)
    return {"method": method.lower(), "confidence": confidence, "low": low, "high": high,
            "tolerance": 4 * float(spread.max())}


def correlations(rng):
    cases = []
    for n, levels in [(5, 100), (12, 3), (40, 5), (200, 1000)]:
        x = rng.integers(levels, size=n).astype(float)
        y = np.round(0.5 * x + rng.normal(size=n) * levels / 4)
        rho = stats.spearmanr(x, y)
        tau = stats.kendalltau(x, y, method="asymptotic")
        cases.append({"x": x.tolist(), "y": y.tolist(), "spearman": float(rho.statistic), "spearman_p": float(rho.pvalue),
                      "kendall": float(tau.statistic), "kendall_p": float(tau.pvalue)})
    return cases


def mcnemar_tests():
    cases = []
    for first, second in [(1, 0), (3, 9), (25, 11), (40, 41), (120, 180)]:
        table = [[7, first], [second, 5]]
        chi_square = mcnemar(table, exact=False, correction=True)
        cases.append({"first": first, "second": second, "p_exact": float(mcnemar(table, exact=True).pvalue),
                      "chi_square": float(chi_square.statistic), "p_chi_square": float(chi_square.pvalue)})
    return cases


def holm(rng):
    cases = [rng.beta(0.4, 2, size=n) for n in [1, 4, 15]] + [np.array([0.02, 0.02, 0.01, 0.9])]
    return [{"p": p.tolist(), "holm": multipletests(p, method="holm")[1].tolist()} for p in cases]


def alphas(rng):
    """Units by raters who guess with a bias, or know, or did not answer (-1)."""
    cases = []
    for raters, units, known, missing in [(2, 12, 0.5, 0), (3, 30, 0.7, 0.2), (5, 20, 0.1, 0.5)]:
        truth = rng.integers(3, size=units)
        labels = np.where(rng.random((raters, units)) < known, truth, rng.choice(3, size=(raters, units), p=[.5, .2, .3]))
        labels = np.where(rng.random((raters, units)) < missing, -1, labels)
        data = np.where(labels < 0, np.nan, labels.astype(float))
        alpha = krippendorff.alpha(reliability_data=data, level_of_measurement="nominal")
        cases.append({"units": [[int(v) for v in unit if v >= 0] for unit in labels.T], "alpha": float(alpha)})
    return cases


def strengths(rng):
    """The peak of the likelihood of Bradley and Terry, found by Newton's method."""
    cases = []
    for models in [2, 3, 6]:
        wins = rng.integers(1, 20, size=(models, models)) + 0.5 * rng.integers(2, size=(models, models))
        wins *= 1 - np.eye(models)

        def loss(free):
            logs = np.append(free, -free.sum())
            return float((wins * np.logaddexp(0, logs[None, :] - logs[:, None])).sum())

        free = optimize.minimize(loss, np.zeros(models - 1), tol=1e-14, method="BFGS").x
        cases.append({"wins": wins.tolist(), "strengths": np.append(free, -free.sum()).tolist()})
    return cases


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
        for method in ["percentile", "BCa"]:
            means.append(case | {"mean": float(ratio(a, counts))} | reference((a, counts), ratio, confidence, method))
        test = stats.permutation_test((a, b), lambda x, y, axis=-1: difference(x, y, counts, axis), vectorized=True,
                                      permutation_type="samples", n_resamples=10**5, rng=np.random.default_rng(0))
        pairs.append(case | {"difference": float(difference(a, b, counts)), "p": float(test.pvalue), "exact": n <= 16}
                     | reference((a, b, counts), difference, confidence))

    # Skewed, so that the methods differ by more than their tolerance.
    counts, sums = np.ones(25, dtype=int), np.round(np.random.default_rng(7).lognormal(sigma=1.5, size=25), 4)
    skewed = [{"counts": counts.tolist(), "a": sums.tolist(), "mean": float(ratio(sums, counts))}
              | reference((sums, counts), ratio, 0.95, method) for method in ["percentile", "BCa"]]
    assert skewed[1]["high"] - skewed[1]["tolerance"] > skewed[0]["high"] + skewed[0]["tolerance"]

    fixture = {"resamples": RESAMPLES, "quantiles": quantiles, "means": means + skewed, "pairs": pairs,
               "correlations": correlations(rng), "mcnemar": mcnemar_tests(), "holm": holm(rng),
               "krippendorff": alphas(rng), "bradley_terry": strengths(rng)}
    OUT.write_text(json.dumps(fixture) + "\n")


if __name__ == "__main__":
    main()
