"""Steps of exponential Runge-Kutta methods, and first-order ones where they end."""

from collections.abc import Sequence

import numpy as np

from ... import plan
from ...numerics import Level, Levels, exponential_weights, keep_factor
from ...plan import Leg
from ...typing import Array

__all__ = ["exponential_stages"]


def exponential_stages(
    lv: Levels,
    *,
    basis: str,
    rows: np.ndarray,
    levels: Sequence[Level],
    weights: Sequence[Sequence[Array]],
) -> plan.Plan:
    """One-step methods with S stages: S rows per step, one where stages do not exist.

    With G x_s = (sigma_j / sigma_s) x_s in data prediction, (alpha_j / alpha_s) x_s in
    noise prediction, stage j + 1 (or the step's end) stands at G x_s + sum_k w_jk d_k.

    Args:
        lv: levels of the grid, N + 1.
        basis: 'data' or 'noise', what d is.
        rows: the steps that have stages, (M,). The others take one exact first-order
            step: next to alpha = 0 or sigma = 0 there is nothing in between.
        levels: of the S evaluations, (M, ...) each; the first is the start.
        weights: weights[j][k], k = 0..j, (M, ...): of d_k in the move that follows
            evaluation j.

    Returns:
        A plan of S M + (N - M) rows, checked on a constant.
    """
    start = _scale(lv.at(rows), basis)
    ends = [*levels[1:], lv.at(rows + 1)]
    legs = [
        Leg(level, _scale(end, basis) / start, tuple(line))
        for level, end, line in zip(levels, ends, weights, strict=True)
    ]
    single = np.setdiff1d(np.arange(lv.steps), rows)
    first = exponential_weights(lv, single, 1, basis)[..., 0]
    alone = Leg(lv.at(single), keep_factor(lv, basis)[single], (first,))
    made = plan.stages([(rows, legs), (single, [alone])], lv.end, basis=basis)
    plan.self_check(made, lv, basis)
    return made


def _scale(level: Level, basis: str) -> Array:
    """What the state is divided by so that its linear part is constant."""
    return level.sigma if basis == "data" else level.alpha
