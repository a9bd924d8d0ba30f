"""A row as a Gaussian kernel: its mean, its deviation, its log-density, the checks."""

import dataclasses
import functools
import math
import operator
from typing import Any

import jax
import jax.numpy as jnp

from ..hooks import accepts, carry_of, check_reads
from ..plan import Plan, Row, ends_step
from ..plan.core import pick
from ..states import batch_of, floating, scale
from ..typing import Array, Denoiser, Key, PyTree
from .state import State
from .step import init, step

__all__ = ["density", "deviation", "drawn", "mean_of", "start", "trusted"]


def mean_of(plan: Plan, denoiser: Denoiser, state: State, row: Row) -> State:
    """The row without its noise."""
    zero = jax.tree.map(jnp.zeros_like, state.point)
    return step(state, row, denoiser, noise=zero, matrix=plan.matrix)[0]


def drawn(row: Row, z: PyTree) -> PyTree:
    """What a draw adds to the row's mean."""
    return scale(pick(row.noise, 0), z)


def deviation(row: Row, like: PyTree) -> PyTree:
    """The noise weights of a row, spread over the state."""
    return jax.tree.map(jnp.abs, drawn(row, jax.tree.map(jnp.ones_like, like)))


def density(row: Row, reached: PyTree, expected: PyTree, mean: bool) -> Array:
    """Log N(reached; expected, c^2) per sample, over the elements that have noise."""
    batch = int(batch_of(reached) is not None)

    def leaf(v: Array, m: Array, c: Array) -> tuple[Array, Array]:
        axes = tuple(range(batch, v.ndim))
        noisy = c > 0
        safe = jnp.where(noisy, c, 1)
        term = -(((v - m) / safe) ** 2) / 2 - jnp.log(safe) - math.log(2 * math.pi) / 2
        return jnp.where(noisy, term, 0).sum(axes), noisy.astype(v.dtype).sum(axes)

    spread = jax.tree.leaves(deviation(row, reached))
    leaves = zip(
        jax.tree.leaves(reached), jax.tree.leaves(expected), spread, strict=True
    )
    parts = [leaf(*each) for each in leaves]
    total = sum((p[0] for p in parts[1:]), parts[0][0])
    count = sum((p[1] for p in parts[1:]), parts[0][1])
    return total / jnp.maximum(count, 1) if mean else total


def start(plan: Plan, denoiser: Denoiser, x: PyTree, key: Key | None) -> State:
    """The state before the first row, after checking plan and denoiser."""
    check(plan)
    check_reads(denoiser, plan.reads)
    accepts(denoiser, plan)
    x = floating(x)
    if any(jnp.iscomplexobj(v) for v in jax.tree.leaves(x)):
        raise ValueError("x must be real: the density is that of real noise.")
    begin = plan.start and plan.start._replace(noise=None, bias=None)  # they are 0
    plain = dataclasses.replace(plan, start=begin)
    return init(plain, x, key, carry=carry_of(denoiser, x))


def check(plan: Plan) -> None:
    """ValueError for a plan whose rows are no Gaussian decisions."""
    rows = plan.rows
    hint = (
        "Use a multistep SDE solver, e.g. sde_dpmpp_1, sde_dpmpp_2m, ddim(eta=1) or "
        "euler_maruyama."
    )
    if rows.noise is None:
        raise ValueError(
            f"this plan draws no noise, so that nothing is random. {hint} A window: "
            "tau2=policy.window(steps, first, width, tau2)."
        )
    starts, fresh, ends = _facts(plan)
    if starts is False:
        raise ValueError(
            "this plan has a start move, which the path would have to hold too. Build "
            "it without prior shift, analytic first step or churn."
        )
    if plan.matrix:
        raise ValueError(
            "this plan mixes channels by matrices; the density is implemented for "
            "noise that is independent per element."
        )
    if fresh is False:
        raise ValueError(
            f"this plan keeps a row's draw and composes noise of several rows. {hint}"
        )
    if ends is False:
        raise ValueError(
            "this plan has rows that do not end a step (Runge-Kutta stages, or a "
            f"predictor after the corrector). {hint}"
        )


def _facts(plan: Plan) -> tuple[Any, ...]:
    """Starts as x alone; keeps no draw; rows end steps: True, False or traced."""
    begin, whole = plan.start, jax.tree.leaves(plan.rows.noise)
    if begin is None:
        return False, True, True
    starts = [(w == 0).all() for w in jax.tree.leaves(begin[1:])]
    starts += [(w[0] == 1).all() & (w[1:] == 0).all() for w in jax.tree.leaves(begin.x)]
    fresh = [(w[:, 1:-1] == 0).all() for w in whole]
    found = (starts, fresh, [ends_step(plan.rows).all()])
    return tuple(v if isinstance(v, jax.Array) else bool(v) for v in map(_all, found))


def _all(facts: list) -> Any:
    return functools.reduce(operator.and_, facts)


def trusted(plan: Plan, scores: Array) -> Array:
    """The scores; NaN if traced weights turn out to be no Gaussian decisions."""
    found = [fact for fact in _facts(plan) if isinstance(fact, jax.Array)]
    return jnp.where(_all(found), scores, jnp.nan) if found else scores
