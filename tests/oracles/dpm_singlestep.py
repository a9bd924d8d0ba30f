"""Singlestep DPM-Solver(++) and its adaptive form as naive loops, from the papers.

2206.00927: algorithms 1 and 2, the Taylor forms of appendix B, adaptive steps of
appendix C. 2211.01095: algorithm 1. One function per printed update, plain NumPy.
"""

import numpy as np

# A path is (alpha, sigma, lam, time_of_lam); a model is (x, alpha, sigma) -> D.


def noise(path, model, x, t):
    alpha, sigma = path[0](t), path[1](t)
    return (x - alpha * model(x, alpha, sigma)) / sigma


def data(path, model, x, t):
    return model(x, path[0](t), path[1](t))


def one(path, model, x, s, t, kind, known=None):
    a, g, lam, _ = path
    h = lam(t) - lam(s)
    if kind == "noise":
        e = noise(path, model, x, s) if known is None else known[0]
        return a(t) / a(s) * x - g(t) * np.expm1(h) * e
    d = data(path, model, x, s) if known is None else known[0]
    return g(t) / g(s) * x - a(t) * np.expm1(-h) * d


def stage(path, x, s, t, m, kind):
    return one(path, None, x, s, t, kind, known=(m,))


def two(path, model, x, s, t, kind, r=0.5, taylor=False, place=None, known=None):
    """One step of order 2; `known` are evaluations already made."""
    a, g, lam, inverse = path
    h = lam(t) - lam(s)
    s1 = inverse(lam(s) + r * h) if place is None else place(s, t, r)
    r = (lam(s1) - lam(s)) / h
    get = noise if kind == "noise" else data
    if known is None:
        m0 = get(path, model, x, s)
        m1 = get(path, model, stage(path, x, s, s1, m0, kind), s1)
    else:
        m0, m1 = known[:2]
    if kind == "noise":
        half = (np.expm1(h) / h - 1) / r if taylor else np.expm1(h) / (2 * r)
        return a(t) / a(s) * x - g(t) * (np.expm1(h) * m0 + half * (m1 - m0))
    half = -(np.expm1(-h) / h + 1) / r if taylor else np.expm1(-h) / (2 * r)
    return g(t) / g(s) * x - a(t) * (np.expm1(-h) * m0 + half * (m1 - m0))


def three(path, model, x, s, t, kind, r=(1 / 3, 2 / 3), taylor=False, place=None,
          midpoint=False, seen=None):  # fmt: skip
    """One step of order 3; `seen` collects the evaluations."""
    a, g, lam, inverse = path
    h = lam(t) - lam(s)
    at = [inverse(lam(s) + v * h) if place is None else place(s, t, v) for v in r]
    r1, r2 = ((lam(v) - lam(s)) / h for v in at)
    get = noise if kind == "noise" else data
    m0 = get(path, model, x, s)
    m1 = get(path, model, stage(path, x, s, at[0], m0, kind), at[0])
    z = r2 * h
    u = stage(path, x, s, at[1], m0, kind)
    if kind == "noise":
        slope = np.expm1(z) / 2 if midpoint else np.expm1(z) / z - 1
        u = u - g(at[1]) * r2 / r1 * slope * (m1 - m0)
    else:
        slope = -np.expm1(-z) / 2 if midpoint else np.expm1(-z) / z + 1
        u = u + a(at[1]) * r2 / r1 * slope * (m1 - m0)
    m2 = get(path, model, u, at[1])
    if seen is not None:
        seen.extend([m0, m1, m2])
    out = stage(path, x, s, t, m0, kind)
    sign = 1 if kind == "noise" else -1
    p2 = np.expm1(sign * h) / h - sign
    p3 = p2 / h - 0.5
    if not taylor:
        return out - (g(t) if kind == "noise" else -a(t)) * p2 / r2 * (m2 - m0)
    first, second = (m1 - m0) / r1, (m2 - m0) / r2
    d1 = (r2 * first - r1 * second) / (r2 - r1)
    d2 = 2 * (second - first) / (r2 - r1)
    if kind == "noise":
        return out - g(t) * (p2 * d1 + p3 * d2)
    return out + a(t) * (p2 * d1 - p3 * d2)


STEPS = {1: one, 2: two, 3: three}


def run(path, model, x, ts, orders, kind, **options):
    """Outer steps of the given orders."""
    for s, t, order in zip(ts[:-1], ts[1:], orders, strict=True):
        x = STEPS[order](path, model, x, s, t, kind, **options if order > 1 else {})
    return x


def shared(path, model, x, ts, orders, kind, **options):
    """Consecutive times are the stages."""
    at = 0
    for order in orders:
        nodes = ts[at : at + order + 1]
        at += order
        if order == 1:
            x = one(path, model, x, nodes[0], nodes[1], kind)
            continue
        place = lambda s, t, v, n=nodes: n[v]  # noqa: E731
        r = 1 if order == 2 else (1, 2)
        step = STEPS[order]
        x = step(path, model, x, nodes[0], nodes[-1], kind, r, place=place, **options)
    return x


def adaptive(path, model, x, start, end, kind, *, order=3, rtol=0.05, atol=0.0078,
             h=0.05, theta=0.9):  # fmt: skip
    """Appendix C for one system x (any shape): (x, evaluations, accepted, rejected)."""
    _, _, lam, inverse = path
    s, before = start, x
    nfe = accepted = rejected = 0
    while lam(end) - lam(s) > 1e-10:
        h = min(h, lam(end) - lam(s))
        t = inverse(lam(s) + h)
        seen = []
        if order == 3:
            high = three(path, model, x, s, t, kind, seen=seen)
            low = two(path, model, x, s, t, kind, r=1 / 3, known=seen)
        else:
            high, low = two(path, model, x, s, t, kind), one(path, model, x, s, t, kind)
        delta = np.maximum(atol, rtol * np.maximum(np.abs(low), np.abs(before)))
        error = np.sqrt(np.mean(((high - low) / delta) ** 2))
        nfe += order
        if error <= 1:
            x, before, s, accepted = high, low, t, accepted + 1
        else:
            rejected += 1
        h = theta * h * error ** (-1 / order)
    return x, nfe, accepted, rejected
