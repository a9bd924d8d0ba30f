"""Adaptive DPM-Solver: embedded pairs 1(2) and 2(3) with error control.

Every trial takes one singlestep DPM-Solver step of order p, and one of order p - 1 that
shares its evaluations; their distance sets the next step in half log-SNR. Not a table:
the number of evaluations depends on the data, so this is a `lax.while_loop` over the
weights that the singlestep plans are made of. Lu et al. 2022 (2206.00927), section 3.4
and appendix C.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import bounded, checked, in_domain, positive
from ..hooks import answer, carry_of
from ..plan import Level
from ..programs import compiled
from ..solvers.singlestep._singlestep import VARIANTS, step_rows
from ..states import (
    batch_of,
    floating,
    like_state,
    mix,
    nan_where,
    per_batch,
    real_dtype,
)
from ..trees import as_tree, concrete
from ..typing import Array, Context, Denoiser, Process, PyTree

__all__ = ["PID", "AdaptiveInfo", "Power", "dpm_solver_adaptive"]


class AdaptiveInfo(NamedTuple):
    """What a run cost; shape (B,), or scalars for a single sample.

    Attributes:
        nfe: model evaluations that the sample's own steps used.
        accepted, rejected: trial steps.
        failed: the end was not reached within `max_evaluations`; the sample is then
            NaN, since what was reached stands at a noisier level than asked for.
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


class _Settings(NamedTuple):
    """What is static in a compiled run."""

    order: int
    prediction: str
    variant: str
    controller: Power | PID
    coupled: str
    denoise: bool


@checked
def dpm_solver_adaptive(
    process: Process,
    denoiser: Denoiser,
    x: PyTree,
    *,
    order: int = 3,
    start: float | None = None,
    end: float | None = None,
    prediction: str = "noise",
    variant: str = "dpmsolver",
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    controller: Power | PID | None = None,
    coupled: bool | str = False,
    denoise: bool = False,
    max_evaluations: int = 10_000,
    condition: PyTree = None,
    controls: PyTree = None,
) -> tuple[PyTree, AdaptiveInfo]:
    """Draw samples with DPM-Solver-12 (order 2) or -23 (order 3) under error control.

    E = rms((x_high - x_low) / max(atol, rtol max(|x_low|, |x_low of the last step|)))

    Each sample has its own step size, stops on its own and does not depend on the rest
    of the batch. The denoiser then sees samples one at a time, under vmap, with a
    batch axis of 1: what differs between samples goes into `condition`, or outside,
    `jax.vmap(lambda x, y: dpm_solver_adaptive(process, cfg(model, condition=y[None],
    null=null), x[None]))(x, labels)`.

    Args:
        process: the path; alpha(start) > 0 and sigma(end) > 0.
        denoiser: (x, context, carry) -> (data prediction, carry), see `fd.models`.
        x: noise at the level of `start`. A tree whose leaves share a leading axis is a
            batch along it; otherwise it is one sample.
        order: 2 or 3, order of the step that is kept; one trial costs as many calls.
        start, end: first and last time, None for the process' own.
        prediction: 'noise', or 'data' for DPM-Solver++.
        variant: 'dpmsolver' or 'taylor', see `solvers.dpm_solver_2`.
        rtol, atol: relative and absolute tolerance of a step.
        h_init: first step in half log-SNR.
        controller: `Power()` (the paper's, default) or `PID()`.
        coupled: one step size for the whole batch, as published: True or 'max' takes
            the largest error over samples, 'rms' (k-diffusion) pools them.
        denoise: one more evaluation, from `end` to sigma = 0.
        max_evaluations: bound for each sample; a run that hits it sets `failed`.
        condition: for `context.condition`, leaves with a leading axis of the batch.
        controls: for `context.controls`, the same at every evaluation.

    Returns:
        The sample, a tree like x (float32 at least), and an `AdaptiveInfo`.

    Raises:
        ValueError: an option out of range, or an infinite half log-SNR at an end.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> from fastdiff_jax.continuous import dpm_solver_adaptive
        >>> process = fd.processes.vp_linear()
        >>> model = fd.models.gaussian(mean=2.0, variance=0.25)
        >>> x = fd.prior(process, jax.random.key(0), (100, 1))
        >>> sample, info = dpm_solver_adaptive(process, model, x)
        >>> info.nfe.shape, bool(info.failed.any())
        ((100,), False)
    """
    start = process.start if start is None else start
    end = process.end if end is None else end
    controller = Power() if controller is None else controller
    x = floating(x)
    _check(process, start, end, order, prediction, variant, coupled)
    per_batch("condition", condition, x)
    coupled = "max" if coupled is True else coupled or ""
    positive(rtol=rtol, atol=atol, h_init=h_init)
    bounded("max_evaluations", max_evaluations, order, fix="One trial step takes them.")
    settings = _Settings(order, prediction, variant, controller, coupled, denoise)
    numbers = (start, end, rtol, atol, h_init, max_evaluations)
    parts = (as_tree(denoiser), process)
    return _compiled(parts, x, numbers, condition, controls, s=settings)


