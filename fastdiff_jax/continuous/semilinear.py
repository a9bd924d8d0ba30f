"""Semilinear equations as diffrax terms: an exact linear part, and its own clock.

    dy/dt = L y + N(t, y),          L a number or a diagonal

A clock s(t) and a scale m(t) widen this to time-dependent linear parts: u = y / m(t)
solves

    du/ds = L u + N(t, y),          dy/dt = (m'/m + s' L) y + m s' N

The probability-flow ODE in data prediction is exactly of this kind, with s the half
log-SNR, m = alpha, L = -1 and N = D.
"""

from collections.abc import Callable
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import AbstractTerm

from ..guards import checked
from ..typing import Array, ArrayLike, Process, PyTree

__all__ = ["Clock", "FunctionClock", "ProcessClock", "SemilinearTerm", "driven_term"]


class Clock(Protocol):
    """The variables in which a linear part is constant. An equinox module."""

    def forward(self, t: float | Array, /) -> Array:
        """s(t)."""
        ...

    def inverse(self, s: float | Array, /) -> Array:
        """The t with s(t) = s."""
        ...

    def scale(self, t: float | Array, /) -> Array:
        """m(t), never zero."""
        ...

    def rates(self, t: float | Array, /) -> tuple[Array, Array]:
        """Ds/dt and d log m / dt."""
        ...


def _one(t: float | Array) -> Array:
    return jnp.ones_like(jnp.asarray(t))


def _slope(fn: Callable, t: Array) -> tuple[Array, Array]:
    """fn(t) and its derivative."""
    return jax.jvp(fn, (t,), (jnp.ones_like(t),))


class FunctionClock(eqx.Module):
    """A clock and a scale given as functions; their rates by differentiation.

    Args:
        forward: t -> s, strictly monotone on the interval of integration.
        inverse: s -> t.
        scale: t -> m, not zero; None means 1.

    Example:
        >>> clock = FunctionClock(jnp.log, jnp.exp)
        >>> [float(r) for r in clock.rates(2.0)]
        [0.5, 0.0]
    """

    forward: Callable[[float | Array], Array]
    inverse: Callable[[float | Array], Array]
    scale: Callable[[float | Array], Array]

    def __init__(
        self, forward: Callable, inverse: Callable, scale: Callable | None = None
    ):
        self.forward, self.inverse = forward, inverse
        self.scale = _one if scale is None else scale

    def rates(self, t: float | Array) -> tuple[Array, Array]:
        """Ds/dt and d log m / dt."""
        t = jnp.asarray(t)
        if not jnp.issubdtype(t.dtype, jnp.inexact):
            t = t.astype(jnp.result_type(float))
        m, slope = _slope(self.scale, t)
        return _slope(self.forward, t)[1], slope / m


class ProcessClock(eqx.Module):
    """Half log-SNR and the scale of a path, for one kind of prediction.

    'data': s = lambda, m = alpha, so that L = -1 and N = D. 'noise': s = lambda,
    m = sigma, so that L = +1 and N = -E. Times at which alpha or sigma is zero have
    an infinite s: start below and stop above them.

    Args:
        process: the path.
        prediction: 'data' or 'noise'.

    Raises:
        ValueError: another prediction.

    Example:
        >>> import fastdiff_jax as fd
        >>> clock = ProcessClock(fd.processes.vp_linear())
        >>> bool(abs(clock.inverse(clock.forward(0.3)) - 0.3) < 1e-5)
        True
    """

    process: Process
    prediction: str = eqx.field(static=True, default="data")

    def __check_init__(self) -> None:
        if self.prediction not in ("data", "noise"):
            raise ValueError(
                "ProcessClock needs prediction 'data' or 'noise', got "
                f"{self.prediction!r}. Convert the model with models.denoiser."
            )

    def forward(self, t: float | Array) -> Array:
        """log(alpha / sigma)."""
        return self.process.half_log_snr(jnp.asarray(t))

    def inverse(self, s: float | Array) -> Array:
        """The time with this half log-SNR."""
        return self.process.half_log_snr_inverse(jnp.asarray(s))

    def scale(self, t: float | Array) -> Array:
        """Alpha or sigma."""
        t = jnp.asarray(t)
        data = self.prediction == "data"
        return self.process.alpha(t) if data else self.process.sigma(t)

    def rates(self, t: float | Array) -> tuple[Array, Array]:
        """D lambda/dt, and the logarithmic rate of alpha or sigma."""
        t = jnp.asarray(t)
        d_alpha, d_sigma = self.process.rates(t)
        up, down = d_alpha / self.process.alpha(t), d_sigma / self.process.sigma(t)
        return up - down, up if self.prediction == "data" else down


