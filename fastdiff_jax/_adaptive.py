"""The loop of the adaptive DPM-Solver: one system, trial by trial."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .numerics import mix
from .solvers._singlestep import Target, step_rows
from .typing import Array, PyTree

__all__ = ["PID", "AdaptiveInfo", "Power", "Problem", "Settings", "rms", "solve"]


class AdaptiveInfo(NamedTuple):
    """What a run cost; shape (B,), or scalars for a single sample.

    Attributes:
        nfe: model evaluations that the sample's own steps used.
        accepted, rejected: trial steps.
        failed: the end was not reached within `max_evaluations`; the sample is then
            the last accepted one, at a level noisier than asked for.
    """

    nfe: Array
    accepted: Array
    rejected: Array
    failed: Array


class Power(NamedTuple):
    """Accept if E <= 1; h <- safety h E^{-1/p}. The paper's rule."""

    safety: float = 0.9


class PID(NamedTuple):
    """Accept if the factor is >= `accept`; h <- factor h (k-diffusion's rule).

    factor = 1 + atan(e_0^b1 e_1^b2 e_2^b3 - 1), with e_0 the newest and e_1, e_2 the
    last accepted values of 1/E and p b1 = p + i + d, p b2 = -(p + 2d), p b3 = d.
    """

    proportional: float = 0.0
    integral: float = 1.0
    derivative: float = 0.0
    accept: float = 0.81


class Settings(NamedTuple):
    """What is static in a compiled run."""

    denoiser: Any
    process: Any
    order: int
    prediction: str
    variant: str
    controller: Power | PID
    coupled: str
    denoise: bool


class _State(NamedTuple):
    """The loop's state for one system: a sample, or a batch that shares its steps."""

    x: PyTree
    low: PyTree  # the lower-order result of the last accepted step
    time: Array
    lam: Array
    h: Array
    inverse_errors: Array  # (2,), of the last accepted steps; 0 before the first
    nfe: Array
    accepted: Array
    rejected: Array
    done: Array
    carry: PyTree


class Problem(NamedTuple):
    """What does not change during a system's run."""

    settings: Settings
    level: Callable  # time -> Level
    time_at: Callable  # half log-SNR -> time
    evaluate: Callable  # (x, level, number of the evaluation, carry) -> (m, carry)
    denoised: Callable  # the same, but the data prediction itself
    error: Callable  # tree of |difference| / tolerance -> scalar
    rtol: Array
    atol: Array
    end: tuple[Array, Array]  # time, half log-SNR


def _trial(
    p: Problem, state: _State, h: Array, last: Array
) -> tuple[PyTree, PyTree, PyTree, Array, Array]:
    """One step at both orders: (high, low, carry, time, half log-SNR)."""
    order = p.settings.order
    fractions = (0.5,) if order == 2 else (1 / 3, 2 / 3)
    lams = [state.lam + r * h for r in fractions]
    lams.append(jnp.where(last, p.end[1], state.lam + h))
    times = [state.time, *(p.time_at(lam) for lam in lams)]
    times[-1] = jnp.where(last, p.end[0], times[-1])
    levels = [p.level(t) for t in times]
    scales = [(v.alpha, v.sigma) for v in levels]
    form = (p.settings.prediction, p.settings.variant)
    high = step_rows(h, fractions, scales, *form)
    low = step_rows(h, fractions[:-1], [*scales[:-2], scales[-1]], *form)[-1]

    def go(target: Target, found: list) -> PyTree:
        terms = list(zip(target.weights, reversed(found), strict=True))
        return mix([(target.keep, state.x), *terms])

    point, carry, found = state.x, state.carry, []
    for j, target in enumerate(high):
        m, carry = p.evaluate(point, levels[j], state.nfe + j, carry)
        found.append(m)
        point = go(target, found)
    return point, go(low, found[: order - 1]), carry, times[-1], lams[-1]


