"""iPNDM: Adams-Bashforth on DDIM's exact step, with equal-step or true weights.

Transfer: φ(x, s -> t, e) = (α_t/α_s) x + α_t (ρ_t - ρ_s) e with ρ = sigma / alpha,
exact for a constant noise e. `ipndm` puts e = Σ_k b_k E_k in it, b the weights of EQUAL
steps, so on a grid that is uneven in ρ the order is 2, however many evaluations are
used; `ipndm_v` integrates the polynomial over the steps as they are. Zhang & Chen 2023
(2204.13902), eq 15; Liu et al. 2022 (2202.09778).
"""

import numpy as np

from ... import plan
from ...numerics import (
    Levels,
    adams_weights,
    equal_adams_weights,
    gather_columns,
    history_nodes,
    levels,
    namespace,
    step_orders,
    with_clean,
)
from ...typing import Array, ArrayLike, Process
from .._rows import outer
from .._starting import Start, begin
from ..registry import solver

__all__ = ["ipndm", "ipndm_v"]


@solver(order=lambda p: min(p, 2), orders=(1, 2, 3, 4), paper="Zhang 2023, 2204.13902")
def ipndm(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 4,
    denoise: bool = False,
    compat: bool = False,
) -> plan.Plan:
    """Improved PNDM: equal-step Adams-Bashforth that warms up. 1 call per step.

    x_t = φ(x_s, s -> t, Σ_k b_k E_k). Order 1 for `order` 1, else 2 (`order` itself
    only on grids uniform in sigma / alpha). A first step from alpha = 0 is DDIM's.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        order: number of evaluations used, 1 to 4.
        denoise: one more evaluation, from the last time to sigma = 0.
        compat: as published: a first step from alpha = 0 keeps only the noise (it drops
            alpha_t D, order 1), and no history is left out.

    Returns:
        A plan of N rows (N + 1 with `denoise`).

    Raises:
        ValueError: an order outside 1..4.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ipndm(process, fd.grids.quadratic(process, 10)).nfe
        10
    """
    lv, orders = _grid(process, ts, "ipndm", order, compat, denoise)
    basis, keep, gain = _noise_form(lv, compat)
    table = equal_adams_weights(orders, orders.max())
    made = plan.multistep(
        lv,
        basis=basis,
        keep=keep,
        weights=namespace(gain).stack(outer(gain, table), axis=-1),
        exact=False,
    )
    if not compat:  # constant D has constant E; finite at alpha = 0
        plan.self_check(made, lv, "data")
    return made


@solver(order=lambda p: p, orders=(1, 2, 3, 4), paper="Zhang 2023, 2204.13902")
def ipndm_v(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 4,
    denoise: bool = False,
    compat: bool = False,
    start: Start = "published",
) -> plan.Plan:
    """Improved PNDM for variable steps: Adams-Bashforth in ρ on the true steps (LMS).

    x_t = (α_t/α_s) x_s + α_t Σ_k (∫_{ρ_s}^{ρ_t} l_k dρ) E_k. Order as given, 1 call.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        order: number of evaluations p, 1 to 4.
        denoise: one more evaluation, from the last time to sigma = 0.
        compat: diff-sampler's weights of orders 3 and 4 (a misplaced bracket; in order
            4 also a sign and a ratio), and no history is left out.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 2/p) growing parts, one call each, and so keeps the
            order on every grid.

    Returns:
        A plan of N rows (N + 1 with `denoise`).

    Raises:
        ValueError: an order outside 1..4.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.ipndm_v(process, fd.grids.karras(process, 8), order=3).registers
        3
    """
    lv, orders = _grid(process, ts, "ipndm_v", order, compat, denoise, start)
    lv.require("noise")

    def weights(rows: np.ndarray, count: int) -> Array:
        h, nodes = lv.rho[rows + 1] - lv.rho[rows], history_nodes(lv.rho, rows, count)
        if compat and count > 2:
            integrals = h[..., None] * _published(h, nodes)
        else:
            integrals = adams_weights(h, nodes)
        return lv.alpha[rows + 1][..., None] * integrals

    return plan.multistep(
        lv,
        basis="noise",
        keep=lv.alpha[1:] / lv.alpha[:-1],
        weights=gather_columns(orders, weights),
        exact=not compat,  # the published order 4 does not sum to the step
    )


def _grid(
    process: Process,
    ts: ArrayLike,
    name: str,
    order: int,
    compat: bool,
    denoise: bool,
    start: Start = "published",
) -> tuple[Levels, np.ndarray]:
    """Levels, sigma = 0 appended if asked for, and the order of each step."""
    if order not in (1, 2, 3, 4):
        raise ValueError(f"{name} needs order in 1..4, got {order}.")
    lv, _ = begin(process, levels(process, ts), start, order)
    if denoise:
        lv = with_clean(process, lv)
    if compat:
        orders = np.minimum(order, np.arange(lv.steps) + 1)
    else:
        orders = step_orders(lv, order, infinite=True)
    if denoise:
        orders[-1] = 1
    return lv, orders


def _noise_form(lv: Levels, drop_mean: bool) -> tuple[plan.Basis, Array, Array]:
    """Basis, keep and gain of each step; in data prediction where alpha_s = 0.

    There E = x / sigma does not tell D. Dropping the mean, as published, steps with E.
    """
    level = lv.starts
    xp = namespace(lv.alpha)
    pure = level.alpha == 0
    alpha = xp.where(pure, 1.0, level.alpha)
    noise = plan.basis_of(level._replace(alpha=alpha), "noise")
    keep = lv.alpha[1:] / alpha
    if drop_mean:
        first = (noise.point, 0.0, 0.0, lv.sigma[1:])
    else:
        first = (0.0, 1.0, lv.sigma[1:] / level.sigma, lv.alpha[1:])
    usual = (*noise, keep, lv.sigma[1:] - keep * level.sigma)
    point, data, keep, gain = (
        xp.where(pure, a, b) for a, b in zip(first, usual, strict=True)
    )
    return plan.Basis(point, data), keep, gain


def _published(h: Array, nodes: Array) -> Array:
    """diff-sampler's weights per unit step, for 3 or 4 nodes at 0, -a, -a-b, -a-b-c.

    Right would be second = h (h/3 + a/2) / (a (a + b)), a minus in `third` and b/c in
    its last weight.
    """
    xp = namespace(h)
    a, b = -nodes[..., 1], nodes[..., 1] - nodes[..., 2]
    zero, one = xp.zeros_like(h), xp.ones_like(h)
    second = (1 - h**2 / (3 * a * (a + b))) / 2
    parts = [1 + h / a / 2 + second, -h / a / 2 - (1 + a / b) * second, second * a / b]
    if nodes.shape[-1] == 3:
        return xp.stack(parts, axis=-1)
    c = nodes[..., 2] - nodes[..., 3]
    area = (2 * h / 3 + a) * (h + a + b) / 2 + (h / 2 + a) * h / 6
    third = h * area / (a * (a + b) * (a + b + c))
    ratio = a * (a + b) / (b * (b + c))
    shape = (one, -(1 + a / b + ratio), a / b + ratio * (1 + b / c), -ratio * a / b)
    return xp.stack(
        [p + third * s for p, s in zip([*parts, zero], shape, strict=True)], axis=-1
    )
