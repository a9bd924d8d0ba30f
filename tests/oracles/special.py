"""Naive loops of the special methods, in NumPy and float64.

`predict(x, alpha, sigma)` is the data prediction; alpha, sigma broadcast against x.
"""

import numpy as np


def velocity(process, predict, x, t):
    """dx/dt in the process' time."""
    a, s = process.alpha(t), process.sigma(t)
    da, ds = process.rates(t)
    d = predict(x, a, s)
    return da * d + ds * (x - a * d) / s


def flow_turbo(process, ts, predict, x, heun, pseudo, refine, refiner=None):
    """H_a P_b R_c of FlowTurbo (2409.18128), on dx/dt and decreasing times."""
    passed = None
    kinds = ["H"] * heun + ["P"] * pseudo + ["R"] * refine
    for kind, s, t in zip(kinds, ts[:-1], ts[1:], strict=True):
        step = t - s
        if kind == "R":
            d = passed + refiner(x, s, passed)
            if process.sigma(t) == 0:
                x = x + step * d
                continue
            d2 = d + refiner(x + step * d, t, passed)
            x, passed = x + step / 2 * (d + d2), d
            continue
        if process.sigma(t) == 0:
            x = x + step * velocity(process, predict, x, s)
            continue
        d = velocity(process, predict, x, s) if kind == "H" else passed
        d2 = velocity(process, predict, x + step * d, t)
        x, passed = x + step / 2 * (d + d2), d2
    return x


def time_shift_ddim(process, ts, predict, x, window, cutoff, candidates, keep_noise):
    """DDIM whose evaluation (and noise) is taken at the shifted times (2305.15583)."""
    axes = tuple(range(1, x.ndim))
    for i, (s, t) in enumerate(zip(ts[:-1], ts[1:], strict=True)):
        tau = np.full(len(x), s)
        if i > 0 and s > cutoff:
            for b in range(len(x)):
                grid = np.linspace(s - window / 2, s + window / 2, candidates)
                grid = np.clip(grid, process.end, process.start)
                gaps = np.abs(x[b].var() - process.sigma(grid) ** 2)
                tau[b] = grid[np.argmin(gaps)]
        shape = (-1,) + (1,) * len(axes)
        a_tau, s_tau = (f(tau).reshape(shape) for f in (process.alpha, process.sigma))
        d = predict(x, a_tau, s_tau)
        a, sg = process.alpha(s), process.sigma(s)
        noise = (x - a_tau * d) / s_tau if keep_noise else (x - a * d) / sg
        x = process.alpha(t) * d + process.sigma(t) * noise
    return x


def dual_fast_ddim(process, ts, predict, x, coefficients, reference):
    """DDIM on E + c (E - E_tau)."""
    kept = None
    for c, s, t in zip(coefficients, ts[:-1], ts[1:], strict=True):
        a, sg = process.alpha(s), process.sigma(s)
        noise = (x - a * predict(x, a, sg)) / sg
        kept = noise if kept is None else kept
        mixed = noise + c * (noise - kept)
        if reference == "previous":
            kept = noise
        x = process.alpha(t) * (x - sg * mixed) / a + process.sigma(t) * mixed
    return x
