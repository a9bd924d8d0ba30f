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
        return _missing(grid, apart, average), rows
    made = solvers.plms(grid.process, grid.ts, average=average)
    return made, rows if made.length > steps else labels


def _at(process: Process, times: np.ndarray) -> plans.Level:
    return plans.Level(times, process.alpha(times), process.sigma(times))


def _missing(grid: Grid, apart: int, average: str) -> Plan:
    """PLMS whose steps go down by T // N and so end between labels.

    The state is then taken for one at the next label. The trapezoid of the first step
    ends at the second label and starts T // N above it.
    """
    labels, lands = grid.labels, grid.lands
    level = _at(grid.process, np.insert(labels, 1, labels[1]))
    begin = np.insert(labels, 1, labels[1] + apart)
    s, t = _at(grid.process, begin), _at(grid.process, np.insert(lands, 1, labels[1]))
    if average == "noise":
        convert = plans.basis(level, "noise")
        keep = t.alpha / s.alpha
        gain = t.sigma - keep * s.sigma
    else:  # v = (alpha x - D) / sigma
        point, data = level.alpha / level.sigma, -1 / level.sigma
        convert = plans.Convert(point[:, None], data[:, None])
        keep = t.alpha * s.alpha + t.sigma * s.sigma
        gain = t.sigma * s.alpha - t.alpha * s.sigma
    count = len(begin)
    stage = np.arange(count) == 0
    weights = _ADAMS[np.minimum(np.maximum(np.arange(count), 1), 4) - 1]
    push = np.eye(1, 4).repeat(count, 0)
    weights[1], push[1] = [1 / 2, 1 / 2, 0, 0], [0, 1, 0, 0]  # e' is not kept
    weights = np.where(stage[:, None], 0.0, gain[:, None] * weights)
    return plans.build(
        level,
        _at(grid.process, grid.ts[-1]),
        convert=convert,
        advance=plans.Move(
            np.where(stage, 1.0, keep), weights[:, 1:], None, weights[:, :1]
        ),
        predict=plans.Move(
            np.where(stage, keep, 1.0), np.where(stage, gain, 0.0)[:, None]
        ),
        push=push,
    )
