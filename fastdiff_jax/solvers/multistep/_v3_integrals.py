"""What DPM-Solver-v3 integrates: its tables between the levels of a grid.

The tables l, s, b are piecewise linear in the half log-SNR; every step is cut at their
nodes and integrated cell by cell. Zheng et al. 2023 (2310.13268), eqs 12-16.
"""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ...numerics import Levels, adams_weights, lagrange, namespace
from ...typing import Array

__all__ = ["Integrals", "Statistics", "integrals", "weights", "wide"]


@runtime_checkable
class Statistics(Protocol):
    """Tables of shape (M + 1, *event) on even half log-SNR nodes from low to high."""

    low: float
    high: float
    l: Any  # noqa: E741 (the paper's name)
    s: Any
    b: Any


class Integrals(NamedTuple):
    """Per level (N + 1, *event) and per step, at P quadrature points.

    Values at a level of infinite half log-SNR are placeholders.
    """

    lv: Levels
    lam: Array  # (N + 1,), finite
    linear: Array  # l at the levels
    drift: Array  # L at the levels
    growth: Array  # S at the levels
    offset: Array  # int e^{-S} b from the first level
    u: Array  # (N, P) positions from the step's start
    measure: Array  # (N, P, *event), mass times W
    beta: Array  # (N, P, *event)


def wide(value: Array, event: int) -> Array:
    """Trailing axes for the event."""
    return value.reshape(value.shape + (1,) * event)


def _rule(size: float, compat: bool) -> tuple[Array, ...]:
    """Points, masses and running integrals on [0, 1] for e^{size u}.

    Gauss collocation, of which `size` picks the count (error below 1e-16); or the
    trapezoid.
    """
    if compat:
        return (
            np.array([0.0, 1.0]),
            np.array([0.5, 0.5]),
            np.array([[0, 0], [0.5, 0.5]]),
        )
    for count in range(2, 33):
        # (q!)^4 / ((2q)!)^3 size^{2q}, the error of q Gauss points
        error = math.lgamma(count + 1) * 4 - math.lgamma(2 * count + 1) * 3
        if error + 2 * count * math.log(max(size, 1e-9)) < math.log(1e-16):
            break
    points, mass = np.polynomial.legendre.leggauss(count)
    points, mass = (points + 1) / 2, mass / 2
    running = adams_weights(points, np.broadcast_to(points, (count, count)))
    return points, mass, running


def _read(
    table: tuple[Array, Array], cell: float, c: Array, theta: Array
) -> tuple[Array, Array]:
    """A table and its integral at fraction theta of cell c."""
    values, totals = table
    slope = values[c + 1] - values[c]
    integral = totals[c] + cell * theta * (values[c] + theta * slope / 2)
    return values[c] + theta * slope, integral


def _with_integral(values: Array, cell: float) -> tuple[Array, Array]:
    """A table and its running integral; the trapezoid is exact where it is linear."""
    xp = namespace(values)
    area = cell * xp.cumsum((values[1:] + values[:-1]) / 2, axis=0)
    return values, xp.concatenate([xp.zeros_like(values[:1]), area])


