"""Exponential Adams-Bashforth as a diffrax solver: one evaluation per step.

N along the step is the polynomial through its last p values; with z = L h and
theta_j = (s_j - s_0) / h,

    u' = e^z u + h sum_k phi_k(z) g_k,   g_k = (k - 1)! [theta^{k-1}] of that polynomial

Any sequence of steps is allowed. The first p - 1 steps are of the exponential
Runge-Kutta kind. Norsett 1969; Cox & Matthews 2002, section 2; Hochbruck & Ostermann
2011 (multistep).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from diffrax import RESULTS, AbstractTerm
from diffrax import AbstractAdaptiveSolver as _Adaptive

from ..guards import checked
from ..typing import Array, PyTree
from . import tableaux
from .exponential import runge_kutta
from .semilinear import real_like
from .spans import ExponentialInterpolation, Span, begin

__all__ = ["ExponentialAdams", "exp_adams"]


class _History(NamedTuple):
    """Evaluations before the step, newest first: s, N, and how many are valid."""

    places: Array
    values: PyTree
    count: Array


class ExponentialAdams(_Adaptive):
    """Exponential Adams-Bashforth of orders 1 to 4; see `exp_adams`."""

    steps: int = eqx.field(static=True)

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar[Callable[..., ExponentialInterpolation]] = (
        ExponentialInterpolation
    )

    def order(self, terms: Any) -> int:
        """Order on problems that are not stiff."""
        del terms
        return self.steps

    def error_order(self, terms: Any) -> int:
        """Order of the local error estimate, the difference to one order less."""
        del terms
        return self.steps

    def init(
        self, terms: Any, t0: float | Array, t1: float | Array, y0: PyTree, args: Any
    ) -> _History:
        """An empty history, its unused places apart from one another."""
        span = begin(terms, t0, t1, y0, args)
        length = jnp.where(span.length == 0, 1, span.length)
        ages = jnp.arange(1, self.steps, dtype=length.dtype)
        values = jax.tree.map(
            lambda v: jnp.zeros((self.steps - 1, *jnp.shape(v)), jnp.result_type(v)), y0
        )
        return _History(span.origin - ages * length, values, jnp.asarray(0))

    def step(
        self,
        terms: Any,
        t0: float | Array,
        t1: float | Array,
        y0: PyTree,
        args: Any,
        solver_state: _History,
        made_jump: Any,
    ) -> tuple:
        """One step: new state, error estimate, dense output, longer history."""
        span = begin(terms, t0, t1, y0, args)
        past = solver_state
        if made_jump is not False:  # values from before a jump say nothing after it
            past = past._replace(count=jnp.where(made_jump, 0, past.count))
        first = span.rest(0, span.state)
        if self.steps == 1:
            u1, slopes, error, _ = runge_kutta(tableaux.euler(), span, first)
        else:
            span.phi(0, 1.0)  # outside cond: both branches use phi_k(z)
            u1, slopes, error = jax.lax.cond(
                past.count < self.steps - 1,
                lambda: _start(self.steps, span, first),
                lambda: _adams(span, first, past),
            )
        error = None if error is None else span.leave(error)
        longer = _pushed(past, span.origin, first)
        return span.leave(u1), error, span.path(slopes), longer, RESULTS.successful

    def func(self, terms: Any, t0: float | Array, y0: PyTree, args: Any) -> PyTree:
        """The whole right-hand side."""
        return terms.vf(t0, y0, args)


@checked
def exp_adams(order: int = 4) -> ExponentialAdams:
    """Exponential Adams-Bashforth, steps of any length. 1 call per attempted step.

    u' = e^z u + h sum_k phi_k(z) g_k with g_k from divided differences of the last
    `order` values of N; error estimate: the difference to one order less. The first
    order - 1 steps are ETDRK2, RES-3 or Krogstad steps of the same order. A jump starts
    afresh.

    Args:
        order: 1 to 4. Order 1 has no error estimate.

    Returns:
        A solver for fixed or (order >= 2) adaptive steps.

    Raises:
        ValueError: order outside 1..4.

    Example:
        >>> exp_adams(3).order(None)
        3

    Reference: Cox & Matthews 2002, J. Comput. Phys. 176, section 2.1.
    """
    if order not in (1, 2, 3, 4):
        raise ValueError(f"exp_adams needs order in 1..4, got {order!r}.")
    return ExponentialAdams(order)


def _start(order: int, span: Span, first: PyTree) -> tuple:
    """A one-step method of the same order, its slopes padded to `order` of them."""
    table = {
        2: tableaux.two_stage(1.0),
        3: tableaux.three_stage(0.5, 1.0),
        4: tableaux.krogstad(),
    }[order]
    inner = span._replace(phis=dict(span.phis))  # new phis stay inside this branch
    u1, slopes, error, _ = runge_kutta(table, inner, first)
    zero = jax.tree.map(jnp.zeros_like, first)
    return u1, [*slopes, *[zero] * (order - len(slopes))], error


def _adams(span: Span, first: PyTree, past: _History) -> tuple:
    """The multistep step from N at its start and the values before it."""
    length = jnp.where(span.length == 0, 1, span.length)
    nodes = [jnp.zeros_like(length), *((past.places - span.origin) / length)]
    older = [
        jax.tree.map(lambda v, i=i: v[i], past.values) for i in range(len(nodes) - 1)
    ]
    divided = _divided(nodes, [first, *older])
    basis = _newton_basis(nodes)
    slopes = [
        _mix([(row[k], d) for row, d in zip(basis, divided, strict=True)], k)
        for k in range(len(nodes))
    ]
    u1 = span.advance(1, [(k, 1.0, g) for k, g in enumerate(slopes, 1)])
    last = [(k + 1, 1.0, _mix([(c, divided[-1])], k)) for k, c in enumerate(basis[-1])]
    return u1, slopes, span.sum(last)


def _divided(nodes: Sequence[Array], values: Sequence[PyTree]) -> list[PyTree]:
    """Divided differences f[x_0], f[x_0, x_1], ..."""
    column, out = list(values), [values[0]]
    for gap in range(1, len(nodes)):
        column = [
            jax.tree.map(
                lambda a, b, d=nodes[i + gap] - nodes[i]: (b - a) / real_like(d, a),
                column[i],
                column[i + 1],
            )
            for i in range(len(column) - 1)
        ]
        out.append(column[0])
    return out


def _newton_basis(nodes: Sequence[Array]) -> list[list[Array]]:
    """Coefficients of prod_{i<j} (theta - x_i), lowest power first, padded."""
    zero, row = jnp.zeros_like(nodes[0]), [jnp.ones_like(nodes[0])]
    rows = []
    for node in nodes:
        rows.append([*row, *[zero] * (len(nodes) - len(row))])
        row = [a - node * b for a, b in zip([zero, *row], [*row, zero], strict=True)]
    return rows


def _mix(pairs: Sequence[tuple[Array, PyTree]], power: int) -> PyTree:
    """Power! times the sum of coefficient * tree."""

    def leaf(*values: Array) -> Array:
        terms = [real_like(c, v) * v for (c, _), v in zip(pairs, values, strict=True)]
        return math.factorial(power) * sum(terms[1:], terms[0])

    return jax.tree.map(leaf, *(tree for _, tree in pairs))


def _pushed(past: _History, place: Array, value: PyTree) -> _History:
    """The history with one more evaluation in front, the oldest dropped."""
    places = jnp.concatenate([place[None], past.places])[: past.places.shape[0]]
    values = jax.tree.map(
        lambda old, new: jnp.concatenate([new[None], old])[: old.shape[0]],
        past.values,
        value,
    )
    return _History(places, values, past.count + 1)
