"""Exponential Runge-Kutta as loops over u' = L u + N, from the papers' own formulas.

Data prediction: u = x / alpha, L = -1, N = D. Noise prediction: u = x / sigma, L = +1,
N = -E. The phi functions are quadratures of their definition, not recurrences.
"""

import math

import numpy as np


def phi(k, z):
    s, w = np.polynomial.legendre.leggauss(40)
    s, w = (s + 1) / 2, w / 2
    return float((w * np.exp((1 - s) * z) * s ** (k - 1)).sum() / math.factorial(k - 1))


def res_2(n, u, lam, h, z, c2=0.5):
    first = n(u, lam)
    second = n(np.exp(c2 * z) * u + c2 * h * phi(1, c2 * z) * first, lam + c2 * h)
    return np.exp(z) * u + h * (phi(1, z) * first + phi(2, z) / c2 * (second - first))


def etdrk2(n, u, lam, h, z):
    first = n(u, lam)
    a = np.exp(z) * u + h * first * (np.exp(z) - 1) / z
    return a + h * (n(a, lam + h) - first) * (np.exp(z) - 1 - z) / z**2


def _three(n, u, lam, h, z, c2, c3, gamma):
    n1 = n(u, lam)
    n2 = n(np.exp(c2 * z) * u + c2 * h * phi(1, c2 * z) * n1, lam + c2 * h)
    lean = gamma * c2 * phi(2, c2 * z) + c3**2 / c2 * phi(2, c3 * z)
    stage = np.exp(c3 * z) * u + c3 * h * phi(1, c3 * z) * n1 + h * lean * (n2 - n1)
    n3 = n(stage, lam + c3 * h)
    mixed = (gamma * (n2 - n1) + (n3 - n1)) / (gamma * c2 + c3)
    return np.exp(z) * u + h * (phi(1, z) * n1 + phi(2, z) * mixed)


def res_3(n, u, lam, h, z, c2=0.5, c3=1.0, printed=False):
    """`printed` takes gamma as the papers print it, with c3 cubed."""
    top = 3 * c3**3 - 2 * c3 if printed else 3 * c3**2 - 2 * c3
    return _three(n, u, lam, h, z, c2, c3, top / (c2 * (2 - 3 * c2)))


def ho_3(n, u, lam, h, z, c2=1 / 3):
    return _three(n, u, lam, h, z, c2, 2 / 3, 0.0)


def _cox_matthews_end(u, h, z, n0, na, nb, nc):
    e = np.exp(z)
    f1 = (-4 - z + e * (4 - 3 * z + z**2)) / z**3
    f2 = (2 + z + e * (z - 2)) / z**3
    f3 = (-4 - 3 * z - z**2 + e * (4 - z)) / z**3
    return e * u + h * (f1 * n0 + 2 * f2 * (na + nb) + f3 * nc)


def etdrk4(n, u, lam, h, z):
    half = np.exp(z / 2)
    q = (half - 1) / z
    n0 = n(u, lam)
    a = half * u + h * q * n0
    na = n(a, lam + h / 2)
    nb = n(half * u + h * q * na, lam + h / 2)
    nc = n(half * a + h * q * (2 * nb - n0), lam + h)
    return _cox_matthews_end(u, h, z, n0, na, nb, nc)


def krogstad(n, u, lam, h, z):
    half, e = np.exp(z / 2), np.exp(z)
    n1 = n(u, lam)
    n2 = n(half * u + h / 2 * phi(1, z / 2) * n1, lam + h / 2)
    third = half * u + h / 2 * phi(1, z / 2) * n1 + h * phi(2, z / 2) * (n2 - n1)
    n3 = n(third, lam + h / 2)
    fourth = e * u + h * phi(1, z) * n1 + 2 * h * phi(2, z) * (n3 - n1)
    n4 = n(fourth, lam + h)
    return _cox_matthews_end(u, h, z, n1, n2, n3, n4)


def loop(rule, process, ts, predict, x, prediction="data", **options):
    """Any rule, on the process; steps with an infinite h are DDIM's."""
    data = prediction == "data"
    alpha, sigma, lams = process.alpha(ts), process.sigma(ts), process.half_log_snr(ts)
    for i in range(len(ts) - 1):
        h = lams[i + 1] - lams[i]
        if not np.isfinite(h):
            d = predict(x, ts[i])
            direction = sigma[i + 1] / sigma[i]
            x = alpha[i + 1] * d + direction * (x - alpha[i] * d)
            continue

        def n(u, lam):
            t = process.half_log_snr_inverse(lam)
            a, s = process.alpha(t), process.sigma(t)
            if data:
                return predict(a * u, t)
            return -(u - a / s * predict(s * u, t))

        scale = alpha if data else sigma
        u = rule(n, x / scale[i], lams[i], h, -h if data else h, **options)
        x = scale[i + 1] * u
    return x
