"""One-step methods with inner stages: from weights by the step to rows."""

from collections.abc import Sequence

import numpy as np

from ..numerics import Levels, exponential_weights, keep_factor, namespace
from ..typing import Array, Process
from .build import basis, runge_kutta, take
from .checks import check
from .core import Level, Plan

__all__ = ["between", "one_step"]


def between(process: Process, lv: Levels, rows: np.ndarray, lam: Array) -> Level:
    """The level at half log-SNR `lam` (S, ...), inside each of the steps `rows`.

    The time is kept within its step against rounding; on a step of length zero it is
    the step's own.
    """
    xp = namespace(lam)
    time = process.half_log_snr_inverse(lam)
    time = xp.clip(time, lv.time[rows + 1], lv.time[rows])
    return Level(time, process.alpha(time), process.sigma(time))


def one_step(
    lv: Levels,
    *,
    prediction: str,
    rows: np.ndarray,
    stages: Sequence[Level],
    weights: Sequence[Sequence[Array]],
) -> Plan:
    """One-step methods with S stages: S rows per step, one where stages do not exist.

    With G x_s = (sigma_j / sigma_s) x_s in data prediction, (alpha_j / alpha_s) x_s in
    noise prediction, stage j + 1 (or the step's end) stands at G x_s + sum_k w_jk d_k.

    Args:
        lv: levels of the grid, N + 1.
        prediction: 'data' or 'noise', what d is.
        rows: the steps that have stages, (M,). The others take one exact first-order
            step: next to alpha = 0 or sigma = 0 there is nothing in between.
        stages: levels of the S evaluations, (M, ...) each; the first is the start.
        weights: weights[j][k], k = 0..j, (M, ...): of d_k in the move that follows
            evaluation j.

    Returns:
        A plan of S M + (N - M) rows.
    """
    xp = namespace(lv.lam, *(w for line in weights for w in line))
    count, single = len(stages), np.setdiff1d(np.arange(lv.steps), rows)
    scale = [*(_scale(s, prediction) for s in stages[1:])]
    scale.append(_scale(take(lv, rows + 1), prediction))
    keep = [s / _scale(take(lv, rows), prediction) for s in scale]
    zero = xp.zeros_like(keep[0])
    table = [
        xp.stack([line[j - m] if m <= j else zero for m in range(count)], axis=1)
        for j, line in enumerate(weights)
    ]
    first = exponential_weights(lv, single, 1, prediction)
    first = xp.moveaxis(first, -1, 1)
    gap = [(0, 0), (0, count - 1)] + [(0, 0)] * (first.ndim - 2)

    where = [rows * count + j for j in range(count)] + [single * count]
    order = np.argsort(np.concatenate(where))
    stage = np.concatenate([np.full(len(w), j) for j, w in enumerate(where)])
    closes = (stage >= count - 1)[order]  # a single row stands at stage `count`

    def join(parts: Sequence[Array]) -> Array:
        return xp.concatenate(parts, axis=0)[order]

    start = take(lv, single)
    level = Level(*(join(parts) for parts in zip(*stages, start, strict=True)))
    end = take(lv, -1)
    made = runge_kutta(
        level,
        end,
        convert=basis(level, prediction),
        keep=join([*keep, keep_factor(lv, prediction)[single]]),
        weights=join([*table, xp.pad(first, gap)]),
        closes=closes,
    )
    check(made, lv, prediction)
    return made


def _scale(level: Level, prediction: str) -> Array:
    """What the state is divided by so that its linear part is constant."""
    return level.sigma if prediction == "data" else level.alpha
