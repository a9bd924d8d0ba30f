"""Checks of a finished plan: shapes and numbers, and exactness on a constant."""

from typing import Any

import jax
import numpy as np

from ..numerics import Levels
from .core import Plan, Row, convert, move

__all__ = ["check", "point_weights", "replay", "validate"]


def validate(plan: Plan) -> None:
    """Check a plan's shapes, and its numbers where they are concrete.

    Raises:
        ValueError: naming the weight, the row and the rule.
    """
    rows = plan.rows.index.shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(plan.rows):
        name = jax.tree_util.keystr(path).lstrip(".")
        shape = np.shape(leaf)
        if not shape or shape[0] != rows:
            raise ValueError(
                f"plan weight {name} must have {rows} rows, got shape {shape}."
            )
        finite_time = name == "level.time"  # a clean time may be -inf
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
            bad = np.isnan(leaf) if finite_time else ~np.isfinite(leaf)
            if bad.any():
                at = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"plan weight {name} must be finite, got {leaf[at]} at row {at[0]}"
                    f"{f', element {at[1:]}' if at[1:] else ''}. Check the grid around "
                    "that row: a repeated time, or an end at alpha = 0 or sigma = 0?"
                )
    slot = plan.rows.push.slot
    if isinstance(slot, np.ndarray) and slot.size:
        if slot.min() < 0 or slot.max() >= plan.slots:
            raise ValueError(
                f"plan slots must lie in 0..{plan.slots - 1}, got {slot.min()} to "
                f"{slot.max()}: the history is too small."
            )


def point_weights(rows: Row) -> list[tuple[Any, float]]:
    """Weights of the point's move, and what each is where the row ends a step.

    There the point is the anchor, a solution at the level reached; elsewhere it is a
    stage, or a prediction that the next row corrects.
    """
    move = rows.predict
    rest = (move.history, move.noise, move.register, move.bias)
    parts = [(move.anchor, 1.0), *((tree, 0.0) for tree in rest)]
    return [(w, value) for tree, value in parts for w in jax.tree.leaves(tree)]


def replay(plan: Plan, predict: Any, x: float, z: np.ndarray | None = None) -> Any:
    """Run a plan with scalar weights on the host in float64, one row at a time.

    Args:
        plan: a plan of NumPy weights.
        predict: (x, row index) -> data prediction (or a tuple of P of them).
        x: initial state, a float or NumPy array.
        z: noise per row, or None.
    """
    x = np.asarray(x, np.float64)
    start = plan.start
    anchor = point = x
    history = np.zeros((plan.slots, *x.shape))
    if start is not None:
        anchor, point = start.anchor * x, start.point * x
        if start.history is not None:
            history = np.stack([w * x for w in start.history])
    register = np.zeros_like(x)
    for i in range(plan.length):
        row = jax.tree.map(lambda w, i=i: w[i], plan.rows)
        found = predict(point, i)
        found = found if isinstance(found, tuple) else (found,)
        noise = np.zeros_like(x) if z is None else z[i]
        evaluations = convert(row, point, found, plan.matrix)
        anchor, point, history, register = move(
            row, anchor, point, history, register, evaluations, noise, plan.matrix
        )
    return point


def _scalar(plan: Plan, predict: Any, x: float) -> float:
    """`replay` of the mean for scalar weights: a long plan is checked in no time."""
    rows = plan.rows
    u, w, b = rows.convert.point, rows.convert.prediction, rows.convert.bias
    a, p, push = rows.advance, rows.predict, rows.push
    anchor = point = x
    history = np.zeros(plan.slots)
    for i in range(plan.length):
        d = u[i, 0] * point + w[i, 0] * predict(point, i)
        d = d if b is None else d + b[i, 0]
        anchor = a.anchor[i] * anchor + a.point[i] * point + a.evaluation[i, 0] * d
        anchor = anchor + a.history[i] @ history
        anchor = anchor if a.bias is None else anchor + a.bias[i]
        stored = push.evaluation[i, :, 0] * d + push.history[i] @ history
        history[push.slot[i]] = stored
        point = p.anchor[i] * anchor + p.history[i] @ history
        point = point if p.bias is None else point + p.bias[i]
    return float(point)


def check(plan: Plan, lv: Levels, prediction: str, tol: float = 1e-9) -> None:
    """Self-check: a constant prediction is integrated exactly over the whole plan.

    Data:  x_N = (sigma_N / sigma_0) x_0 + (alpha_N - alpha_0 sigma_N / sigma_0) D
    Noise: x_N = (alpha_N / alpha_0) x_0 + (sigma_N - sigma_0 alpha_N / alpha_0) E

    Raises:
        ValueError: the weights do not sum to the integral of a constant.
    """
    rows = jax.tree.leaves(plan.rows)
    if lv.alpha.ndim > 1 or not all(isinstance(w, np.ndarray) for w in rows):
        return  # traced or per-element weights: the same formulas, checked as scalars
    (a0, a1), (s0, s1) = lv.alpha[[0, -1]], lv.sigma[[0, -1]]
    a, s = plan.rows.level.alpha, plan.rows.level.sigma
    run = _scalar if plan.start is None and plan.predictions == 1 else replay
    if prediction == "data":
        got = run(plan, lambda x, _: 1.0 + 0 * x, 1.0)
        want = s1 / s0 + (a1 - a0 * s1 / s0)
    else:
        got = run(plan, lambda x, i: (x - s[i]) / a[i], 1.0)
        want = a1 / a0 + (s1 - s0 * a1 / a0)
    size = 1.0 + abs(a1) + abs(s1) + abs(want)
    if not abs(got - want) <= tol * size:
        raise ValueError(
            "the plan's weights do not integrate a constant prediction exactly: got "
            f"{float(got):.17g}, exact {float(want):.17g}. A coefficient is wrong."
        )
