"""Grids from papers: flow shift, beta quantiles, Align Your Steps."""

import math

import numpy as np

from ..guards import checked, must
from ..typing import Array, Process
from .place import count, finish, placed
from .spacing import uniform

__all__ = ["ays", "beta", "flow_shift"]


@checked
def flow_shift(
    process: Process,
    steps: int,
    *,
    shift: float = 3.0,
    mu: float | None = None,
    tokens: int | None = None,
    terminal: float | None = None,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Uniform times moved by t <- g t / (1 + (g - 1) t), for paths with t in [0, 1].

    Args:
        process: the path, usually `flow`.
        steps: number of steps N.
        shift: g, static.
        mu: dynamic shift, g = e^mu; replaces `shift`.
        tokens: image tokens; mu = 0.5 at 256, 1.15 at 4096, linear between and beyond.
        terminal: stretch so that the last non-clean time equals it.
        start, end, to_zero: as in `uniform`, before the shift. Default end: exactly 0.

    Reference: Esser et al. 2024 (2403.03206), eq 23.
    """
    if mu is not None and tokens is not None:
        raise ValueError(f"give mu or tokens, not both; got {mu=}, {tokens=}.")
    if tokens is not None and tokens < 1:
        raise must("tokens", ">= 1", tokens)
    if mu is not None and abs(mu) > 700:
        raise must("mu", "in -700..700, so that e^mu is a number", mu)
    if tokens is not None:
        mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
    g = math.exp(mu) if mu is not None else float(shift)
    if not (math.isfinite(g) and g > 0):
        raise ValueError(f"shift must be finite and > 0, got {g}.")
    low, high = process.domain
    if (low, high) != (0.0, 1.0):
        raise ValueError(
            f"flow_shift needs a process with times in [0, 1], got [{low:g}, {high:g}]."
        )
    end = 0.0 if end is None and not to_zero else end
    ts = uniform(process, steps, start=start, end=end, to_zero=to_zero)
    ts = g * ts / (1 + (g - 1) * ts)
    if terminal is not None:
        last = ts[ts > 0][-1]
        if not 0 < terminal < 1:
            raise ValueError(f"terminal must be in (0, 1), got {terminal}.")
        stretched = 1 - (1 - ts) * (1 - terminal) / (1 - last)
        ts = np.where(ts > 0, stretched, 0.0)
    return finish(process, ts, False)


@checked
def beta(
    process: Process,
    steps: int,
    *,
    a: float = 0.6,
    b: float = 0.6,
    start: float | None = None,
    end: float | None = None,
    to_zero: bool = False,
) -> np.ndarray:
    """Quantiles of a Beta(a, b) law over sigma / alpha (2407.12173)."""
    for name, value in (("a", a), ("b", b)):
        if not value > 0:
            raise must(name, "> 0", value)
    from scipy import special  # a tenth of a second that most imports need not pay

    def place(r: np.ndarray, first: float, last: float) -> Array:
        high, low = np.exp(-process.half_log_snr(np.asarray([first, last])))
        if not np.isfinite(high):
            raise ValueError(
                f"sigma / alpha is infinite at t={first:g}; move start inside."
            )
        rho = low + special.betaincinv(a, b, 1 - r) * (high - low)
        return process.half_log_snr_inverse(-np.log(rho))

    return placed(process, steps, start, end, to_zero, place)


# Sabour et al. 2024 (2404.14507), the released 10-step tables of sigma / alpha.
_AYS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
}


@checked
def ays(process: Process, steps: int, *, model: str = "sd15") -> np.ndarray:
    """Align Your Steps: the published table, log-interpolated, then sigma = 0.

    Args:
        process: the path; its noise end must reach the table's first level.
        steps: N >= 2; at 10 the table itself.
        model: 'sd15', 'sdxl' or 'svd'.
    """
    if model not in _AYS:
        raise ValueError(f"model must be one of {sorted(_AYS)}, got {model!r}.")
    steps = count(steps, 2)
    table = np.log(_AYS[model])
    at = np.linspace(0, len(table) - 1, steps)
    lam = -np.interp(at, np.arange(len(table)), table)
    lowest = process.half_log_snr(process.start)
    if lam[0] < lowest - 0.01:  # tables are rounded to a few digits
        raise ValueError(
            f"the {model} table starts at sigma/alpha={np.exp(-lam[0]):.4g}, beyond "
            f"this process' {np.exp(-lowest):.4g}. Use a process with more noise."
        )
    ts = process.half_log_snr_inverse(np.maximum(lam, lowest))
    return finish(process, np.asarray(ts), True)
