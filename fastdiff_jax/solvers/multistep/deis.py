"""DEIS: exponential integrators with a polynomial in time through past noises.

tAB-DEIS: x_t = (α_t/α_s) x_s + α_t Σ_k (∫_{ρ_s}^{ρ_t} l_k(t(ρ)) dρ) E_k, with the
Lagrange basis in the process' TIME. Zhang & Chen 2023 (2204.13902), eqs 13-15. The
paper's code sums 10 000 left endpoints; here the integral is a Gauss-Legendre sum.
"""

import numpy as np

from ... import plan
from ...numerics import (
    Levels,
    along_last,
    gather_columns,
    history_nodes,
    lagrange,
    levels,
    namespace,
    step_orders,
)
from ...typing import Array, ArrayLike, Process
from .._starting import Start, begin
from ..registry import solver

__all__ = ["deis_tab"]

_PANELS, _NODES = 16, 16  # a panel's half log-SNR is then well inside convergence
_PARTS = 10_000  # of the published sums
_SUMS = {  # where in the step the published codes put their points, 0..1
    "left": np.arange(_PARTS) / _PARTS,
    "ends": np.linspace(0, 1, _PARTS),
    "midpoint": (np.arange(_PARTS) + 0.5) / _PARTS,
}
_REACH = 40.0  # e^-40: what is left of a step into sigma = 0 is below float64


@solver(order=lambda r: r + 1, orders=(0, 1, 2, 3), paper="Zhang 2023, 2204.13902")
def deis_tab(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 3,
    lower_order_final: bool = False,
    quadrature: str = "exact",
    exact_first: bool = False,
    start: Start = "published",
) -> plan.Plan:
    """tAB-DEIS. The paper's order r uses r + 1 evaluations: order r + 1, 1 call.

    Args:
        process: the path; its clock is the polynomials' variable.
        ts: times, non-increasing, shape (N + 1,), e.g. `grids.quadratic`.
        order: the paper's r, 0 (DDIM) to 5.
        lower_order_final: go back down at the end.
        quadrature: 'exact', or the sums of published code over 10 000 equal parts in
            time: 'left' (the paper's), 'midpoint', or 'ends' (points at both ends,
            diff-sampler's).
        exact_first: with a sum, integrate first-order steps exactly (diff-sampler).
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 2/(r + 1)) growing parts, one call each, and so keeps the
            order on every grid.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an order outside 0..5, or an unknown quadrature.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.deis_tab(process, fd.grids.quadratic(process, 10)).nfe
        10
    """
    if not 0 <= order <= 5:
        raise ValueError(f"deis_tab needs order in 0..5 (the paper's r), got {order}.")
    if quadrature not in ("exact", *_SUMS):
        raise ValueError(
            f"quadrature must be 'exact' or one of {sorted(_SUMS)}, got {quadrature!r}."
        )
    lv = levels(process, ts)
    lv.require("noise")
    lv, _ = begin(process, lv, start, order + 1)
    orders = step_orders(lv, order + 1, lower_final=lower_order_final, infinite=True)

    def weights(rows: np.ndarray, count: int) -> Array:
        if quadrature == "exact" or (exact_first and count == 1):
            return _integrals(process, lv, rows, count)
        return _sums(process, lv, rows, count, _SUMS[quadrature])

    return plan.multistep(
        lv,
        basis="noise",
        keep=lv.alpha[1:] / lv.alpha[:-1],
        weights=gather_columns(orders, weights),
        exact=quadrature == "exact",  # a sum does not integrate constants
    )


def _integrals(process: Process, lv: Levels, rows: np.ndarray, count: int) -> Array:
    """alpha_t int l_k(t(rho)) d rho over the steps, by panels in half log-SNR."""
    xp = namespace(lv.lam)
    if count == 1:
        ratio = lv.alpha[rows + 1] / lv.alpha[rows]
        return (lv.sigma[rows + 1] - ratio * lv.sigma[rows])[..., None]
    low, high = lv.lam[rows], lv.lam[rows + 1]
    span = xp.where(xp.isinf(high), _REACH, high - low)
    x, w = np.polynomial.legendre.leggauss(_NODES)
    part = ((np.arange(_PANELS)[:, None] + (x + 1) / 2) / _PANELS).ravel()
    mass = np.tile(w / (2 * _PANELS), _PANELS)
    lam = low[..., None] + span[..., None] * along_last(part, low)
    nodes = history_nodes(lv.time, rows, count)
    basis = lagrange(
        nodes, process.half_log_snr_inverse(lam) - lv.time[rows][..., None]
    )
    d_rho = -xp.exp(-lam) * span[..., None] * along_last(mass, low)
    return lv.alpha[rows + 1][..., None] * (basis * d_rho[..., None, :]).sum(-1)


def _sums(
    process: Process, lv: Levels, rows: np.ndarray, count: int, places: np.ndarray
) -> Array:
    """The published codes' sum: alpha_t dt sum_q (d rho / dt) l_k(t_q)."""
    start = lv.time[rows][..., None]
    span = lv.time[rows + 1][..., None] - start
    t = start + span * along_last(places, lv.time[rows])
    alpha, sigma = process.alpha(t), process.sigma(t)
    d_alpha, d_sigma = process.rates(t)
    rate = (d_sigma * alpha - sigma * d_alpha) / alpha**2 * span / _PARTS
    basis = lagrange(history_nodes(lv.time, rows, count), t - start)
    return lv.alpha[rows + 1][..., None] * (basis * rate[..., None, :]).sum(-1)