def _check(
    process: Process,
    start: Any,
    end: Any,
    order: int,
    prediction: str,
    variant: str,
    coupled: bool | str,
) -> None:
    if order not in (2, 3):
        raise ValueError(
            f"order must be 2 (DPM-Solver-12) or 3 (DPM-Solver-23), got {order!r}."
        )
    if prediction not in ("noise", "data"):
        raise ValueError(f"prediction must be 'data' or 'noise', got {prediction!r}.")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be 'dpmsolver' or 'taylor', got {variant!r}.")
    if coupled not in (True, False, "max", "rms"):
        raise ValueError(
            f"coupled must be True, False, 'max' or 'rms', got {coupled!r}."
        )
    if not concrete(start, end, process):
        return
    in_domain(process, start=start, end=end)
    for name, time in (("start", start), ("end", end)):
        lam = float(process.half_log_snr(np.asarray(time, np.float64)))
        if not math.isfinite(lam):
            raise ValueError(
                f"adaptive steps need a finite half log-SNR at both ends; it is {lam} "
                f"at {name}={float(time):g}. Move {name} inside; denoise=True goes on "
                "to sigma = 0."
            )
    if not start > end:
        raise ValueError(f"start must be above end, got {start=}, {end=}.")


# -------------------------------------------------------------------- batch and samples


def _pooled(scaled: PyTree, batched: bool, how: str) -> Array:
    each = _rms(scaled, batched)
    if how == "rms":
        return jnp.sqrt((each**2).mean())
    return each.max()


_ALONE = (
    "Samples come one at a time unless coupled: pass what differs between them as "
    "condition=..."
)


def _run(
    parts: tuple,
    x: PyTree,
    numbers: tuple,
    condition: PyTree,
    controls: PyTree,
    s: _Settings,
) -> tuple[PyTree, AdaptiveInfo]:
    denoiser, process = parts
    x = floating(x)
    dtype = real_dtype(x)
    start, end, rtol, atol, h_init = (jnp.asarray(v, dtype) for v in numbers[:5])
    batch = batch_of(x)
    batched = batch is not None

    def level(t: Array) -> Level:
        return Level(t, process.alpha(t).astype(dtype), process.sigma(t).astype(dtype))

    def system(x: PyTree, condition: PyTree) -> tuple[PyTree, AdaptiveInfo]:
        def denoised(x: PyTree, at: Level, index: Array, carry: PyTree) -> tuple:
            context = Context(index, *at, controls, condition)
            found, carry = answer(denoiser, x, context, carry)
            return like_state(x, found, _ALONE), carry

        def evaluate(x: PyTree, at: Level, index: Array, carry: PyTree) -> tuple:
            found, carry = denoised(x, at, index, carry)
            if s.prediction == "noise":
                found = mix([(1 / at.sigma, x), (-at.alpha / at.sigma, found)])
            return found, carry

        lam = [process.half_log_snr(t).astype(dtype) for t in (start, end)]
        problem = _Problem(
            s,
            level,
            lambda v: process.half_log_snr_inverse(v).astype(dtype),
            evaluate,
            denoised,
            lambda scaled: _pooled(scaled, batched, s.coupled),
            rtol,
            atol,
            (end, lam[1]),
        )
        carry = carry_of(denoiser, x)
        return _solve(problem, x, carry, (start, lam[0]), h_init, numbers[5])

    if not batched:
        return system(x, condition)
    if s.coupled:
        found, info = system(x, condition)
        return found, jax.tree.map(lambda v: jnp.broadcast_to(v, (batch,)), info)

    def one(x: PyTree, condition: PyTree) -> tuple[PyTree, AdaptiveInfo]:
        alone = jax.tree.map(lambda v: v[None], (x, condition))
        found, info = system(*alone)
        return jax.tree.map(lambda v: v[0], found), info

    return jax.vmap(one)(x, jax.tree.map(jnp.asarray, condition))


