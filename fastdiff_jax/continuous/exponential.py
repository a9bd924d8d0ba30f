"""Exponential Runge-Kutta as diffrax solvers: the linear part is exact.

Every method is a table (`tableaux`) for u' = L u + N(u); one class runs them all. The
published methods: Cox & Matthews 2002 (ETD1, ETDRK2, ETDRK4); Krogstad 2005; Hochbruck
& Ostermann 2005 and Zhang et al. 2023 (2308.02157) for RES-2 and RES-3.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
from diffrax import RESULTS, AbstractTerm
from diffrax import AbstractAdaptiveSolver as _Adaptive

from ..guards import checked
from ..typing import Array, PyTree
from . import tableaux
from .spans import ExponentialInterpolation, Span, begin, unwrap
from .tableaux import Tableau

__all__ = [
    "ExponentialRungeKutta",
    "etd1",
    "etdrk2",
    "etdrk4",
    "krogstad",
    "res_2",
    "res_3",
    "runge_kutta",
]


class ExponentialRungeKutta(_Adaptive):
    """The exponential Runge-Kutta method of a table, for a `SemilinearTerm`.

    u_i = e^{c_i z} u + h sum_j a_ij(z) N_j,  u' = e^z u + h sum_k phi_k(z) g_k.

    Dense output is e^{theta z} u + h sum_k theta^k phi_k(theta z) g_k. Where the table
    has an embedded method, diffrax's step size controllers work. A table whose error
    estimate uses N at the end of the step keeps it for the next step, so that an
    attempt costs as many evaluations as the table has stages.

    Args:
        tableau: the method; see `etd1`, `etdrk2`, `res_2`, `res_3`, `etdrk4`,
            `krogstad`.
    """

    tableau: Tableau = eqx.field(static=True)

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar[Callable[..., ExponentialInterpolation]] = (
        ExponentialInterpolation
    )

    def order(self, terms: Any) -> int:
        """Order on problems that are not stiff."""
        del terms
        return self.tableau.order

    def error_order(self, terms: Any) -> int:
        """Order of the local error estimate."""
        del terms
        return self.tableau.error_order

    def init(
        self, terms: Any, t0: float | Array, t1: float | Array, y0: PyTree, args: Any
    ) -> PyTree:
        """N at the start, where the table carries it from step to step."""
        del t1
        if not self.tableau.closing:
            return None
        term, direction = unwrap(terms)
        return term.nonlinear(t0 * direction, y0, args)

    def step(
        self,
        terms: Any,
        t0: float | Array,
        t1: float | Array,
        y0: PyTree,
        args: Any,
        solver_state: PyTree,
        made_jump: Any,
    ) -> tuple:
        """One step: new state, error estimate, dense output, N at the end."""
        span = begin(terms, t0, t1, y0, args)
        first = solver_state
        if not self.tableau.closing:
            first = span.rest(0, span.state)
        elif made_jump is not False:  # the vector field may differ across a jump
            fresh = lambda: span.rest(0, span.state)  # noqa: E731
            first = jax.lax.cond(made_jump, fresh, lambda: solver_state)
        u1, slopes, error, last = runge_kutta(self.tableau, span, first)
        error = None if error is None else span.leave(error)
        return span.leave(u1), error, span.path(slopes), last, RESULTS.successful

    def func(self, terms: Any, t0: float | Array, y0: PyTree, args: Any) -> PyTree:
        """The whole right-hand side."""
        return terms.vf(t0, y0, args)


def runge_kutta(table: Tableau, span: Span, first: PyTree) -> tuple:
    """One step of a table from N at its start.

    Returns:
        u at the end, g_1, g_2, ..., the error estimate in u (None without one) and N
        at the end (None where the table does not use it).
    """
    rest = [first]
    for c, terms in zip(table.nodes[1:], table.stages, strict=True):
        u = span.advance(c, [(k, b, _blend(w, rest)) for k, b, w in terms])
        rest.append(span.rest(c, u))
    slopes = [_blend(w, rest) for w in table.final]
    u1 = span.advance(1, [(k, 1.0, g) for k, g in enumerate(slopes, 1)])
    last = None
    if table.closing:
        last = span.rest(1, u1)
        rest.append(last)
    if not table.error:
        return u1, slopes, None, last
    error = span.sum([(k, c, _blend(w, rest)) for k, c, w in table.error])
    return u1, slopes, error, last


def _blend(weights: Sequence[float], values: Sequence[PyTree]) -> PyTree:
    """Sum of weight * tree over the weights that are not zero."""
    pairs = [(w, v) for w, v in zip(weights, values, strict=True) if w != 0]
    used = [w for w, _ in pairs]

    def leaf(*leaves: Any) -> Any:
        return sum(w * v for w, v in zip(used, leaves, strict=True))

    return jax.tree.map(leaf, *(v for _, v in pairs))


@checked
def etd1() -> ExponentialRungeKutta:
    """ETD1, exponential Euler: e^z u + h phi_1(z) N. Order 1, 1 call, fixed steps.

    Returns:
        A solver without an error estimate.

    Example:
        >>> import diffrax
        >>> import jax.numpy as jnp
        >>> import fastdiff_jax as fd
        >>> term = fd.continuous.SemilinearTerm(-2.0, lambda t, y, args: 1.0)
        >>> y0 = jnp.asarray(3.0)
        >>> out = diffrax.diffeqsolve(term, etd1(), 0.0, 1.0, 0.5, y0)
        >>> bool(abs(out.ys[0] - (0.5 + 2.5 * jnp.exp(-2.0))) < 1e-6)
        True

    Reference: Cox & Matthews 2002, J. Comput. Phys. 176, eq 4.
    """
    return ExponentialRungeKutta(tableaux.euler())


@checked
def res_2(c2: float = 0.5) -> ExponentialRungeKutta:
    """RES-2: stage at c2; b_2 = phi_2 / c2, b_1 = phi_1 - b_2. Order 2, 2 calls.

    Error estimate: the difference to ETD1, h phi_2 (N_2 - N_1) / c2.

    Args:
        c2: where the second stage stands, in (0, 1].

    Returns:
        A solver for fixed or adaptive steps.

    Raises:
        ValueError: c2 outside (0, 1].

    Example:
        >>> res_2().order(None)
        2

    Reference: Hochbruck & Ostermann 2005, SIAM J. Numer. Anal. 43, section 5.
    """
    _inside("res_2", c2=c2)
    return ExponentialRungeKutta(tableaux.two_stage(float(c2)))


def etdrk2() -> ExponentialRungeKutta:
    """ETDRK2: `res_2` with the second stage at the step's end. Order 2, 2 calls.

    Returns:
        A solver for fixed or adaptive steps.

    Example:
        >>> etdrk2().order(None)
        2

    Reference: Cox & Matthews 2002, eqs 20-22.
    """
    return ExponentialRungeKutta(tableaux.two_stage(1.0))


@checked
def res_3(c2: float = 0.5, c3: float = 1.0) -> ExponentialRungeKutta:
    """RES-3: three stages, stiff order 3. Order 3, 3 calls.

    With gamma = (3 c3^2 - 2 c3) / (c2 (2 - 3 c2)):

    a_32 = gamma c2 phi_2(c2 z) + (c3^2 / c2) phi_2(c3 z),  a_31 = c3 phi_1(c3 z) - a_32
    b_3 = phi_2 / (gamma c2 + c3),  b_2 = gamma b_3,  b_1 = phi_1 - b_2 - b_3

    Error estimate: the difference to RES-2 on the first two stages.

    Args:
        c2: where the second stage stands, in (0, 1], not 2/3.
        c3: where the third stage stands, in (0, 1], not c2.

    Returns:
        A solver for fixed or adaptive steps.

    Raises:
        ValueError: nodes outside (0, 1], c2 = 2/3, or c3 = c2.

    Example:
        >>> res_3().order(None)
        3

    Reference: Hochbruck & Ostermann 2005, section 5.2; Zhang et al. 2023 (2308.02157),
    where gamma is printed with 3 c3^3.
    """
    _inside("res_3", c2=c2, c3=c3)
    if abs(c2 - 2 / 3) < 1e-9 or abs(c2 - c3) < 1e-9:
        raise ValueError(
            f"res_3 needs c2 != 2/3 and c2 != c3, got {c2=}, {c3=}. Use c2=0.5, c3=1."
        )
    return ExponentialRungeKutta(tableaux.three_stage(float(c2), float(c3)))


def etdrk4() -> ExponentialRungeKutta:
    """ETDRK4 of Cox and Matthews. Order 4, 4 calls per attempted step.

    u' = e^z u + h [(phi_1 - 3 phi_2 + 4 phi_3) N_1 + (2 phi_2 - 4 phi_3) (N_2 + N_3)
    + (4 phi_3 - phi_2) N_4]. Error estimate, of order 3: the last weight moved to N at
    the step's end, which the next step starts from.

    Returns:
        A solver for fixed or adaptive steps.

    Example:
        >>> etdrk4().order(None)
        4

    Reference: Cox & Matthews 2002, eqs 26-29.
    """
    return ExponentialRungeKutta(tableaux.cox_matthews())


def krogstad() -> ExponentialRungeKutta:
    """ETDRK4-B of Krogstad: smaller errors than `etdrk4`. Order 4, 4 calls.

    Output weights and error estimate as in `etdrk4`; the stages at 1/2 and 1 take N
    as linear along the step.

    Returns:
        A solver for fixed or adaptive steps.

    Example:
        >>> krogstad().order(None)
        4

    Reference: Krogstad 2005, J. Comput. Phys. 203, eq 51.
    """
    return ExponentialRungeKutta(tableaux.krogstad())


def _inside(name: str, **nodes: float) -> None:
    for node, value in nodes.items():
        if not 0 < value <= 1:
            raise ValueError(f"{name} needs 0 < {node} <= 1, got {node}={value}.")
