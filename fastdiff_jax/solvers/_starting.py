"""How a multistep method starts: with lower orders, or with a graded first step.

A method of order q has no history at first. Where it warms up with lower orders, one
step of order f leaves an error h^{f+1}, so the order is f + 1 at most on grids whose
first steps are not shorter than the rest. Cut into m parts that grow,

    t_j = t_0 + (t_1 - t_0) (j/m)^k,   k = q / (f + 1),   m = ceil(N^{1 - 1/k}),

the first step starts with a part N^{1-k} h or shorter, whose error is O(N^-q); every
later part is longer, but has a higher order. The parts are cut in the
process' own time, so that a first step from alpha = 0 can be cut too.

An option: on the digits model lower orders are better at 8 to 50 evaluations on every
grid tried. So they are than doubling parts, and than exponential Runge-Kutta stages at
orders 3 and 4; at 5 and 6 stages won at 12 or 15 evaluations alone, where little but
stages is left. The price of uneven parts is large weights: errors of 0.4 % in the
evaluations of a mixture came out 5 times larger at order 5, 60 to 400 times at 6.
"""

import math
from typing import Literal, TypeAlias

import numpy as np

from ..numerics import Levels, levels, namespace
from ..typing import Array, Process

__all__ = ["Start", "begin", "cut", "parts_of"]

Start: TypeAlias = Literal["published", "graded"]


def cut(
    ts: Array, start: Start, order: int, first: int = 1
) -> tuple[Array, np.ndarray]:
    """Times with a graded first step, in the process' own time.

    Args:
        ts: times, (N + 1, ...).
        start: 'published' changes nothing.
        order: the method's order q.
        first: order f of its first step.

    Returns:
        The times, and for each of their steps the step of `ts` that it is part of. The
        first step that moves is cut, as a repeated time is no step.
    """
    steps, power = ts.shape[0] - 1, order / (first + 1)
    if start == "published" or power <= 1:
        return ts, np.arange(steps)
    parts = math.ceil(steps ** (1 - 1 / power) - 1e-9)
    at = 0
    if isinstance(ts, np.ndarray):
        moves = ts[1:] != ts[:-1]
        at = int(np.argmax(moves.reshape(steps, -1).any(axis=1)))
    share = (np.arange(1, parts) / parts) ** power
    share = share.reshape((-1,) + (1,) * (ts.ndim - 1))
    xp = namespace(ts)
    inside = ts[at] + (ts[at + 1] - ts[at]) * xp.asarray(share, dtype=ts.dtype)
    part = np.insert(np.arange(steps), at, np.full(parts - 1, at))
    return xp.concatenate([ts[: at + 1], inside, ts[at + 1 :]]), part


def begin(
    process: Process, lv: Levels, start: Start, order: int, first: int = 1
) -> tuple[Levels, np.ndarray]:
    """The levels of the times that `cut` returns, and each step's own step."""
    ts, part = cut(lv.time, start, order, first)
    return (lv if ts is lv.time else levels(process, ts)), part


def parts_of(value: Array, part: np.ndarray) -> Array:
    """A value per step of `ts`, for each part; any other shape as it is."""
    return value[part] if value.shape == (part[-1] + 1,) else value
