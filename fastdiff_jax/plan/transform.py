"""Plans from plans that need one evaluation less: the first is written down, or shared.

At the noise end a network knows little: its answer may be replaced by a linear function
of x (`analytic_first_step`), or by what it says at the second level (`skip_first`).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from ..guards import checked, within
from ..numerics import as_float, namespace
from ..typing import ArrayLike, Finite, PyTree
from .builders import Lines, axes_of
from .combine import dense, sparse, whole, writes_of
from .core import Level, Plan, Start
from .forms import ONE, Form, lines_of, register

__all__ = ["analytic_first_step", "skip_first"]


@checked
def analytic_first_step(
    plan: Plan, rule: str | tuple[PyTree, PyTree] = "unit", *, mean: Finite = 0.0
) -> Plan:
    """Replace the first evaluation by a linear function of x: one call less.

    Row 0 becomes part of the plan's start; the other rows keep their numbers, so their
    noise is that of the whole plan.

    'unit':  E = x / sqrt(alpha^2 + sigma^2)   (AFS for data of unit variance)
    'noise': E = x                             (USF, 2312.07243; unit-variance paths)
    'data':  D = mean                          (USF with the data set's mean)
    (w, b):  D = w x + b

    Args:
        plan: any plan of scalar or per-element weights whose start draws no noise.
        rule: one of the above; w and b broadcast against the state.
        mean: of the data, for 'data'; a number or an array that broadcasts against one
            sample's state, shape (...).

    Returns:
        A plan with one row fewer.

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
    start = _startable(plan, "analytic_first_step")
    within("(-inf, inf)", mean=mean)
    full, answer = dense(whole(plan, True)), _prediction(plan.rows.level, rule, mean)
    like = jax.tree.structure(plan.rows.registers)
    given = [
        v if jax.tree.structure(v) == like else like.unflatten([v] * like.num_leaves)
        for v in answer
    ]
    x, _, bias = full.start or start
    weights = (*full.rows[3:5], *full.rows[6:8], x, bias, *given)
    made = Start(*_by_leaf(_after_first, *weights))
    if plan.rows.noise is None:
        made = made._replace(noise=None)
    biases = jax.tree.leaves(made.bias)
    if all(isinstance(w, np.ndarray) and not w.any() for w in biases):
        made = made._replace(bias=None)
    rows = jax.tree.map(lambda w: w[1:], plan.rows)
    return dataclasses.replace(plan, rows=rows, start=made)


def _after_first(*weights: Any) -> tuple:
    """Weights of the registers after the first row, where D = slope x + offset."""
    *row, x, bias, _, _ = weights
    slope, offset = as_float(*weights[-2:])[1]
    held = [
        a * register(0) + b * ONE
        for a, b in zip(x[:, None], bias[:, None], strict=True)
    ]
    known = {("register", k): form for k, form in enumerate(held)}
    answer = slope[None] * held[0] + offset[None] * ONE
    known |= {("prediction", p): answer for p in range(row[1].shape[2])}
    forms = [line.put(known) for line in lines_of(*(w[:1] for w in row))[:-1]]
    axes = axes_of([w for form in forms for w in form.parts.values()])
    parts = (("register", 0), ("noise",), ("one",))
    return tuple(w[0] for w in Lines(forms, 1, axes, False).each(parts))


@checked
def skip_first(plan: Plan) -> Plan:
    """Drop the first evaluation; the second is asked at x itself and serves for both.

    Where the network answers with the mean of the data whatever the noise, as at the
    noise end, D_0 = D_1 at any point: a plan of N + 1 evaluations for the price of N.
    Row 0 joins row 1: the network is told row 1's level, and given x, which stands at
    row 0's.

    Args:
        plan: any plan of two rows or more whose start draws no noise.

    Returns:
        A plan with one row fewer. Start it from the level of the whole plan's first
        row, as `fd.prior(process, key, shape)` does.

    Raises:
        ValueError: fewer than two rows, a padded plan, a start that draws noise, or
            first rows whose two draws are not one (noise of stages).

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.ipndm(process, fd.grids.log_snr(process, 6), order=3)
        >>> short = fd.plan.skip_first(plan)
        >>> short.nfe, float(short.rows.level.time[0]) == float(plan.rows.level.time[1])
        (5, True)
    """
    _startable(plan, "skip_first", matrix=True)
    full, written = dense(whole(plan, True)), writes_of(plan)
    joined = partial(_joined, matrix=plan.matrix)
    a, b, noise, bias = _by_leaf(joined, *full.rows[3:5], *full.rows[6:8])
    rows = jax.tree.map(lambda w: w[1:], full.rows)
    rows = rows._replace(registers=a, predictions=b, noise=noise, bias=bias)
    both = np.append(written[:1] | written[1:2], written[2:], 0)
    made = sparse(dataclasses.replace(plan, rows=rows), both, plan.writes)
    lacks = {n: None for n in ("noise", "bias") if getattr(plan.rows, n) is None}
    return dataclasses.replace(made, rows=made.rows._replace(**lacks))


def _joined(*weights: Any, matrix: bool) -> tuple:
    """Dense rows, the first two as one: one prediction serves both."""
    count, answers, rows = weights[0].shape[2], weights[1].shape[2], len(weights[0])
    first, second, rest = (
        lines_of(*(w[a:b] for w in weights)) for a, b in ((0, 1), (1, 2), (2, rows))
    )
    early = {("noise",): Form({("early",): 1.0})}
    known = {
        ("register", k): line.put(early, matrix) for k, line in enumerate(first[:-1])
    }
    both = [line.put(known, matrix) for line in second]
    axes = axes_of([w for f in (*both, *rest) for w in f.parts.values()], matrix)
    parts = [("register", k) for k in range(count)]
    parts += [("prediction", p) for p in range(answers)]
    parts += [("early",), ("noise",), ("one",)]
    tables = [Lines(f, n, axes, matrix) for f, n in ((both, 1), (rest, rows - 2))]
    found = [
        namespace(*w).concatenate(w)
        for w in zip(*(table.each(parts) for table in tables), strict=True)
    ]
    xp, (u, v, bias) = namespace(*found), found[-3:]
    a, b = found[:count], found[count:-3]
    return xp.stack(a, 2), xp.stack(b, 2), _one_draw(u, v), bias


def _one_draw(u: Any, v: Any) -> Any:
    """Two independent draws as one, where they go to the registers the same way."""
    xp = namespace(u, v)
    gap = (u * v[:, :1] - v * u[:, :1])[:, :-1]  # of the registers, not of the sample
    if xp is np and np.abs(gap).max() > 1e-12 * np.abs(u).max() * np.abs(v).max():
        raise ValueError(
            "skip_first cannot join two draws that go to different places, as those "
            "of stages do. Use a multistep method, or no noise in the first step."
        )
    whole = xp.sqrt(u**2 + v**2)
    return xp.where(u + v < 0, -whole, whole)


# ------------------------------------------------------------------------ helpers


def _startable(plan: Plan, name: str, matrix: bool = False) -> Start:
    padded = plan.rows.active is not None
    if plan.length < 2 or padded or plan.start is None:
        what = "padded" if padded else "" if plan.start else "a slice"
        raise ValueError(
            f"{name} needs an unpadded plan of at least 2 rows from its start, got "
            f"{plan.length} {what}. Apply it before plan.pad and plan.slice_rows, to a "
            "grid of more steps."
        )
    if plan.start.noise is not None:
        raise ValueError(
            f"{name} needs a start that draws no noise: the first row is no longer at "
            "its level. Apply it without churn at the start."
        )
    if plan.matrix and not matrix:
        raise ValueError(
            f"{name} does not compose matrix weights. Use a plan with matrix=False."
        )
    return plan.start


def _prediction(level: Level, rule: Any, mean: ArrayLike) -> tuple[PyTree, PyTree]:
    """(w, b) of D = w x + b at the first row's level."""
    alpha, sigma = (jax.tree.map(lambda w: w[0], v) for v in level[1:])
    if isinstance(rule, tuple):
        return rule
    if rule == "data":
        return 0.0, mean
    if rule == "unit":  # (1 - sigma / r) / alpha without the 0 / 0 at alpha = 0
        norm = namespace(alpha).sqrt(alpha**2 + sigma**2)
        return alpha / (norm * (norm + sigma)), 0.0
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
    return (1 - sigma) / alpha, 0.0


def _by_leaf(change: Callable[..., tuple], *weights: PyTree) -> tuple:
    """A change of weights, leaf by leaf of the state; its results as trees like it."""
    found = jax.tree.map(change, *weights)
    like = jax.tree.structure(weights[0])
    leaves = like.flatten_up_to(found)
    return tuple(like.unflatten(w) for w in zip(*leaves, strict=True))
