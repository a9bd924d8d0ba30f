"""One step of an exponential integrator in the variables of its term, and its path."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from diffrax import AbstractLocalInterpolation

from ..numerics import phi
from ..typing import Array, PyTree
from .semilinear import Clock, SemilinearTerm, real_like

__all__ = ["ExponentialInterpolation", "Span", "begin", "unwrap"]

_TOP = 4  # highest phi of any method here


def unwrap(terms: Any) -> tuple[SemilinearTerm, float | Array]:
    """The semilinear term inside diffrax's wrapper, and the direction of its time."""
    direction: Any = 1
    while hasattr(terms, "direction") and hasattr(terms, "term"):
        direction, terms = direction * terms.direction, terms.term
    if not isinstance(terms, SemilinearTerm):
        raise TypeError(
            "An exponential solver needs a SemilinearTerm (or a MultiTerm of one and a "
            f"noise term for the stochastic one), got {type(terms).__name__}. Write "
            "the equation as SemilinearTerm(linear, vector_field)."
        )
    return terms, direction


def family(z: Array) -> list[Array]:
    """phi_0 .. phi_4 at once: one series at the top, recurrences from it.

    phi_k = z phi_{k+1} + 1/k! downwards is accurate for |z| < 1, upwards beyond.
    """
    small = jnp.abs(z) < 1
    inner, outer = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    down, up = [phi(_TOP, inner)], [jnp.expm1(outer) / outer]
    for k in range(1, _TOP):
        up.append((up[-1] - 1 / math.factorial(k)) / outer)
        down.append(inner * down[-1] + 1 / math.factorial(_TOP - k))
    pairs = zip(reversed(down), up, strict=True)
    return [jnp.exp(z), *(jnp.where(small, d, u) for d, u in pairs)]


class Held(eqx.Module):
    """A clock between traced steps: its arrays as leaves, the rest in the structure."""

    arrays: Any
    rest: Any = eqx.field(static=True)

    @classmethod
    def of(cls, clock: Clock | None) -> "Held":
        """Split a clock."""
        return cls(*eqx.partition(clock, _is_array))

    def __call__(self) -> Clock | None:
        """The clock again."""
        return eqx.combine(self.arrays, self.rest)


def _is_array(x: Any) -> bool:
    return isinstance(x, jax.Array | np.ndarray | np.generic)


def position(clock: Clock | None, t: float | Array) -> float | Array:
    """s(t)."""
    return t if clock is None else clock.forward(t)


def rescale(clock: Clock | None, t: float | Array, y: PyTree, up: bool) -> PyTree:
    """M(t) u (up) or y / m(t)."""
    if clock is None:
        return y
    m = clock.scale(t)

    def leaf(v: Array) -> Array:
        return v * real_like(m, v) if up else v / real_like(m, v)

    return jax.tree.map(leaf, y)


