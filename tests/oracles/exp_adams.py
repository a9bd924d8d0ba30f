"""Exponential Adams as a loop: Lagrange polynomials and adaptive quadrature.

Also UniPC with varying coefficients, as its published code computes it.
"""

import math

import numpy as np
from numpy.polynomial import Polynomial
from scipy.integrate import quad


def integrals(chi, lam_s, lam_t, nodes):
    """int_{lam_s}^{lam_t} e^{chi (lam_t - l)} l_k(l) dl, one node after another."""
    out = []
    for k, node in enumerate(nodes):
        basis = Polynomial([1.0])
        for j, other in enumerate(nodes):
            if j != k:
                basis = basis * Polynomial([-(other - lam_s), 1.0]) / (node - other)
        value, _ = quad(
            lambda v, p=basis: np.exp(chi * (lam_t - lam_s - v)) * p(v),
            0.0,
            lam_t - lam_s,
            epsabs=1e-14,
            epsrel=1e-13,
        )
        out.append(value)
    return out


def exp_adams(
    process, ts, predict, x, order, corrector=False, prediction="data", lower=False
):
    data = prediction == "data"
    chi = -1 if data else 1
    alpha, sigma, lam = process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)
    keep, scale = (sigma, alpha) if data else (alpha, -sigma)
    n = len(ts) - 1

    def evaluate(x, i):
        d = predict(x, ts[i])
        return d if data else (x - alpha[i] * d) / sigma[i]

    found = [evaluate(x, 0)]
    for i in range(n):
        p = min(order, i + 1, n - i if lower else order)
        if sigma[i + 1] == 0:
            ratio = alpha[i + 1] / alpha[i]
            return alpha[-1] * found[i] if data else ratio * (x - sigma[i] * found[i])
        nodes = [lam[i - k] for k in range(p)]
        linear = keep[i + 1] / keep[i] * x
        w = integrals(chi, lam[i], lam[i + 1], nodes)
        past = [found[i - k] for k in range(p)]
        new = linear + scale[i + 1] * sum(a * m for a, m in zip(w, past, strict=True))
        if i + 1 < n:
            found.append(evaluate(new, i + 1))
            if corrector:
                w = integrals(chi, lam[i], lam[i + 1], [lam[i + 1], *nodes])
                terms = zip(w, [found[-1], *past], strict=True)
                new = linear + scale[i + 1] * sum(a * m for a, m in terms)
        x = new
    return x


def unipc_vary(process, ts, predict, x, order, lower=False):
    """Data prediction; the corrector's sum as published, with its missing terms."""
    alpha, sigma, lam = process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)
    n = len(ts) - 1
    found = [predict(x, ts[0])]
    for i in range(n):
        p = min(order, i + 1, n - i if lower else order)
        h = lam[i + 1] - lam[i]
        r = [(lam[i - k] - lam[i]) / h for k in range(1, p)] + [1.0]
        c = np.array([[v**k / math.factorial(k + 1) for k in range(p)] for v in r])
        m0 = found[i]
        d = [(found[i - k] - m0) / r[k - 1] for k in range(1, p)]
        base = sigma[i + 1] / sigma[i] * x + alpha[i + 1] * (1 - np.exp(-h)) * m0
        # z phi_2(z), z phi_3(z), ... at z = -h
        terms = [np.expm1(-h)]
        for k in range(1, p + 2):
            terms.append(terms[-1] / -h - 1 / math.factorial(k))
        new = base
        if p > 1:
            inverse = np.linalg.inv(c[:-1, :-1])
            for k in range(p - 1):
                total = sum(inverse[k, j] * d[j] for j in range(p - 1))
                new = new - alpha[i + 1] * terms[k + 1] * total
        if i + 1 < n:
            found.append(predict(new, ts[i + 1]))
            inverse, new, k = np.linalg.inv(c), base, 0
            for k in range(p - 1):
                total = sum(inverse[k, j] * d[j] for j in range(p - 1))
                new = new - alpha[i + 1] * terms[k + 1] * total
            new = new - alpha[i + 1] * terms[p] * inverse[k, -1] * (found[-1] - m0)
        x = new
    return x
