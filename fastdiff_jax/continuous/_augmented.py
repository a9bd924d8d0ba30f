"""The probability-flow ODE with the divergence beside it, one sample at a time."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from ..hooks import answer, carry_of
from ..plan import Level
from ..programs import compiled
from ..states import like_state, real_dtype
from ..typing import Array, Context, Key, PyTree
from ._clock import clock_of, level_at

__all__ = ["Settings", "compiled", "normal_log_prob", "run", "size_of"]


class Settings(NamedTuple):
    """What is static in a compiled run."""

    probes: int
    probe: str
    solver: Any
    steps: int | None
    max_steps: int
    chunk: int
    matched: bool = False
    adjoint: Any = None


_ALONE = "Samples come one at a time: pass what differs between them as condition=..."


def size_of(x: PyTree) -> int:
    """Elements of one sample."""
    return sum(math.prod(v.shape[1:]) for v in jax.tree.leaves(x))


def normal_log_prob(x: PyTree, sigma: Array) -> Array:
    """Log N(x; 0, sigma^2 I) of every sample."""
    flat = jax.vmap(lambda v: ravel_pytree(v)[0])(x) / sigma
    size = flat.shape[1]
    return -(flat**2).sum(1) / 2 - size * (math.log(2 * math.pi) / 2 + jnp.log(sigma))


def _probes(key: Key | None, size: int, dtype: Any, s: Settings) -> Array | None:
    """(probes, d), a function of the sample's key alone."""
    if key is None:  # the exact trace
        return None
    if s.probe == "gaussian":
        return jax.random.normal(key, (s.probes, size), dtype)
    return jax.random.rademacher(key, (s.probes, size), dtype)


def _norm(scaled: tuple[Array, Array]) -> Array:
    """The larger error of the state and of the divergence, whatever the dimension."""
    y, volume = scaled
    return jnp.maximum(jnp.sqrt((y**2).mean()), jnp.sqrt((volume**2).mean()))


def run(
    parts: tuple,
    x: PyTree,
    keys: Key | None,
    numbers: tuple,
    condition: PyTree,
    controls: PyTree,
    s: Settings,
) -> tuple:
    """Latents; integrals / d and excess, (B, probes); lambda_end, sigma_T; counts."""
    denoiser, process = parts
    dtype = real_dtype(x)
    start, end, rtol, atol = (jnp.asarray(v, dtype) for v in numbers)
    first, last = (clock_of(process, t).astype(dtype) for t in (end, start))
    top = jnp.hypot(process.alpha(start), process.sigma(start)).astype(dtype)
    carry = carry_of(denoiser, jax.tree.map(lambda v: v[:1], x))
    if jax.tree.leaves(carry):
        raise ValueError(
            "the likelihood needs a denoiser without a memory: an adaptive solver "
            "evaluates at trial points. Remove the wrapper that keeps a carry."
        )

    def one(x: PyTree, key: Key | None, condition: PyTree) -> tuple:
        flat, unravel = ravel_pytree(x)
        flat, size = flat.astype(dtype), flat.size
        condition = jax.tree.map(lambda v: v[None], condition)

        def denoised(y: Array, at: Level) -> Array:
            point = unravel(jnp.hypot(at.alpha, at.sigma) * y)
            point = jax.tree.map(lambda v: v[None], point)
            context = Context(0, *at, controls, condition)
            found, _ = answer(denoiser, point, context, carry)
            return ravel_pytree(like_state(point, found, _ALONE))[0].astype(dtype)

        def field(v: Array, state: tuple[Array, Array], probes: Any) -> tuple:
            y, _ = state
            at = level_at(process, v, (end, start))
            found, along = jax.linearize(lambda y: denoised(y, at), y)
            trace = _trace(along, y, probes, s.chunk)
            return found - jnp.tanh(v) * y, trace / size

        drawn = _probes(key, size, dtype, s)
        y0 = jnp.tanh(first) * flat, jnp.zeros((s.probes,), dtype)
        solution = _solve(field, (first, last), y0, drawn, (rtol, atol), s)
        y, volume = jax.tree.map(lambda v: v[-1], solution.ys)
        calls = _calls(s.solver.tableau, solution.stats["num_steps"])
        failed = solution.result != diffrax.RESULTS.successful
        excess = jnp.zeros_like(volume)
        if s.matched:
            at, calls = level_at(process, last, (end, start)), calls + 2
            slope, trace = field(last, (y, volume), drawn)
            told = slope + jnp.tanh(last) * y, denoised(0 * y, at)
            excess = _excess(top * y, *told, trace * size / top, at.alpha, at.sigma)
        return unravel(top * y), volume, excess, calls, failed

    latent, volume, excess, calls, failed = jax.vmap(one)(
        x, keys, jax.tree.map(jnp.asarray, condition)
    )
    lam = process.half_log_snr(end).astype(dtype)
    sigma = process.sigma(start).astype(dtype)
    return latent, volume, excess, lam, sigma, calls, failed


def _trace(along: Callable, y: Array, probes: Any, chunk: int) -> Array:
    """The trace of a linear map: of each probe, or the whole, (1,)."""
    if probes is not None:
        return _chunked(lambda e: (e * along(e)).sum(), probes, chunk)
    basis = lambda i: jax.nn.one_hot(i, y.size, dtype=y.dtype)  # noqa: E731
    entry = lambda i: along(basis(i))[i]  # noqa: E731
    return _chunked(entry, jnp.arange(y.size), chunk).sum()[None]


def _excess(
    x: Array, found: Array, centre: Array, trace: Array, alpha: Array, sigma: Array
) -> Array:
    """Log of the marginal at x over N(0, sigma^2), to second order in alpha / sigma.

    With m and C the data's mean and covariance, D(0) = m and D(x) = m + alpha C x /
    sigma^2 to that order, and log E exp(alpha x . x_0 / sigma^2 - alpha^2 |x_0|^2 /
    2 sigma^2) is the sum of their first two cumulants.
    """
    ratio = alpha / sigma**2
    line = ratio * (x * (found + centre)).sum() / 2
    return line - alpha * (ratio * (centre**2).sum() + trace) / 2


solved = compiled(run, static=("s",))


def _chunked(fn: Callable, xs: Array, chunk: int) -> Array:
    """Vmap, some at a time."""
    if len(xs) <= chunk:
        return jax.vmap(fn)(xs)
    return jax.lax.map(fn, xs, batch_size=chunk)


def _solve(
    field: Callable, ends: tuple, y0: tuple, args: Any, tolerances: tuple, s: Settings
) -> diffrax.Solution:
    first, last = ends
    if s.steps is None:
        rtol, atol = tolerances
        control = diffrax.PIDController(rtol=rtol, atol=atol, norm=_norm)
        dt0 = jnp.maximum(last - first, -0.1)  # rejections correct a poor guess
    else:
        control, dt0 = diffrax.ConstantStepSize(), (last - first) / s.steps
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        s.solver,
        first,
        last,
        dt0,
        y0,
        args,
        stepsize_controller=control,
        max_steps=s.max_steps + 1,
        adjoint=s.adjoint,
        throw=False,
    )


def _calls(tableau: diffrax.ButcherTableau, trials: Array) -> Array:
    """Evaluations of that many trial steps; the last stage may serve the next step."""
    fresh = tableau.num_stages - int(tableau.fsal)
    return fresh * trials + int(tableau.fsal)
