"""Finds the polynomial R with which selma-kernels computes the normal distribution function:

    Phi(-a) = exp(-a^2/2) t R(t),   t = 1 / (1 + 0.35 a),   0 <= a <= 15

    python tools/fit_normal_cdf.py

Minimax in the relative error, by iteratively reweighted least squares (Lawson) in Chebyshev polynomials. Needs numpy and mpmath.
"""

import numpy as np
from mpmath import erfc, exp, mp, mpf, sqrt

SCALE, DEGREE, LARGEST, POINTS = 0.35, 8, 15.0, 600


def main():
    mp.dps = 40
    smallest = 1 / (1 + SCALE * LARGEST)
    nodes = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
    t = smallest + (1 - smallest) * (0.5 + 0.5 * nodes)
    a = [(1 / mpf(v) - 1) / mpf(SCALE) for v in t]
    y = np.array([float(exp(v**2 / 2) * erfc(v / sqrt(mpf(2))) / 2 / mpf(u)) for v, u in zip(a, t)])
    columns = np.polynomial.chebyshev.chebvander(nodes, DEGREE) / y[:, None]
    weights = np.ones(POINTS)
    for _ in range(200):
        root = np.sqrt(weights)
        fit = np.linalg.lstsq(columns * root[:, None], root, rcond=None)[0]
        error = np.abs(columns @ fit - 1)
        weights = weights * error / (weights * error).sum()
    polynomial = np.polynomial.chebyshev.Chebyshev(fit, domain=[smallest, 1]).convert(kind=np.polynomial.Polynomial)
    print("largest relative error", error.max())
    for power, c in enumerate(polynomial.coef):
        print(power, np.float32(c))


if __name__ == "__main__":
    main()
