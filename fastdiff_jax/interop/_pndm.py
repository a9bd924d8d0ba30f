"""The library's PNDM: PLMS and F-PNDM, and PLMS on labels that its steps miss."""

from typing import Any

import numpy as np

from .. import plan as plans
from .. import solvers
from ..plan import Plan
from ..typing import Process
from .grids import Grid

__all__ = ["pndm"]

_ADAMS = np.array(
    [[1, 0, 0, 0], [3 / 2, -1 / 2, 0, 0], [23 / 12, -16 / 12, 5 / 12, 0]]
    + [[55 / 24, -59 / 24, 37 / 24, -9 / 24]]
)


def pndm(
    settings: dict[str, Any], grid: Grid, options: dict[str, Any]
) -> tuple[Plan, np.ndarray]:
    """PLMS, or F-PNDM with its Runge-Kutta warm-up; v is averaged as v.

    Raises:
        ValueError: a Runge-Kutta warm-up on labels that have no whole mid-point.
    """
    labels, steps = grid.labels, options["steps"]
    apart = settings["num_train_timesteps"] // steps
    average = "noise" if settings["prediction_type"] == "epsilon" else "velocity"
    if not settings["skip_prk_steps"]:
        if steps < 4 or apart % 2 or grid.lands is not None:
            raise ValueError(
                "skip_prk_steps=false needs at least 4 steps and labels an even number "
                f"apart; got {steps} steps, timestep_spacing="
                f"{settings['timestep_spacing']!r}, {apart} apart. Set skip_prk_steps "
                "to true, or use a step count that divides num_train_timesteps evenly."
            )
        made = solvers.f_pndm(grid.process, grid.ts, average=average)
        return made, np.asarray(made.rows.level.time)
    if steps == 1:
        return solvers.ddim(grid.process, grid.ts), labels
    rows = np.insert(labels, 1, labels[1])
    if grid.lands is not None:
        return _missing(grid, grid.lands, apart, average), rows
    made = solvers.plms(grid.process, grid.ts, average=average)
    return made, rows if made.length > steps else labels


def _at(process: Process, times: np.ndarray) -> plans.Level:
    return plans.Level(times, process.alpha(times), process.sigma(times))


def _missing(grid: Grid, lands: np.ndarray, apart: int, average: str) -> Plan:
    """PLMS whose steps go down by T // N and so end between labels.

    The state is then taken for one at the next label. The trapezoid of the first step
    ends at the second label and starts T // N above it.
    """
    labels = grid.labels
    level = _at(grid.process, np.insert(labels, 1, labels[1]))
    begin = np.insert(labels, 1, labels[1] + apart)
    s, t = _at(grid.process, begin), _at(grid.process, np.insert(lands, 1, labels[1]))
    kind = "noise" if average == "noise" else "v"
    if average == "noise":
        keep = t.alpha / s.alpha
        gain = t.sigma - keep * s.sigma
    else:
        keep = t.alpha * s.alpha + t.sigma * s.sigma
        gain = t.sigma * s.alpha - t.alpha * s.sigma
    count = len(begin)
    closes, inside = np.arange(count) == 1, np.arange(count) == 0
    weights = _ADAMS[np.minimum(np.maximum(np.arange(count), 1), 4) - 1]
    x, e, past = plans.register(0), plans.evaluation(level, kind), plans.Ring(1, 3)
    # the trapezoid goes back to where it began: x = (x' - gain e) / keep
    weights[1] = [1 / 2, 1 / 2, 0, 0]
    back = np.where(closes, gain[0] / keep[0], 0.0)
    begun = np.where(closes, 1 / keep[0], 1.0) * x - back * past[0]
    move = keep * begun
    for weight, m in zip(weights.T, [e, *past], strict=True):
        move = move + (gain * weight) * m
    stored = np.where(closes, 0.0, 1.0) * e + np.where(closes, 1.0, 0.0) * past[0]
    return plans.build(
        level,
        _at(grid.process, grid.ts[-1]),
        [(0, move), (past, stored)],
        sample=np.where(inside, 0.0, 1.0) * move + np.where(inside, 1.0, 0.0) * x,
        basis=plans.basis_of(level, kind),
    )
