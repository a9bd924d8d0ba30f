"""Adaptive DPM-Solver: embedded pairs 1(2) and 2(3) with error control.

Every trial takes one singlestep DPM-Solver step of order p, and one of order p - 1 that
shares its evaluations; their distance sets the next step in half log-SNR. Not a table:
the number of evaluations depends on the data, so this is a `lax.while_loop` over the
weights that the singlestep plans are made of. Lu et al. 2022 (2206.00927), section 3.4
and appendix C.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._adaptive import PID, AdaptiveInfo, Power, Problem, Settings, rms, solve
from .engine.rows import floating, like_state
from .hooks import carry_of
from .numerics import mix
from .plan import Level
from .solvers._singlestep import VARIANTS
from .typing import Array, Context, Denoiser, Process, PyTree

__all__ = ["PID", "AdaptiveInfo", "Power", "dpm_solver_adaptive"]


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
        >>> from fastdiff_jax.adaptive import dpm_solver_adaptive
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
    coupled = {True: "max", False: ""}.get(coupled, coupled)  # type: ignore[arg-type]
    _check(process, start, end, order, prediction, variant, coupled)
    _check_numbers(
        rtol=rtol, atol=atol, h_init=h_init, max_evaluations=max_evaluations - order + 1
    )
    free = {"denoiser": denoiser, "process": process}
    traced = {k: v for k, v in free.items() if not jax.tree_util.all_leaves([v])}
    static = {k: None if k in traced else v for k, v in free.items()}
    settings = Settings(
        **static,
        order=order,
        prediction=prediction,
        variant=variant,
        controller=controller,
        coupled=coupled,
        denoise=denoise,
    )
    numbers = (start, end, rtol, atol, h_init, max_evaluations)
    try:
        hash(settings)
    except TypeError:  # an unhashable callable cannot key the cache
        return _run(traced, x, numbers, condition, controls, settings)
    return _compiled(traced, x, numbers, condition, controls, settings)


def _check(
    process: Process,
    start: Any,
    end: Any,
    order: int,
    prediction: str,
    variant: str,
    coupled: str,
) -> None:
    if order not in (2, 3):
        raise ValueError(
            f"order must be 2 (DPM-Solver-12) or 3 (DPM-Solver-23), got {order!r}."
        )
    if prediction not in ("noise", "data"):
        raise ValueError(f"prediction must be 'data' or 'noise', got {prediction!r}.")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be 'dpmsolver' or 'taylor', got {variant!r}.")
    if coupled not in ("", "max", "rms"):
        raise ValueError(
            f"coupled must be True, False, 'max' or 'rms', got {coupled!r}."
        )
    leaves = [start, end, *jax.tree.leaves(process)]
    if any(isinstance(v, jax.core.Tracer) for v in leaves):
        return
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


def _check_numbers(**values: Any) -> None:
    for name, value in values.items():
        if isinstance(value, int | float) and not value > 0:
            if name == "max_evaluations":
                raise ValueError("max_evaluations must allow at least one trial step.")
            raise ValueError(f"{name} must be > 0, got {value}.")


# -------------------------------------------------------------------- batch and samples


def _pooled(scaled: PyTree, batched: bool, how: str) -> Array:
    each = rms(scaled, batched)
    if how == "rms":
        return jnp.sqrt((each**2).mean())
    return each.max()


_ALONE = (
    "Samples come one at a time unless coupled: pass what differs between them as "
    "condition=..."
)


def _run(
    traced: dict,
    x: PyTree,
    numbers: tuple,
    condition: PyTree,
    controls: PyTree,
    s: Settings,
) -> tuple[PyTree, AdaptiveInfo]:
    denoiser = traced.get("denoiser", s.denoiser)
    process = traced.get("process", s.process)
    x = floating(x)
    dtype = max((v.real.dtype for v in jax.tree.leaves(x)), key=lambda d: d.itemsize)
    start, end, rtol, atol, h_init = (jnp.asarray(v, dtype) for v in numbers[:5])
    sizes = {v.shape[0] if v.ndim else None for v in jax.tree.leaves(x)}
    batched = len(sizes) == 1 and None not in sizes

    def level(t: Array) -> Level:
        return Level(t, process.alpha(t).astype(dtype), process.sigma(t).astype(dtype))

    def system(x: PyTree, condition: PyTree) -> tuple[PyTree, AdaptiveInfo]:
        def denoised(x: PyTree, at: Level, index: Array, carry: PyTree) -> tuple:
            context = Context(index, *at, controls, condition)
            found, carry = denoiser(x, context, carry)
            return like_state(x, found, _ALONE), carry

        def evaluate(x: PyTree, at: Level, index: Array, carry: PyTree) -> tuple:
            found, carry = denoised(x, at, index, carry)
            if s.prediction == "noise":
                found = mix([(1 / at.sigma, x), (-at.alpha / at.sigma, found)])
            return found, carry

        lam = [process.half_log_snr(t).astype(dtype) for t in (start, end)]
        problem = Problem(
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
        return solve(problem, x, carry, (start, lam[0]), h_init, numbers[5])

    if not batched:
        return system(x, condition)
    if s.coupled:
        found, info = system(x, condition)
        return found, jax.tree.map(lambda v: jnp.broadcast_to(v, tuple(sizes)), info)

    def one(x: PyTree, condition: PyTree) -> tuple[PyTree, AdaptiveInfo]:
        alone = jax.tree.map(lambda v: v[None], (x, condition))
        found, info = system(*alone)
        return jax.tree.map(lambda v: v[0], found), info

    return jax.vmap(one)(x, jax.tree.map(jnp.asarray, condition))


_compiled = jax.jit(_run, static_argnames="s")
