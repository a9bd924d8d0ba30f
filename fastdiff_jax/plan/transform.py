"""Plans from plans that need fewer evaluations: the analytic first step."""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from ..numerics import namespace
from ..typing import ArrayLike, PyTree
from .core import Level, Move, Plan, Row, Start

__all__ = ["analytic_first_step"]


class _Linear(NamedTuple):
    """x_weight * x + noise * z + bias; None is zero."""

    x: PyTree = None
    noise: PyTree = None
    bias: PyTree = None


def analytic_first_step(
    plan: Plan, rule: str | tuple[PyTree, PyTree] = "unit", *, mean: ArrayLike = 0.0
) -> Plan:
    """Replace the first evaluation by a linear function of x: one call less.

    At the noise end a network knows little, so its answer may be written down. Row 0
    becomes part of the plan's start move; the other rows keep their numbers, so their
    noise is that of the whole plan.

    'unit':  E = x / sqrt(alpha^2 + sigma^2)   (AFS for data of unit variance)
    'noise': E = x                             (USF, 2312.07243; unit-variance paths)
    'data':  D = mean                          (USF with the data set's mean)
    (w, b):  D = w x + b

    Args:
        plan: any plan of scalar or per-element weights whose start move draws no noise.
        rule: one of the above; w and b broadcast against the state.
        mean: of the data, for 'data'; a number or an array that broadcasts against one
            sample's state, shape (...).

    Returns:
        A plan with one row fewer. A constant in D becomes biases of the moves, also of
        later rows that read a stored evaluation.

    Raises:
        ValueError: an unknown rule, fewer than two rows, a padded or matrix plan, a
            start that draws noise, or 'noise' at alpha = 0.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> plan = fd.solvers.adams(process, fd.grids.karras(process, 8))
        >>> fd.plan.analytic_first_step(plan).nfe
        7

    Reference: Dockhorn et al. 2022 (2210.05475).
    """
    _refuse(plan)
    first = jax.tree.map(lambda w: w[0], plan.rows)
    data = _prediction(first.level, rule, mean)
    start = plan.start or Start(np.ones(()), np.ones(()))
    noisy = any(
        w is not None
        for w in (first.advance.noise, first.predict.noise, first.register)
    )
    anchor, point, history, register = _first_row(first, start, plan.slots, data)
    rows = jax.tree.map(lambda w: w[1:], plan.rows)
    if any(slot.bias is not None for slot in history):
        rows = _carry_bias(rows, [slot.bias for slot in history])
    made = Start(
        anchor=_some(anchor.x),
        point=_some(point.x),
        history=_stacked([slot.x for slot in history]),
        anchor_noise=_some(anchor.noise) if noisy else None,
        point_noise=_some(point.noise) if noisy else None,
        register_noise=register,
        anchor_bias=anchor.bias,
        point_bias=point.bias,
    )
    return dataclasses.replace(plan, rows=rows, start=made)


def _refuse(plan: Plan) -> None:
    start = plan.start
    if plan.length < 2 or plan.rows.active is not None:
        raise ValueError(
            "analytic_first_step needs an unpadded plan of at least 2 rows, got "
            f"{plan.length}{' padded' if plan.rows.active is not None else ''}. Apply "
            "it before plan.pad, to a grid of more steps."
        )
    if plan.matrix:
        raise ValueError(
            "analytic_first_step does not compose matrix weights. Use a plan with "
            "matrix=False."
        )
    drawn = start and (start.anchor_noise, start.point_noise, start.register_noise)
    if drawn and any(w is not None for w in drawn):
        raise ValueError(
            "analytic_first_step needs a start move without noise: the first row's own "
            "draw takes its place. Apply it without churn at the start."
        )


def _prediction(level: Level, rule: Any, mean: ArrayLike) -> _Linear:
    """D = x_weight * x + bias at the first row's level."""
    alpha, sigma = level.alpha, level.sigma
    if isinstance(rule, tuple):
        return _Linear(rule[0], bias=_as_bias(rule[1]))
    if rule == "data":
        return _Linear(bias=_as_bias(mean))
    if rule == "unit":  # (1 - sigma / r) / alpha without the 0 / 0 at alpha = 0
        norm = namespace(alpha).sqrt(alpha**2 + sigma**2)
        return _Linear(alpha / (norm * (norm + sigma)))
    if rule != "noise":
        raise ValueError(
            "rule must be 'unit', 'noise', 'data' or a pair (w, b) with D = w x + b; "
            f"got {rule!r}."
        )
    if isinstance(alpha, np.ndarray | np.generic) and np.any(alpha == 0):
        raise ValueError(
            "rule 'noise' needs alpha > 0 at the first row: D does not follow from E "
            "where alpha = 0. Use 'unit' or 'data'."
        )
    return _Linear((1 - sigma) / alpha)


