"""USF's update, step by step with everything kept, from the paper's formulas."""

import math

import numpy as np


def moment(k, h, chi):
    """h phi_k(chi h), by quadrature."""
    u, w = np.polynomial.legendre.leggauss(40)
    u = (u + 1) / 2
    f = np.exp((1 - u) * chi * h) * u ** (k - 1) / math.factorial(k - 1)
    return h * (f * w).sum() / 2


def relaxed(name, h, chi, slope):
    g = chi * h
    e = math.expm1(g)
    return {
        "none": 1.0,
        "linear": 1 + slope * h,
        "dpmsolver-2": 0.5 * g * e / (e - g),
        "unipc-bh2": 0.5 * g * e / (e - g),
        "unipc-bh1": 0.5 * g**2 / (e - g),
        "+.5exp": 1 + 0.5 * e,
        "-.5exp": 1 - 0.5 * e,
    }[name]


def usf(process, schedule, predict, x):
    """Rows with their decisions; `predict(x, alpha, sigma)` is the data prediction."""
    times = schedule.times
    a, s, lam = process.alpha(times), process.sigma(times), process.half_log_snr(times)
    states, values = [x], {"data": [], "noise": []}
    before = None

    def update(i, extra):
        row = schedule.rows[i]
        base, end = i + 1 - row.start, i + 1
        m = values[row.prediction]
        chi = -1 if row.prediction == "data" else 1
        h = lam[end] - lam[base]
        keep = (s if chi < 0 else a)[end] / (s if chi < 0 else a)[base]
        scale = a[end] if chi < 0 else -s[end]
        nodes = row.nodes
        if nodes is None:
            newest = [k for k in range(i + 1) if k != row.start - 1]
            nodes = [newest[: row.order - 1]] * (row.order - 1)
        sets = [[i - k for k in q] for q in nodes]
        if extra:
            union = sorted({j for q in sets for j in q})
            sets = [[*q, end] for q in [*sets, union]]
        total = moment(1, h, chi) * m[base]
        for n, q in enumerate(sets, 1):
            delta = lam[q] - lam[base]
            table = [delta**p / math.factorial(p) for p in range(1, len(q) + 1)]
            unit = np.arange(1, len(q) + 1) == n
            weight = np.linalg.solve(np.array(table), unit.astype(float))
            slope = sum(w * (m[j] - m[base]) for w, j in zip(weight, q, strict=True))
            kind = row.corrector_relaxation if extra else row.relaxation
            factor = relaxed(kind, h, chi, row.slope) if n == 1 else 1.0
            total = total + h**n * moment(n + 1, h, chi) * factor * slope
        return keep * states[base] + scale * total

    for i, row in enumerate(schedule.rows):
        point = states[i]
        d = predict(point, a[i], s[i])
        values["data"].append(d)
        values["noise"].append((point - a[i] * d) / s[i])
        if before is not None and before.corrector == "pseudo":
            states[i] = update(i - 1, True)
        states.append(update(i, False))
        before = row
    return states[-1]
