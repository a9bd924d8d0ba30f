"""Naive loops of the pseudo-linear multistep family, from the papers' formulas.

Each takes (process, ts, predict_data, x) with NumPy arrays and knows nothing of plans.
"""

import numpy as np

ADAMS = {
    1: [1.0],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    5: [1901 / 720, -2774 / 720, 2616 / 720, -1274 / 720, 251 / 720],
}


def scales(process, t):
    return float(process.alpha(t)), float(process.sigma(t))


def noise(process, predict, x, t):
    a, s = scales(process, t)
    return (x - a * predict(x, t)) / s


def transfer(process, x, s, t, e):
    """The paper's phi: predict the data with e, then noise it again with e."""
    (a0, s0), (a1, s1) = scales(process, s), scales(process, t)
    return a1 * (x - s0 * e) / a0 + s1 * e


def combine(seen, order):
    order = min(order, len(seen))
    return sum(w * e for w, e in zip(ADAMS[order], seen[:order], strict=True))


def ipndm(process, ts, predict, x, order=4):
    seen = []
    for s, t in zip(ts[:-1], ts[1:], strict=True):
        if scales(process, s)[0] == 0:  # pure noise: DDIM, and its E is not kept
            a1, s1 = scales(process, t)
            x = a1 * predict(x, s) + s1 * x / scales(process, s)[1]
            continue
        seen.insert(0, noise(process, predict, x, s))
        x = transfer(process, x, s, t, combine(seen, order))
    return x


def ipndm_v(process, ts, predict, x, order=4):
    """Undetermined coefficients: exact for 1, r, ..., r^(p-1) on the nodes."""
    rho = [scales(process, t)[1] / scales(process, t)[0] for t in ts]
    seen = []
    for i in range(len(ts) - 1):
        seen.insert(0, noise(process, predict, x, ts[i]))
        p = min(order, i + 1)
        h = rho[i + 1] - rho[i]
        r = np.array([(rho[i - k] - rho[i]) / h for k in range(p)])
        system = np.stack([r**m for m in range(p)])
        weights = np.linalg.solve(system, 1 / np.arange(1, p + 1))
        e = sum(w * v for w, v in zip(weights, seen[:p], strict=True))
        x = transfer(process, x, ts[i], ts[i + 1], e)
    return x


def plms(process, ts, predict, x, order=4, average="noise"):
    seen = []

    def network(x, t):
        if average == "noise":
            return noise(process, predict, x, t)
        a, s = scales(process, t)
        return a * noise(process, predict, x, t) - s * predict(x, t)

    def move(x, s, t, m):
        if average == "velocity":
            a0, s0 = scales(process, s)
            m = (s0 * x + a0 * m) / (a0**2 + s0**2)
        return transfer(process, x, s, t, m)

    for i, (s, t) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        seen.insert(0, network(x, s))
        if i == 0 and scales(process, t)[1] > 0:
            again = network(move(x, s, t, seen[0]), t)
            x = move(x, s, t, (seen[0] + again) / 2)
        else:
            x = move(x, s, t, combine(seen, order))
    return x


def s_pndm(process, ts, predict, x):
    return plms(process, ts, predict, x, order=2)


def f_pndm(process, ts, predict, x):
    seen = []
    for i, (s, t) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        e1 = noise(process, predict, x, s)
        seen.insert(0, e1)
        e = combine(seen, 4)
        if i < 3 and scales(process, t)[1] > 0:
            m = (s + t) / 2
            e2 = noise(process, predict, transfer(process, x, s, m, e1), m)
            e3 = noise(process, predict, transfer(process, x, s, m, e2), m)
            e4 = noise(process, predict, transfer(process, x, s, t, e3), t)
            e = (e1 + 2 * e2 + 2 * e3 + e4) / 6
        x = transfer(process, x, s, t, e)
    return x