def _scaled(p: Problem, high: PyTree, low: PyTree, before: PyTree) -> PyTree:
    def leaf(a: Array, b: Array, c: Array) -> Array:
        size = jnp.maximum(jnp.abs(b), jnp.abs(c))
        delta = jnp.maximum(p.atol.astype(size.dtype), p.rtol.astype(size.dtype) * size)
        return jnp.abs(a - b) / delta

    return jax.tree.map(leaf, high, low, before)


def _decide(
    p: Problem, state: _State, h: Array, error: Array
) -> tuple[Array, Array, Array]:
    """(accept, next step length, inverse errors of the last accepted steps).

    `h` is what the trial took, at most what was left; PID goes on from what it asked.
    """
    c, order = p.settings.controller, p.settings.order
    finite = jnp.isfinite(error)
    safe = jnp.where(finite, error, 1.0)
    if isinstance(c, Power):
        accept, kept = finite & (error <= 1), state.inverse_errors
        grown = c.safety * h * jnp.where(safe > 0, safe, 1e-30) ** (-1 / order)
    else:
        inverse = 1 / (safe + 1e-8)
        past = jnp.where(state.nfe == 0, inverse, state.inverse_errors)
        b1 = (c.proportional + c.integral + c.derivative) / order
        b2 = -(c.proportional + 2 * c.derivative) / order
        b3 = c.derivative / order
        factor = 1 + jnp.arctan(inverse**b1 * past[0] ** b2 * past[1] ** b3 - 1)
        accept, grown = finite & (factor >= c.accept), factor * state.h
        kept = jnp.where(accept, jnp.stack([inverse, past[0]]), past)
    # a trial that overflowed says nothing about the error: halve
    return accept, jnp.where(finite, grown, h / 2), kept


def solve(
    p: Problem, x: PyTree, carry: PyTree, first: tuple, h_init: Array, bound: Array
) -> tuple[PyTree, AdaptiveInfo]:
    """Trial steps from `first` (time, half log-SNR) to the end or to the bound."""
    order = p.settings.order

    def body(state: _State) -> _State:
        left = p.end[1] - state.lam
        h, last = jnp.minimum(state.h, left), state.h >= left
        high, low, carry, time, lam = _trial(p, state, h, last)
        error = p.error(_scaled(p, high, low, state.low)).astype(h.dtype)
        accept, following, kept = _decide(p, state, h, error)

        def either(new: PyTree, old: PyTree) -> PyTree:
            return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)

        return _State(
            x=either(high, state.x),
            low=either(low, state.low),
            time=either(time, state.time),
            lam=either(lam, state.lam),
            h=following,
            inverse_errors=kept,
            nfe=state.nfe + order,
            accepted=state.accepted + accept.astype(jnp.int32),
            rejected=state.rejected + (~accept).astype(jnp.int32),
            done=accept & last,
            carry=carry,
        )

    none, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    inverse = jnp.zeros(2, h_init.dtype)
    begin = _State(x, x, *first, h_init, inverse, zero, zero, zero, none, carry)
    final = jax.lax.while_loop(
        lambda state: ~state.done & (state.nfe + order <= bound), body, begin
    )
    x, nfe = final.x, final.nfe
    if p.settings.denoise:
        x, _ = p.denoised(x, p.level(final.time), nfe, final.carry)
        nfe = nfe + 1
    return x, AdaptiveInfo(nfe, final.accepted, final.rejected, ~final.done)


def rms(scaled: PyTree, batched: bool) -> Array:
    """Root mean square over everything but the batch, (B,) or a scalar."""
    leaves = jax.tree.leaves(scaled)
    lead = 1 if batched else 0
    count = sum(math.prod(v.shape[lead:]) for v in leaves)
    wide = max((v.dtype for v in leaves), key=lambda d: d.itemsize)
    squares = [(v.astype(wide) ** 2).sum(tuple(range(lead, v.ndim))) for v in leaves]
    return jnp.sqrt(sum(squares[1:], squares[0]) / count)
