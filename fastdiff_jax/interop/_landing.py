"""Steps of DDIM and CogVideoX that end between two labels.

These classes step down by T // N labels from wherever they are, which is the next label
only if the labels are spaced so. The state is then taken for one at the next label, as
published: start and end of a step are levels of their own.
"""

import numpy as np

from .. import plan as plans
from ..plan import Plan
from ..typing import Process
from .grids import Grid

__all__ = ["ancestral", "second_order_sde"]


def _level(process: Process, times: np.ndarray) -> plans.Level:
    return plans.Level(times, process.alpha(times), process.sigma(times))


def _arrivals(grid: Grid) -> np.ndarray:
    """Times at which the steps end, (N,)."""
    return grid.ts[1:] if grid.lands is None else grid.lands


def ancestral(grid: Grid, eta: float, second_noise: bool = False) -> Plan:
    """DDIM between levels of their own: x' = alpha_t D + sqrt(sigma_t^2 - c^2) E + c z.

    With q = (sigma_t / alpha_t) / (sigma_s / alpha_s), c = eta sigma_t sqrt(1 - q^2).
    """
    s, t = (_level(grid.process, v) for v in (grid.labels, _arrivals(grid)))
    q = t.sigma / t.alpha * s.alpha / s.sigma
    share = np.sqrt((1 - eta**2) + (eta * q) ** 2)
    keep = share * t.sigma / s.sigma
    x, d, raw = plans.register(0), plans.prediction(0), plans.prediction(1)
    move = keep * x + t.alpha * d
    move = move - keep * s.alpha * (raw if second_noise else d)
    if eta:
        move = move + eta * t.sigma * np.sqrt((1 - q) * (1 + q)) * plans.NOISE
    reads = ("data", "direction") if second_noise else ("data",)
    end = _level(grid.process, grid.ts[-1])
    return plans.build(s, end, [(0, move)], reads=reads)


def second_order_sde(grid: Grid, apart: int) -> Plan:
    """SDE-DPM-Solver++(2M), midpoint, between levels of their own (CogVideoX's DPM).

    x' = (sigma_t / sigma_s) e^{-h} x + alpha_t (1 - e^{-2h}) [D + (D - D_1) h / 2 h_1]
         + sigma_t sqrt(1 - e^{-2h}) z

    The first step, and one that ends below label 0, are of order one.

    Args:
        grid: labels and where the steps from them end.
        apart: T // N, how far down a step goes.
    """
    ends = _arrivals(grid)
    s, t = (_level(grid.process, v) for v in (grid.labels, ends))
    start = grid.process.half_log_snr(grid.labels)
    h = grid.process.half_log_snr(ends) - start
    before = np.append(np.inf, np.diff(start))  # h_1: none before the first step
    low = grid.labels < apart
    with np.errstate(invalid="ignore"):
        ratio = np.where(low | np.isinf(before), 0.0, h / (2 * before))
    gain = -t.alpha * np.expm1(-2 * h)
    x, d, past = plans.register(0), plans.prediction(0), plans.Ring(1, 1)
    move = t.sigma / s.sigma * np.exp(-h) * x + gain * (1 + ratio) * d
    move = move - gain * ratio * past[0]
    move = move + t.sigma * np.sqrt(-np.expm1(-2 * h)) * plans.NOISE
    end = _level(grid.process, grid.ts[-1])
    return plans.build(s, end, [(0, move), (past, d)])
