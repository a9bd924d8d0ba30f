"""The tables of the adjoint: Runge-Kutta in q, for x and back for (y, a)."""

from typing import Any

import numpy as np

from .. import plan as plans
from ..numerics import Levels
from ..plan import Leg, Level, Plan
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
            found.append(lv.at(steps + int(c)))
            continue
        lam = np.log(q[:-1] + c * length)
        time = process.half_log_snr_inverse(-lam if noise else lam)
        ends = np.sort([lv.time[:-1], lv.time[1:]], axis=0)
        time = np.clip(time, *ends)  # against rounding
        found.append(Level(time, process.alpha(time), process.sigma(time)))
    return found, length


def _m(level: Level, prediction: str) -> Any:
    return level.alpha if prediction == "noise" else level.sigma


def _legs(
    stages: list[Level], keep: Any, moves: Any, groups: np.ndarray
) -> list[tuple[np.ndarray, list[Leg]]]:
    legs = [
        Leg(level, k, tuple(line))
        for level, k, line in zip(stages, keep, moves, strict=True)
    ]
    return [(groups, legs)]


def there_plan(process: Process, lv: Levels, method: str, prediction: str) -> Plan:
    """The method as a plan for x: the steps in q times m where they lead to."""
    stages, length = _stages(process, lv, method, prediction)
    ends = [*(_m(s, prediction) for s in stages[1:]), _m(lv.ends, prediction)]
    moves = [
        [m * length * w for w in line]
        for m, line in zip(ends, METHODS[method][1], strict=True)
    ]
    keep = [m / _m(lv.starts, prediction) for m in ends]
    steps = np.arange(lv.steps)
    made = plans.stages(_legs(stages, keep, moves, steps), lv.end, basis=prediction)
    plans.self_check(made, lv, prediction)
    return made


def back_plan(process: Process, lv: Levels, method: str, prediction: str) -> Plan:
    """The method on the reversed grid, for a state whose derivative in q is given.

    What the field returns stands for the data prediction: it is not converted.
    """
    back = lv.take(slice(None, None, -1))
    stages, length = _stages(process, back, method, prediction)
    moves = METHODS[method][1]
    weights = [[length * w for w in line] for line in moves]
    keep = [np.ones(lv.steps)] * len(moves)
    return plans.stages(
        _legs(stages, keep, weights, np.arange(lv.steps)),
        back.end,
        controls=(length[:, None] * np.array(moves[-1])).ravel(),
    )