_compiled = compiled(_run, static=("s",))


# ---------------------------------------------------------------- one system's loop


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


class _Problem(NamedTuple):
    """What does not change during a system's run."""

    settings: _Settings
    level: Callable  # time -> Level
    time_at: Callable  # half log-SNR -> time
    evaluate: Callable  # (x, level, number of the evaluation, carry) -> (m, carry)
    denoised: Callable  # the same, but the data prediction itself
    error: Callable  # tree of |difference| / tolerance -> scalar
    rtol: Array
    atol: Array
    end: tuple[Array, Array]  # time, half log-SNR


def _trial(
    p: _Problem, state: _State, h: Array, last: Array
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

    def go(line: tuple, found: list) -> PyTree:
        keep, weights = line
        return mix([(keep, state.x), *zip(weights, found, strict=True)])

    point, carry, found = state.x, state.carry, []
    for j, line in enumerate(high):
        m, carry = p.evaluate(point, levels[j], state.nfe + j, carry)
        found.append(m)
        point = go(line, found)
    return point, go(low, found[: order - 1]), carry, times[-1], lams[-1]


def _scaled(p: _Problem, high: PyTree, low: PyTree, before: PyTree) -> PyTree:
    def leaf(a: Array, b: Array, c: Array) -> Array:
        size = jnp.maximum(jnp.abs(b), jnp.abs(c))
        delta = jnp.maximum(p.atol.astype(size.dtype), p.rtol.astype(size.dtype) * size)
        return jnp.abs(a - b) / delta

    return jax.tree.map(leaf, high, low, before)


def _decide(
    p: _Problem, state: _State, h: Array, error: Array
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


def _solve(
    p: _Problem, x: PyTree, carry: PyTree, first: tuple, h_init: Array, bound: Array
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
    (time, lam), inverse = first, jnp.zeros(2, h_init.dtype)
    begin = _State(x, x, time, lam, h_init, inverse, zero, zero, zero, none, carry)
    final = jax.lax.while_loop(
        lambda state: ~state.done & (state.nfe + order <= bound), body, begin
    )
    x, nfe = final.x, final.nfe
    if p.settings.denoise:
        x, _ = p.denoised(x, p.level(final.time), nfe, final.carry)
        nfe = nfe + 1
    failed = ~final.done
    x = nan_where(failed, x)
    return x, AdaptiveInfo(nfe, final.accepted, final.rejected, failed)


def _rms(scaled: PyTree, batched: bool) -> Array:
    """Root mean square over everything but the batch, (B,) or a scalar."""
    leaves = jax.tree.leaves(scaled)
    lead = 1 if batched else 0
    count = sum(math.prod(v.shape[lead:]) for v in leaves)
    wide = max((v.dtype for v in leaves), key=lambda d: d.itemsize)
    squares = [(v.astype(wide) ** 2).sum(tuple(range(lead, v.ndim))) for v in leaves]
    return jnp.sqrt(sum(squares[1:], squares[0]) / count)