def _as_bias(value: PyTree) -> PyTree:
    """None for a plain zero, so that plans without a mean carry no biases."""
    value = jax.tree.map(
        lambda v: v if namespace(v) is not np else np.asarray(v, np.float64), value
    )
    leaves = jax.tree.leaves(value)
    known = all(isinstance(v, np.ndarray) for v in leaves)
    return None if known and not any(v.any() for v in leaves) else value


def _first_row(
    row: Row, start: Start, slots: int, data: _Linear
) -> tuple[_Linear, _Linear, list[_Linear], PyTree]:
    """Convert, advance, push and predict of a row, on linear functions of x and z."""
    anchor = _Linear(start.anchor, bias=start.anchor_bias)
    point = _Linear(start.point, bias=start.point_bias)
    old = [_Linear(_at(start.history, k)) for k in range(slots)]
    c, found = row.convert, []
    for p in range(jax.tree.leaves(c.prediction)[0].shape[0]):
        terms = [(_at(c.point, p), point), (_at(c.prediction, p), data)]
        found.append(_sum(terms, bias=_at(c.bias, p)))

    a = row.advance
    terms = [(a.anchor, anchor), (a.point, point)]
    terms += [(_at(a.evaluation, p), d) for p, d in enumerate(found)]
    terms += [(_at(a.history, k), h) for k, h in enumerate(old)]
    anchor = _sum(terms, a.noise, a.bias)

    history = list(old)
    for w in range(row.push.slot.shape[0]):
        own, kept = _at(row.push.evaluation, w), _at(row.push.history, w)
        terms = [(_at(own, p), d) for p, d in enumerate(found)]
        terms += [(_at(kept, k), h) for k, h in enumerate(old)]
        history[int(row.push.slot[w])] = _sum(terms)

    # the register starts at zero: only this row's draw is in it
    register = None if row.register is None else row.register.draw
    p = row.predict
    terms = [(p.anchor, anchor)]
    terms += [(_at(p.history, k), h) for k, h in enumerate(history)]
    drawn = _add(p.noise, _times(p.register, register))
    return anchor, _sum(terms, drawn, p.bias), history, register


def _carry_bias(rows: Row, constants: list[PyTree]) -> Row:
    """Stored evaluations lack these constants: add them back wherever they are read."""
    advance, predict = [], []
    for i in range(rows.index.shape[0]):
        row = jax.tree.map(lambda w, i=i: w[i], rows)
        advance.append(_read(row.advance, constants))
        after = list(constants)
        for w in range(row.push.slot.shape[0]):
            kept = _at(row.push.history, w)
            parts = [_times(_at(kept, k), c) for k, c in enumerate(constants)]
            after[int(row.push.slot[w])] = _total(parts)
        constants = after
        predict.append(_read(row.predict, constants))
    return rows._replace(
        advance=rows.advance._replace(bias=_stacked(advance)),
        predict=rows.predict._replace(bias=_stacked(predict)),
    )


def _read(move: Move, constants: list[PyTree]) -> PyTree:
    parts = [_times(_at(move.history, k), c) for k, c in enumerate(constants)]
    return _add(move.bias, _total(parts))


# ------------------------------------------------- arithmetic where None is zero


def _at(weights: PyTree, k: int) -> PyTree:
    return None if weights is None else jax.tree.map(lambda w: w[k], weights)


def _pair(a: PyTree, b: PyTree, apply: Any) -> PyTree:
    """Apply to two weights, each one array or a tree like the state."""
    single = jax.tree.structure(0)
    if jax.tree.structure(a) == single:
        return jax.tree.map(lambda w: apply(a, w), b)
    if jax.tree.structure(b) == single:
        return jax.tree.map(lambda w: apply(w, b), a)
    return jax.tree.map(apply, a, b)


def _times(a: PyTree, b: PyTree) -> PyTree:
    return None if a is None or b is None else _pair(a, b, lambda u, v: u * v)


def _add(a: PyTree, b: PyTree) -> PyTree:
    if a is None or b is None:
        return b if a is None else a
    return _pair(a, b, lambda u, v: u + v)


def _total(parts: list[PyTree]) -> PyTree:
    out = None
    for part in parts:
        out = _add(out, part)
    return out


def _sum(
    terms: list[tuple[PyTree, _Linear]], noise: PyTree = None, bias: PyTree = None
) -> _Linear:
    return _Linear(
        _total([_times(w, v.x) for w, v in terms]),
        _add(noise, _total([_times(w, v.noise) for w, v in terms])),
        _add(bias, _total([_times(w, v.bias) for w, v in terms])),
    )


def _some(weight: PyTree) -> PyTree:
    return np.zeros(()) if weight is None else weight


def _stacked(parts: list[PyTree]) -> PyTree:
    """One array per leaf, parts along a new leading axis; None if all of them are."""
    if all(part is None for part in parts):
        return None
    like = next(part for part in parts if part is not None)
    whole = [_add(jax.tree.map(lambda v: v * 0.0, like), part) for part in parts]

    def stack(*leaves: Any) -> Any:
        xp = namespace(*leaves)
        return xp.stack(xp.broadcast_arrays(*leaves))

    return jax.tree.map(stack, *whole)
