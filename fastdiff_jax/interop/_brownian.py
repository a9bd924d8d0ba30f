"""DPM++ SDE as published: a stage and its step share one Brownian path in sigma."""

from typing import Any

import numpy as np

from .. import plan as plans
from .. import solvers
from ..plan import Plan
from ..plan.forms import lines_of
from ._schedules import table, to_label, trained
from .grids import Grid

__all__ = ["dpm_sde"]

Settings = dict[str, Any]


def dpm_sde(
    settings: Settings, grid: Grid, options: Settings
) -> tuple[Plan, np.ndarray]:
    """DPM++ SDE, ancestral steps through the middle in log sigma.

    The noise of a step is (W(sigma_s) - W(sigma_t)) / sqrt(sigma_s - sigma_t), and
    that of its stage the same to the middle: not independent.
    """
    sigma = grid.ts
    s, t = sigma[:-2], sigma[1:-1]  # the last step, to zero, has no stage
    middle = np.sqrt(s * t)
    inner = to_label(middle, table(trained(settings)))
    labels = np.append(np.stack([grid.labels[:-1], inner], 1).ravel(), grid.labels[-1])
    made = solvers.dpmpp_sde(
        grid.process, sigma, compat=True, s_noise=options["s_noise"]
    )
    gap = np.where(s > t, s - t, 1.0)
    share = np.where(s > t, (s - middle) / gap, 0.0)  # of the variance, in the stage
    return _shared(made, np.append(np.repeat(share, 2), 0.0)), labels


def _shared(made: Plan, share: np.ndarray) -> Plan:
    """The plan with a register that takes a stage's draw to the row after it."""
    rows, store = made.rows, made.registers
    last = np.arange(made.length) % 2 == 1  # rows that end a step with a stage
    kept = np.where(last, np.sqrt(share), 0.0) * plans.register(store)
    drawn = kept + np.where(last, np.sqrt(1 - share), 1.0) * plans.NOISE
    lines = lines_of(rows.registers, rows.predictions, rows.noise, rows.bias)
    *moves, sample = (line.put({("noise",): drawn}) for line in lines)
    to = np.asarray(rows.to)
    writes: list = [(to[:, w], move) for w, move in enumerate(moves)]
    writes.append((store, 1.0 * plans.NOISE))
    return plans.build(rows.level, made.end, writes, sample=sample)
