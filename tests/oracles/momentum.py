"""Naive loops of the momentum samplers, from the paper's algorithms."""

import math

import numpy as np

from .pndm import ADAMS, noise, scales, transfer


def _split(order):
    whole = order == math.floor(order)
    return math.ceil(order), 1.0 if whole else order - math.floor(order)


def _first(process, predict, x, t, initial):
    a, s = scales(process, t)
    e = noise(process, predict, x, t)
    d = predict(x, t)
    return {"noise": e, "data": d, "velocity": a * e - s * d}[initial]


def _adams(seen, count):
    count = min(count, len(seen))
    return sum(w * e for w, e in zip(ADAMS[count], seen[:count], strict=True))


def ball(process, ts, predict, x, order=1.8, initial="noise", nesterov=False):
    count, beta = _split(order)
    v, seen = _first(process, predict, x, ts[0], initial), []
    for s, t in zip(ts[:-1], ts[1:], strict=True):
        seen.insert(0, noise(process, predict, x, s))
        prime = _adams(seen, count)
        v = (1 - beta) * v + beta * prime
        g = (1 - beta) * v + beta * prime if nesterov else v
        x = transfer(process, x, s, t, g)
    return x


def hb(process, ts, predict, x, **options):
    return ball(process, ts, predict, x, **options)


def nt(process, ts, predict, x, **options):
    return ball(process, ts, predict, x, nesterov=True, **options)


def combination(velocities, beta):
    """The paper's table: polynomials in beta over the velocities, newest first."""
    b = beta
    table = {
        1: [b],
        2: [(2 + b) / 2, -(2 - b) / 2],
        3: [(18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12],
        4: [
            (46 + 9 * b) / 24,
            -(78 - 19 * b) / 24,
            (42 - 5 * b) / 24,
            -(10 - b) / 24,
        ],
        5: [
            (1650 + 251 * b) / 720,
            -(3420 - 646 * b) / 720,
            (2880 - 264 * b) / 720,
            -(1380 - 106 * b) / 720,
            (270 - 19 * b) / 720,
        ],
    }[len(velocities)]
    return sum(w / b * v for w, v in zip(table, velocities, strict=True))


def ghvb(process, ts, predict, x, order=1.8, initial="noise"):
    count, beta = _split(order)
    v, seen = _first(process, predict, x, ts[0], initial), []
    for s, t in zip(ts[:-1], ts[1:], strict=True):
        v = (1 - beta) * v + beta * noise(process, predict, x, s)
        seen.insert(0, v)
        x = transfer(process, x, s, t, combination(seen[:count], beta))
    return x


def dpmpp_2m_hb(process, ts, predict, x, beta=0.8, lower=False):
    with np.errstate(divide="ignore"):
        lam = process.half_log_snr(ts)
    v = old = None
    n = len(ts) - 1
    for i in range(n):
        d, h = predict(x, ts[i]), lam[i + 1] - lam[i]
        g = d
        if i > 0 and not np.isinf(h) and not (lower and i == n - 1):
            bracket = d + (d - old) * h / (lam[i] - lam[i - 1]) / 2
            v = bracket if v is None else (1 - beta) * v + beta * bracket
            g = v
        (_, s0), (a1, s1) = scales(process, ts[i]), scales(process, ts[i + 1])
        x = s1 / s0 * x - a1 * np.expm1(-h) * g
        old = d
    return x
