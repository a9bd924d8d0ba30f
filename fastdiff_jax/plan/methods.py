"""One-step methods with inner stages: from weights by the step to rows."""

from collections.abc import Sequence

import numpy as np

from ..numerics import Levels, exponential_weights, keep_factor, namespace
from ..typing import Array, Process
from .build import basis, build, runge_kutta, take
from .checks import check
from .core import Level, Move, Plan, Register

__all__ = ["between", "corrected", "one_step"]


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


def corrected(
    lv: Levels,
    *,
    prediction: str,
    keep: Array,
    predict: Array,
    correct: Array,
    steps: np.ndarray,
    noise: Array | None = None,
    push: Array | None = None,
) -> Plan:
    """Predictor-corrector with one evaluation per step: N rows.

    Row i evaluates at the predicted point, corrects step i - 1 from its own start with
    that evaluation (and its own old z), draws z, and predicts step i.

    Args:
        lv: levels of the grid, N + 1.
        prediction: 'data' or 'noise', what the evaluations are.
        keep: weight of the state over each step, (N, ...).
        predict: weights of the predictors, newest first, (N, ..., J).
        correct: weights of the correctors, newest (the step's end) first, (N, ..., C).
        steps: which steps are corrected, (N,) bool.
        noise: standard deviation of each step's noise, None for none.
        push: what is stored, see `build`.

    Returns:
        A plan; a deterministic one is checked on a constant.
    """
    xp = namespace(keep, predict, correct)
    use = np.concatenate([[False], steps[:-1]])  # row i corrects step i - 1
    before = np.maximum(np.arange(lv.steps) - 1, 0)
    use = use.reshape((-1,) + (1,) * (keep.ndim - 1))
    weights = xp.moveaxis(xp.where(use[..., None], correct[before], 0.0), -1, 1)
    again = noise is not None and bool(use.any())
    latest = Register(xp.zeros_like(keep), xp.ones_like(keep))  # holds the row's z
    level = take(lv, slice(None, -1))
    made = build(
        level,
        take(lv, -1),
        convert=basis(level, prediction),
        advance=Move(
            anchor=xp.where(use, keep[before], 0.0),
            point=xp.where(use, 0.0, xp.ones_like(keep)),
            evaluation=weights[:, :1],
            history=weights[:, 1:] if weights.shape[1] > 1 else None,
            register=xp.where(use, noise[before], 0.0) if again else None,
        ),
        predict=Move(anchor=keep, history=xp.moveaxis(predict, -1, 1), noise=noise),
        push=push,
        register=latest if again else None,
    )
    if noise is None:
        check(made, lv, prediction)
    return made


def _scale(level: Level, prediction: str) -> Array:
    """What the state is divided by so that its linear part is constant."""
    return level.sigma if prediction == "data" else level.alpha