class SemilinearTerm(AbstractTerm):
    """dy/dt = L y + N(t, y, args), L kept apart for exponential integrators.

    With a clock the equation is du/ds = L u + N(t, y, args) for u = y / m(t): N is a
    rate per unit of s, in the units of u, at the unscaled time and state. The term
    works in any diffrax solver; those of this package treat L exactly.

    Args:
        linear: L: a number, an array that broadcasts to the state, or a tree of such
            with the state's structure. Real, or complex for a complex state. In units
            of 1/s.
        vector_field: N, a function (t, y, args) -> tree like y.
        clock: see `Clock`; None is s = t, m = 1.

    Raises:
        ValueError: L does not fit the state, or N has another structure (when the
            term is first evaluated).

    Example:
        >>> import diffrax
        >>> term = SemilinearTerm(-1.0, lambda t, y, args: y**2)
        >>> float(term.vf(0.0, jnp.asarray(2.0), None))
        2.0
    """

    linear: PyTree
    vector_field: Callable[[Any, PyTree, Any], PyTree]
    clock: Clock | None = None

    def vf(self, t: float | Array, y: PyTree, args: Any) -> PyTree:
        """dy/dt."""
        linear, rest = self.linear_like(y), self.nonlinear(t, y, args)
        if self.clock is None:
            return jax.tree.map(lambda c, v, n: c * v + n, linear, y, rest)
        (rate, growth), m = self.clock.rates(t), self.clock.scale(t)

        def leaf(c: Array, v: Array, n: Array) -> Array:
            speed = real_like(rate, v)
            mass = real_like(m, v) * speed
            return (real_like(growth, v) + speed * c) * v + mass * n

        return jax.tree.map(leaf, linear, y, rest)

    def contr(
        self, t0: float | Array, t1: float | Array, **kwargs: Any
    ) -> float | Array:
        """t1 - t0."""
        del kwargs
        return t1 - t0

    def prod(self, vf: PyTree, control: float | Array) -> PyTree:
        """Vector field times time."""
        return jax.tree.map(lambda v: real_like(control, v) * v, vf)

    def nonlinear(self, t: float | Array, y: PyTree, args: Any) -> PyTree:
        """N(t, y, args), in the shapes and dtypes of y."""
        out = self.vector_field(t, y, args)
        ours, theirs = jax.tree.structure(y), jax.tree.structure(out)
        if ours != theirs:
            raise ValueError(
                f"vector_field must return a tree like y, {ours}; got {theirs}."
            )
        return jax.tree.map(_fitted, out, y)

    def linear_like(self, y: PyTree) -> PyTree:
        """L as a tree like y: one array per leaf, its axes aligned with the leaf's."""
        if jax.tree.structure(self.linear) == jax.tree.structure(0):
            return jax.tree.map(lambda v: _aligned(self.linear, v), y)
        if jax.tree.structure(self.linear) != jax.tree.structure(y):
            raise ValueError(
                "linear must be one array or a tree like y, "
                f"{jax.tree.structure(y)}; got {jax.tree.structure(self.linear)}."
            )
        return jax.tree.map(_aligned, self.linear, y)


@checked
def driven_term(
    rate: Callable[[float | Array], Array],
    integral: Callable[[float | Array], Array],
    inverse: Callable[[float | Array], Array],
    vector_field: Callable[[Any, PyTree, Any], PyTree],
) -> SemilinearTerm:
    """dy/dt = r(t) y + N(t, y, args) with a known integral of r.

    The clock is s = int r dt, in which L = 1 and the other part is N / r.

    Args:
        rate: r(t), a number that does not change sign or vanish.
        integral: an antiderivative of r.
        inverse: its inverse, s -> t.
        vector_field: N, per unit of t.

    Returns:
        A term for the exponential solvers (or any other).

    Example:
        >>> term = driven_term(jnp.cos, jnp.sin, jnp.arcsin, lambda t, y, args: y)
        >>> float(term.vf(0.0, jnp.asarray(2.0), None))
        4.0
    """

    def scaled(t: float | Array, y: PyTree, args: Any) -> PyTree:
        speed = rate(t)
        return jax.tree.map(lambda n: n / real_like(speed, n), vector_field(t, y, args))

    return SemilinearTerm(1.0, scaled, FunctionClock(integral, inverse))


def real_like(value: ArrayLike, like: ArrayLike) -> Array:
    """A real number in the dtype of an array, which may be complex."""
    return jnp.asarray(value, jnp.result_type(like))


def _fitted(out: ArrayLike, like: Array) -> Array:
    """One leaf of N against its leaf of y."""
    out, wide = jnp.asarray(out), jnp.result_type(like)
    with jax.numpy_dtype_promotion("standard"):
        fits = jnp.promote_types(out.dtype, wide) == wide
    if not fits:
        raise ValueError(
            f"vector_field returned {out.dtype} for a state of {wide}; cast it, or "
            "start from a state of that dtype."
        )
    return jnp.broadcast_to(out, jnp.shape(like)).astype(wide)


def _aligned(linear: complex | Array, like: Array) -> Array:
    """One leaf of L with as many axes as its leaf of y, and in its dtype."""
    shape, target = jnp.shape(linear), jnp.shape(like)
    fits = len(shape) <= len(target)
    tail = target[len(target) - len(shape) :]
    if not fits or any(a not in (1, b) for a, b in zip(shape, tail, strict=True)):
        raise ValueError(
            f"linear has shape {shape}, which does not broadcast to the state's "
            f"{target}. Give a number, or a diagonal in the shape of the state."
        )
    if jnp.iscomplexobj(linear) and not jnp.iscomplexobj(like):
        raise ValueError(
            "linear is complex but the state is real. Use a complex state, or split it "
            "into real and imaginary parts with a real diagonal."
        )
    value = jnp.asarray(linear, jnp.result_type(like))
    return value.reshape((1,) * (len(target) - len(shape)) + shape)