def integrals(lv: Levels, table: Statistics, compat: bool) -> Integrals:
    """Everything the weights need, cell by cell of the table inside every step."""
    xp = namespace(lv.lam, table.l, table.s, table.b)
    l, s, b = (xp.asarray(v, dtype=lv.lam.dtype) for v in (table.l, table.s, table.b))  # noqa: E741
    event, last = l.ndim - 1, l.shape[0] - 1
    cell = (table.high - table.low) / last
    l_sum, s_sum = _with_integral(l, cell), _with_integral(s, cell)

    lam = xp.clip(lv.lam, table.low, table.high)
    where = (lam - table.low) / cell
    floor = xp.clip(xp.floor(where), 0, last - 1)
    c, theta = floor.astype(int), wide(where - floor, event)
    linear, drift = _read(l_sum, cell, c, theta)
    growth = _read(s_sum, cell, c, theta)[1]

    edges, cells = _cells(lam, table.low, cell, last)
    rate = max(float(np.abs(v).max()) for v in (l, s)) if xp is np else 4.0
    points, mass, running = _rule(cell * (2 * rate + 1), compat)
    width = edges[:, 1:] - edges[:, :-1]
    spread = lambda v: xp.asarray(v, dtype=lam.dtype)[None, None]  # noqa: E731
    x = edges[:, :-1, None] + width[..., None] * spread(points)  # (N, C, Q)
    c = cells[..., None]
    theta = wide((x - table.low) / cell - xp.asarray(c, dtype=lam.dtype), event)
    start = lambda v: v[:-1, None, None]  # noqa: E731
    growth_x = _read(s_sum, cell, c, theta)[1] - start(growth)
    drift_x = _read(l_sum, cell, c, theta)[1] - start(drift)
    width = wide(width[..., None], event)
    source = xp.exp(-growth_x) * (b[c] + theta * (b[c + 1] - b[c])) * width
    inside = xp.einsum("qr,ncr...->ncq...", spread(running)[0, 0], source)
    whole = xp.einsum("r,ncr...->nc...", spread(mass)[0, 0], source)
    before = xp.cumsum(whole, axis=1) - whole
    steps = xp.exp(-growth[:-1]) * whole.sum(axis=1)
    flat = lambda v: v.reshape(v.shape[0], -1, *v.shape[3:])  # noqa: E731
    return Integrals(
        lv,
        lam,
        linear,
        drift,
        growth,
        xp.concatenate([xp.zeros_like(steps[:1]), xp.cumsum(steps, axis=0)]),
        flat(x - lam[:-1, None, None]),
        flat(wide(spread(mass), event) * width * xp.exp(drift_x + growth_x)),
        flat(inside + before[:, :, None]),
    )


def _cells(lam: Array, low: float, cell: float, last: int) -> tuple[Array, Array]:
    """Each step cut at the table's nodes: edges (N, C + 1) and cell numbers (N, C).

    Traced steps may touch any cell: all are listed, most of them of width zero.
    """
    xp = namespace(lam)
    start, end = lam[:-1, None], lam[1:, None]
    first, count = np.zeros((lam.shape[0] - 1, 1), int), last
    if xp is np:
        first = np.clip(np.floor((start - low) / cell).astype(int), 0, last - 1)
        stop = np.ceil((end - low) / cell).astype(int)
        count = max(1, int((stop - first).max()))
    number = first + np.arange(count + 1)
    edges = xp.clip(low + cell * number, start, end)
    edges = xp.concatenate([start, edges[:, 1:-1], end], axis=1)
    return edges, np.clip(number[:, :-1], 0, last - 1)


def _pseudo(nodes: Array, u: Array) -> Array:
    """Basis of the Taylor sum whose k-th derivative comes from k + 1 nodes.

    sum_k g[0..k] (u - u_0)^k with divided differences g[0..k]; nodes (R, K) with
    u_0 first, u (R, P). Returns (R, K, P).
    """
    xp = namespace(nodes, u)
    count = nodes.shape[-1]
    basis = [xp.zeros_like(u) for _ in range(count)]
    for k in range(count):
        power = (u - nodes[:, :1]) ** k
        for j in range(k + 1):
            others = [m for m in range(k + 1) if m != j]
            gap = math.prod((nodes[:, [j]] - nodes[:, [m]] for m in others), start=1.0)
            basis[j] = basis[j] + power / gap
    return xp.stack(basis, axis=1)


def weights(found: Integrals, rows: np.ndarray, at: np.ndarray, pseudo: bool) -> Array:
    """Bias and weights of f at the levels `at` (R, K) over the steps `rows`.

    Returns (R, *event, 1 + K), without the scale -alpha_t e^{L_s - L_t}.
    """
    xp = namespace(found.measure)
    nodes = found.lam[at] - found.lam[rows][:, None]
    basis = (_pseudo if pseudo else lagrange)(nodes, found.u[rows])
    measure = found.measure[rows]
    q = xp.einsum("rkp,rp...->rk...", basis, measure)
    now = found.growth[rows][:, None]
    beta = xp.exp(now) * (found.offset[at] - found.offset[rows][:, None])
    bias = (measure * found.beta[rows]).sum(axis=1) - (q * beta).sum(axis=1)
    columns = xp.concatenate(
        [bias[:, None], q * xp.exp(now - found.growth[at])], axis=1
    )
    return xp.moveaxis(columns, 1, -1)