class Span(NamedTuple):
    """One step: where it runs, the scaled state it starts from, z = L h.

    Attributes:
        term: the semilinear term.
        direction: +1 or -1, diffrax's time over the term's.
        ends: start and end in the term's own time.
        origin: s at the start.
        length: h, the signed length in s.
        state: u at the start.
        z: tree like u.
        args: the caller's.
        phis: c -> phi_k(c z) computed so far.
    """

    term: SemilinearTerm
    direction: float | Array
    ends: tuple[Array, Array]
    origin: Array
    length: Array
    state: PyTree
    z: PyTree
    args: Any
    phis: dict[float, PyTree]

    def phi(self, k: int, c: float) -> PyTree:
        """phi_k(c z), once per step."""
        if c not in self.phis:
            self.phis[c] = jax.tree.map(lambda z: family(c * z), self.z)
        return jax.tree.map(lambda _, f: f[k], self.z, self.phis[c])

    def sum(self, terms: Sequence[tuple[int, float, PyTree]]) -> PyTree:
        """H sum of phi_k(c z) v over terms (k, c, v)."""
        parts = [
            jax.tree.map(lambda f, v: f * v, self.phi(k, c), v) for k, c, v in terms
        ]

        def leaf(*values: Array) -> Array:
            total = sum(values[1:], values[0])
            return real_like(self.length, total) * total

        return jax.tree.map(leaf, *parts)

    def advance(self, c: float, terms: Sequence[tuple[int, float, PyTree]]) -> PyTree:
        """e^{c z} u + h sum of phi_k(c z) v."""
        return jax.tree.map(
            lambda e, u, d: e * u + d, self.phi(0, c), self.state, self.sum(terms)
        )

    def time(self, c: float) -> Array:
        """The term's time at s = origin + c h; the ends themselves at 0 and 1."""
        if c in (0, 1):
            return self.ends[int(c)]
        s = self.origin + c * self.length
        return s if self.term.clock is None else self.term.clock.inverse(s)

    def rest(self, c: float, u: PyTree) -> PyTree:
        """N at a stage."""
        t = self.time(c)
        y = rescale(self.term.clock, t, u, up=True)
        return self.term.nonlinear(t, y, self.args)

    def leave(self, u: PyTree) -> PyTree:
        """The state at the end of the step, or a difference of states there."""
        return rescale(self.term.clock, self.ends[1], u, up=True)

    def path(self, slopes: Sequence[PyTree]) -> dict[str, Any]:
        """What the interpolation inside the step needs: `slopes` are g_1, g_2, ..."""
        return {
            "state": self.state,
            "slopes": tuple(slopes),
            "z": self.z,
            "origin": self.origin,
            "length": self.length,
            "direction": jnp.asarray(self.direction, self.length.dtype),
            "clock": Held.of(self.term.clock),
        }


def begin(
    terms: Any, t0: float | Array, t1: float | Array, y0: PyTree, args: Any
) -> Span:
    """Turn a step of diffrax into one in the term's clock and scale."""
    term, direction = unwrap(terms)
    ends = (jnp.asarray(t0 * direction), jnp.asarray(t1 * direction))
    origin = jnp.asarray(position(term.clock, ends[0]))
    length = position(term.clock, ends[1]) - origin
    z = jax.tree.map(lambda c: c * real_like(length, c), term.linear_like(y0))
    state = rescale(term.clock, ends[0], y0, up=False)
    return Span(term, direction, ends, origin, length, state, z, args, {})


class ExponentialInterpolation(AbstractLocalInterpolation):
    """Inside a step: u(theta) = e^{theta z} u + h sum_k theta^k phi_k(theta z) g_k.

    Exact at both ends of the step; within it, exact wherever N is the polynomial
    sum_k g_k theta^{k-1} / (k-1)!.
    """

    t0: Any
    t1: Any
    state: PyTree
    slopes: tuple[PyTree, ...]
    z: PyTree
    origin: Any
    length: Any
    direction: Any
    clock: Held

    def evaluate(
        self, t0: float | Array, t1: float | Array | None = None, left: bool = True
    ) -> PyTree:
        """The state at a time, or its increment between two."""
        if t1 is not None:
            before, after = self.evaluate(t0, left=left), self.evaluate(t1, left=left)
            return jax.tree.map(lambda a, b: b - a, before, after)
        clock, t = self.clock(), jnp.asarray(t0 * self.direction)
        gap = position(clock, t) - self.origin
        theta = gap / jnp.where(self.length == 0, 1, self.length)

        def leaf(u: Array, z: Array, *slopes: Array) -> Array:
            part, h = real_like(theta, u), real_like(self.length, u)
            phis = family(part * z)
            total, power = phis[0] * u, h
            for f, g in zip(phis[1:], slopes, strict=False):
                power = power * part
                total = total + power * f * g
            return total

        u = jax.tree.map(leaf, self.state, self.z, *self.slopes)
        return rescale(clock, t, u, up=True)
