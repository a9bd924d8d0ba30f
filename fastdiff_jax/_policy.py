"""What makes a row of a plan a Gaussian decision: its mean, its density, the checks."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from . import engine
from .engine.noise import batch_of
from .engine.rows import floating
from .hooks import carry_of, check_inner
from .numerics import scale
from .plan import Plan, Row, point_weights
from .typing import Array, Denoiser, Key, PyTree

__all__ = ["density", "deviation", "mean_of", "start", "trusted"]


def mean_of(
    plan: Plan, denoiser: Denoiser, state: engine.State, row: Row
) -> engine.State:
    """The row without its noise."""
    zero = jax.tree.map(jnp.zeros_like, state.point)
    return engine.step(state, row, denoiser, noise=zero, matrix=plan.matrix)[0]


def deviation(row: Row, like: PyTree) -> PyTree:
    """The noise weights of a row, spread over the state."""
    ones = jax.tree.map(jnp.ones_like, like)
    return jax.tree.map(jnp.abs, scale(row.advance.noise, ones))


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
    total = sum(p[0] for p in parts)
    return total / jnp.maximum(sum(p[1] for p in parts), 1) if mean else total


def start(plan: Plan, denoiser: Denoiser, x: PyTree, key: Key | None) -> engine.State:
    """The state before the first row, after checking plan and denoiser."""
    check(plan)
    check_inner(denoiser, plan)
    x = floating(x)
    if any(jnp.iscomplexobj(v) for v in jax.tree.leaves(x)):
        raise ValueError("x must be real: the density is that of real noise.")
    return engine.init(plan, x, key, carry=carry_of(denoiser, x))


def check(plan: Plan) -> None:
    """ValueError for a plan whose rows are no Gaussian decisions."""
    rows = plan.rows
    hint = (
        "Use a multistep SDE solver, e.g. sde_dpmpp_1, sde_dpmpp_2m, ddim(eta=1) or "
        "euler_maruyama."
    )
    composed = rows.register is not None or rows.advance.register is not None
    if composed or rows.predict.noise is not None or rows.predict.register is not None:
        raise ValueError(
            "this plan composes noise over several rows (a noise register, or noise on "
            f"the point), so that its rows have no density of their own. {hint}"
        )
    if rows.advance.noise is None:
        raise ValueError(
            f"this plan draws no noise, so that nothing is random. {hint} A window: "
            "tau2=policy.window(steps, first, width, tau2)."
        )
    if plan.start is not None:
        raise ValueError(
            "this plan has a start move, which the path would have to hold too. Build "
            "it without prior shift, analytic first step or churn."
        )
    if plan.matrix:
        raise ValueError(
            "this plan mixes channels by matrices; the density is implemented for "
            "noise that is independent per element."
        )
    if not _ends_steps(rows):
        raise ValueError(
            "this plan has rows that do not end a step (Runge-Kutta stages, or a "
            f"predictor after the corrector). {hint}"
        )


def _ends_steps(rows: Row) -> bool:
    """Whether every row leaves point = anchor, as far as the weights are concrete."""
    return all(
        not isinstance(w, np.ndarray) or bool((w == value).all())
        for w, value in point_weights(rows)
    )


def trusted(plan: Plan, scores: Array) -> Array:
    """The scores; NaN if traced weights turn out to have rows that end no step."""
    traced = [
        (w, v) for w, v in point_weights(plan.rows) if not isinstance(w, np.ndarray)
    ]
    for w, value in traced:
        scores = jnp.where((jnp.asarray(w) == value).all(), scores, jnp.nan)
    return scores
