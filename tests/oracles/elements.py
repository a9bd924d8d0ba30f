"""Schedules and solvers with a time per element, as loops over the elements."""

import numpy as np


def block_rows(steps, blocks, lag, ready=0):
    """Progress of each block, row after row: a block follows the one before it.

    A block that follows a finished one (or none) takes one more step; any other stands
    `lag` steps behind its neighbour. Ends when all are done.
    """
    now = [steps] * ready + [0] * (blocks - ready)
    rows = [list(now)]
    while min(now) < steps:
        new = []
        for b in range(blocks):
            if b == 0 or now[b - 1] >= steps:
                found = now[b] + 1
            else:
                found = new[b - 1] - lag
            new.append(min(max(found, 0), steps))
        now = new
        rows.append(list(now))
    return np.array(rows)


def pyramid_rows(steps, frames, u):
    """Remaining levels K[m, f], counting down to 0 = clean."""
    height = steps + int((frames - 1) * u) + 1
    out = np.zeros((height, frames), int)
    for m in range(height):
        for f in range(frames):
            out[m, f] = min(max(steps + int(f * u) - m, 0), steps)
    return out


def ddim(process, ts, denoise, x, eta, z):
    """DDIM, each element on its own pair of times; one that stands still is skipped."""
    x = np.array(x, float)
    for m in range(len(ts) - 1):
        a, s = process.alpha(ts[m]), process.sigma(ts[m])
        d = denoise(x, a, s)
        for e in range(x.shape[-1]):
            if ts[m + 1, e] == ts[m, e]:
                continue
            a1, s1 = process.alpha(ts[m + 1, e]), process.sigma(ts[m + 1, e])
            c = eta * s1 / s[e] * np.sqrt(max(1 - (a[e] / a1) ** 2, 0.0))
            eps = (x[..., e] - a[e] * d[..., e]) / s[e]
            x[..., e] = a1 * d[..., e] + np.sqrt(s1**2 - c**2) * eps
            x[..., e] += c * z[m, ..., e]
    return x


def dpmpp_2m(process, ts, denoise, x):
    """2M, midpoint form, without an order-1 end; every element has its own history."""
    x = np.array(x, float)
    count = x.shape[-1]
    last = [None] * count  # what it moved by last: prediction and step length
    for m in range(len(ts) - 1):
        a, s = process.alpha(ts[m]), process.sigma(ts[m])
        d = denoise(x, a, s)
        for e in range(count):
            if ts[m + 1, e] == ts[m, e]:
                continue
            a1, s1 = process.alpha(ts[m + 1, e]), process.sigma(ts[m + 1, e])
            h = np.log(a1 / s1) - np.log(a[e] / s[e])
            mixed = d[..., e]
            if last[e] is not None:
                older, before = last[e]
                mixed = mixed + (d[..., e] - older) * h / before / 2
            last[e] = d[..., e].copy(), h
            x[..., e] = s1 / s[e] * x[..., e] - a1 * np.expm1(-h) * mixed
    return x
