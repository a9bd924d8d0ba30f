"""Exponential Euler for Ito equations: the linear part of the drift is exact."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS, AbstractItoSolver, AbstractTerm, MultiTerm

from ..typing import Array, PyTree
from .exponential import runge_kutta
from .semilinear import SemilinearTerm, real_like
from .spans import ExponentialInterpolation, begin, rescale
from .tableaux import euler

__all__ = ["StochasticExponentialEuler"]


class StochasticExponentialEuler(AbstractItoSolver):
    """dy = (L y + N) dt + G dW, with L exact. Terms: MultiTerm(SemilinearTerm, noise).

    y' = e^z y + h phi_1(z) N + sqrt(phi_1(2z)) G dW,   z = L h

    int_0^h e^{L (h - r)} dW has variance h phi_1(2z): with N and G constant (and L one
    number, or G diagonal) every step has the exact law at any length. `weight =
    'path'` takes phi_1(z) G dW instead, the best guess of that integral from dW: nearer
    to the path of dW, with a variance that is low by O(h^2). Strong order 1 for
    additive noise, 1/2 otherwise; weak order 1.

    With a clock the noise is still G dW in the units of y per unit of t, and its
    weight is that of the change of u; the law is then exact to first order only.

    Args:
        weight: 'law' or 'path'.

    Raises:
        ValueError: another weight.

    Example:
        >>> import diffrax
        >>> import fastdiff_jax as fd
        >>> drift = fd.continuous.SemilinearTerm(-1.0, lambda t, y, args: 0 * y)
        >>> path = diffrax.VirtualBrownianTree(0, 1, 1e-3, (), jax.random.key(0))
        >>> noise = diffrax.ControlTerm(lambda t, y, args: jnp.ones(()), path)
        >>> terms = diffrax.MultiTerm(drift, noise)
        >>> solver = StochasticExponentialEuler()
        >>> y0 = jnp.asarray(1.0)
        >>> diffrax.diffeqsolve(terms, solver, 0.0, 1.0, 0.1, y0).ys.shape
        (1,)

    Reference: Lord & Rougemont 2004; Jentzen & Kloeden 2009 (exponential Euler).
    """

    weight: str = eqx.field(static=True, default="law")

    term_structure: ClassVar = MultiTerm[tuple[SemilinearTerm, AbstractTerm]]
    interpolation_cls: ClassVar[Callable[..., ExponentialInterpolation]] = (
        ExponentialInterpolation
    )

    def __check_init__(self) -> None:
        if self.weight not in ("law", "path"):
            raise ValueError(
                "StochasticExponentialEuler needs weight 'law' or 'path', got "
                f"{self.weight!r}."
            )

    def order(self, terms: Any) -> int:
        """Order without noise."""
        del terms
        return 1

    def strong_order(self, terms: Any) -> float:
        """Strong order for general noise; 1 for additive noise."""
        del terms
        return 0.5

    def init(
        self, terms: Any, t0: float | Array, t1: float | Array, y0: PyTree, args: Any
    ) -> None:
        """Nothing is kept."""
        del terms, t0, t1, y0, args

    def step(
        self,
        terms: Any,
        t0: float | Array,
        t1: float | Array,
        y0: PyTree,
        args: Any,
        solver_state: None,
        made_jump: Any,
    ) -> tuple:
        """One step: new state, no error estimate, dense output."""
        del solver_state, made_jump
        drift, noise = terms.terms
        span = begin(drift, t0, t1, y0, args)
        u1, slopes, _, _ = runge_kutta(euler(), span, span.rest(0, span.state))
        kick = noise.vf_prod(t0, y0, args, noise.contr(t0, t1))
        kick = rescale(span.term.clock, span.ends[0], kick, up=False)
        if self.weight == "path":
            factor = span.phi(1, 1.0)
        else:
            factor = jax.tree.map(jnp.sqrt, span.phi(1, 2.0))

        def weighted(f: Array, k: Array) -> Array:
            return f * jnp.asarray(k, jnp.result_type(f))

        kick = jax.tree.map(weighted, factor, kick)
        u1 = jax.tree.map(jnp.add, u1, kick)
        # The path in between: the kick enters as a constant rate, h phi_1(z) k.
        length = jnp.where(span.length == 0, 1, span.length)
        rate = jax.tree.map(
            lambda k, f: k / (f * real_like(length, f)), kick, span.phi(1, 1.0)
        )
        slopes = [jax.tree.map(jnp.add, slopes[0], rate)]
        return span.leave(u1), None, span.path(slopes), None, RESULTS.successful

    def func(self, terms: Any, t0: float | Array, y0: PyTree, args: Any) -> PyTree:
        """The whole right-hand side."""
        return terms.vf(t0, y0, args)
