"""The tables of the adjoint: Runge-Kutta in q, for x and back for (y, a)."""

from typing import Any

import numpy as np

from .. import plan as plans
from ..numerics import Levels
from ..plan import Level, Plan
from ..typing import Process

__all__ = ["METHODS", "back_plan", "there_plan"]

# nodes c, then one line of weights per move: to each later stage, to the step's end
METHODS: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]] = {
    "euler": ((0,), ((1,),)),
    "midpoint": ((0, 1 / 2), ((1 / 2,), (0, 1))),
    "heun": ((0, 1), ((1,), (1 / 2, 1 / 2))),
    "kutta3": ((0, 1 / 2, 1), ((1 / 2,), (-1, 2), (1 / 6, 2 / 3, 1 / 6))),
    "rk4": (
        (0, 1 / 2, 1 / 2, 1),
        ((1 / 2,), (0, 1 / 2), (0, 0, 1), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
    ),
}


def _stages(
    process: Process, lv: Levels, method: str, prediction: str
) -> tuple[list[Level], np.ndarray]:
    """Levels of a method's evaluations in every step, and the steps' lengths in q."""
    noise = prediction == "noise"
    q = lv.sigma / lv.alpha if noise else lv.alpha / lv.sigma
    steps, length, found = np.arange(lv.steps), np.diff(q), []
    for c in METHODS[method][0]:
        if c in (0, 1):
            found.append(plans.take(lv, steps + int(c)))
            continue
        lam = np.log(q[:-1] + c * length)
        time = process.half_log_snr_inverse(-lam if noise else lam)
        ends = np.sort([lv.time[:-1], lv.time[1:]], axis=0)
        time = np.clip(time, *ends)  # against rounding
        found.append(Level(time, process.alpha(time), process.sigma(time)))
    return found, length


def _m(level: Level, prediction: str) -> Any:
    return level.alpha if prediction == "noise" else level.sigma


def there_plan(process: Process, lv: Levels, method: str, prediction: str) -> Plan:
    """The method as a plan for x: the steps in q times m where they lead to."""
    stages, length = _stages(process, lv, method, prediction)
    ends = [*(_m(s, prediction) for s in stages[1:]), _m(lv, prediction)[1:]]
    moves = [
        [m * length * w for w in line]
        for m, line in zip(ends, METHODS[method][1], strict=True)
    ]
    return plans.one_step(
        lv,
        prediction=prediction,
        rows=np.arange(lv.steps),
        stages=stages,
        weights=moves,
    )


def back_plan(process: Process, lv: Levels, method: str, prediction: str) -> Plan:
    """The method on the reversed grid, for a state whose derivative in q is given."""
    back = Levels(*(v[::-1] for v in lv))
    stages, length = _stages(process, back, method, prediction)
    moves = METHODS[method][1]
    count = len(moves)
    weights = np.zeros((lv.steps, count, count))  # step, stage, newest first
    for j, line in enumerate(moves):
        weights[:, j, : j + 1] = length[:, None] * np.array(line[::-1])
    level = Level(
        *(np.stack(v, 1).ravel() for v in zip(*stages, strict=True))
    )  # rows of a step side by side
    return plans.runge_kutta(
        level,
        plans.take(back, -1),
        convert=plans.basis(level, "data"),  # d is what the field returns
        keep=np.ones(lv.steps * count),
        weights=weights.reshape(-1, count),
        closes=np.tile(np.arange(count) == count - 1, lv.steps),
        controls=(length[:, None] * np.array(moves[-1])).ravel(),
    )
