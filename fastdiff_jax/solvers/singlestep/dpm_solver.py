"""Singlestep DPM-Solver of orders 2 and 3, and the `fast` schedule of orders.

Exponential Runge-Kutta steps in half log-SNR: every step forgets the one before it, and
its inner stages cost one call each. Lu et al. 2022 (2206.00927), algorithms 1 and 2, in
noise prediction; `dpmpp_2s` and `dpmpp_3s` are their twins in data prediction.
"""

from collections.abc import Sequence

import numpy as np

from ... import plan
from ...numerics import Levels, levels
from ...typing import ArrayLike, Process
from .._noise import scaled
from ..registry import solver
from ._ancestral_fast import with_ancestral_noise
from ._singlestep import (
    Inner,
    assemble,
    check_options,
    even,
    every_step,
    fraction,
    inner_stages,
)

__all__ = ["dpm_solver_2", "dpm_solver_3", "dpm_solver_fast", "fast_orders"]


# ------------------------------------------------------------------- public builders


@solver(order=2, calls=2, paper="Lu 2022, 2206.00927")
def dpm_solver_2(
    process: Process,
    ts: ArrayLike,
    *,
    r: float = 0.5,
    inner: Inner = "log_snr",
    variant: str = "dpmsolver",
    prediction: str = "noise",
    denoise: bool = False,
) -> plan.Plan:
    """DPM-Solver-2: one inner stage per step. Order 2, 2 calls per step.

    With the stage u = keep_1 x + G_1 P_1(r) m_0 at λ_s + r h and m_1 there,
    x_t = keep x + G [P_1 m_0 + (c/r) (m_1 - m_0)], c = P_1/2 ('dpmsolver') or
    c = P_2 ('taylor'); P_k = h φ_k(χh), see `_singlestep`.

    Args:
        process: the path.
        ts: the steps' ends, non-increasing times, shape (N + 1,).
        r: where the stage stands between two times, in (0, 1].
        inner: in which clock r counts: 'log_snr', 'time_uniform' (the process' time),
            'time_quadratic' (its square root), or a function
            (process, t, t_next, r) -> times.
        variant: 'dpmsolver' (published default) or 'taylor'.
        prediction: 'noise', or 'data' for DPM-Solver++.
        denoise: one more evaluation, from the last time to sigma = 0.

    Returns:
        A plan of 2N rows (one more with `denoise`). A step from alpha = 0 or into
        sigma = 0 is first order and costs one row.

    Raises:
        ValueError: r outside (0, 1], an unknown inner clock or variant.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpm_solver_2(process, fd.grids.log_snr(process, 5)).nfe
        10

    Reference: 2206.00927, algorithm 1; the 'taylor' form is algorithm 4.
    """
    return every_step(process, ts, 2, (r,), inner, variant, prediction, denoise)


@solver(order=3, calls=3, paper="Lu 2022, 2206.00927")
def dpm_solver_3(
    process: Process,
    ts: ArrayLike,
    *,
    r: tuple[float, float] = (1 / 3, 2 / 3),
    inner: Inner = "log_snr",
    variant: str = "dpmsolver",
    prediction: str = "noise",
    denoise: bool = False,
) -> plan.Plan:
    """DPM-Solver-3: two inner stages per step. Order 3, 3 calls per step.

    u_1 as in `dpm_solver_2`; u_2 = keep_2 x + G_2 [P_1(r_2) m_0
    + (r_2/r_1) P_2(r_2) (m_1 - m_0)];  x_t = keep x + G [P_1 m_0 + (P_2/r_2)
    (m_2 - m_0)] ('dpmsolver'), or P_1 f + P_2 f' + P_3 f'' of the parabola through
    m_0, m_1, m_2 ('taylor'). Both need r_2 = 2/3 in half log-SNR for order 3; the
    other clocks approach it as steps shrink.

    Args:
        process: the path.
        ts: the steps' ends, non-increasing times, shape (N + 1,).
        r: where the stages stand, 0 < r_1 < r_2 <= 1.
        inner, variant, prediction, denoise: as in `dpm_solver_2`.

    Returns:
        A plan of 3N rows (one more with `denoise`). A step from alpha = 0 or into
        sigma = 0 is first order and costs one row.

    Raises:
        ValueError: r out of order, an unknown inner clock or variant.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpm_solver_3(process, fd.grids.log_snr(process, 5)).nfe
        15

    Reference: 2206.00927, algorithm 2; the 'taylor' form is algorithm 5.
    """
    return every_step(process, ts, 3, tuple(r), inner, variant, prediction, denoise)


# order 3 ends in a first-order step for most N
@solver(order=2, orders=(2, 3), paper="Lu 2022, 2206.00927")
def dpm_solver_fast(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 3,
    orders: Sequence[int] | None = None,
    inner: Inner = "shared",
    lower_order_final: bool | None = None,
    variant: str = "dpmsolver",
    prediction: str = "noise",
    compat: bool = False,
    denoise: bool = False,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> plan.Plan:
    """DPM-Solver-fast: steps of several orders that fill a budget of evaluations.

    N evaluations are N // order steps of full order and a lower-order rest, see
    `fast_orders`: order 2 where that rest holds a first-order step, else `order`.
    Three ways to place the stages:

    * 'shared': each of the N grid times is an evaluation; a step of order p spans p
      intervals. Order 3 needs evenly spaced (or smoothly graded) half log-SNR.
    * another clock: a step spans the same p intervals, but its inner stages stand at
      equal parts of it in that clock.
    * `orders` and another clock: ts are the steps' ends, one order per step.

    Args:
        process: the path.
        ts: non-increasing times, shape (N + 1,).
        order: highest order, 1 to 3.
        orders: order of each step, instead of the schedule.
        inner: 'shared', or a clock as in `dpm_solver_2`.
        lower_order_final: see `fast_orders`.
        variant, prediction, denoise: as in `dpm_solver_2`.
        compat: the second stage of third order by the midpoint rule (diffusers).
        eta: in [0, 1]: each step walks to sigma_down and adds the ancestral noise,
            whose standard deviation eta scales (k-diffusion). It needs a clock.
        s_noise: factor of that noise.

    Returns:
        A plan of N rows, or sum(orders). A step from alpha = 0 or into sigma = 0 is
        first order: with 'shared' the step is split there.

    Raises:
        ValueError: an order outside 1..3, orders that do not fit the grid, an
            unknown clock or variant, or eta outside [0, 1] or with shared stages.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpm_solver_fast(process, fd.grids.log_snr(process, 20)).nfe
        20

    Reference: 2206.00927, section 3.4.
    """
    check_options(inner, variant, ("shared",))
    lv = levels(process, ts)
    each = _schedule(lv, order, orders, inner == "shared", lower_order_final)
    if inner == "shared":
        each = _split(each, lv, variant)
    spans = orders is None or inner == "shared"
    first = np.cumsum([0, *(each if spans else np.ones_like(each))])
    outer = lv.take(first)
    if not 0 <= eta <= 1 or (eta > 0 and (inner == "shared" or denoise)):
        raise ValueError(
            f"eta must lie in [0, 1], and be 0 with inner='shared' or denoise; got "
            f"{eta} with inner={inner!r}. Use inner='log_snr'."
        )
    options, noise = (prediction, variant, compat), (eta, scaled(s_noise))
    if eta > 0:
        return with_ancestral_noise(process, outer, each, options, inner, noise)

    def place(steps: np.ndarray, count: int) -> tuple[list, list]:
        if inner != "shared":
            return inner_stages(process, outer, steps, even(count), inner)
        times = [lv.time[first[steps] + j] for j in range(1, count)]
        return times, [fraction(process, outer, steps, t, 0.5) for t in times]

    return assemble(process, outer, each, place, variant, prediction, compat, denoise)


def fast_orders(
    evaluations: int, order: int = 3, lower_order_final: bool | None = None
) -> list[int]:
    """Orders of the steps that spend a number of evaluations.

    Args:
        evaluations: N >= 1.
        order: highest order, 1 to 3.
        lower_order_final: what happens if the order divides N. None, as published:
            order 3 ends in 2, 1 (order 2 does not change). True: order 2 ends in 1, 1
            too (diffusers). False: full order throughout.

    Returns:
        Orders that sum to N; if the order does not divide N the last is the rest.

    Raises:
        ValueError: N < 1 or an order outside 1..3.

    Example:
        >>> fast_orders(9), fast_orders(10), fast_orders(11)
        ([3, 3, 2, 1], [3, 3, 3, 1], [3, 3, 3, 2])
    """
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order}.")
    if evaluations < 1:
        raise ValueError(f"evaluations must be >= 1, got {evaluations}.")
    full, rest = divmod(int(evaluations), order)
    if rest:
        return [order] * full + [rest]
    lower = lower_order_final if order == 2 else lower_order_final is not False
    if order > 1 and lower:
        return [order] * (full - 1) + [order - 1, 1]
    return [order] * full


# ------------------------------------------------------------------ orders of the steps


def _schedule(
    lv: Levels,
    order: int,
    orders: Sequence[int] | None,
    shared: bool,
    lower: bool | None,
) -> np.ndarray:
    """Order of each step, checked against the grid."""
    if orders is None:
        return np.asarray(fast_orders(lv.steps, order, lower))
    each = np.asarray(orders)
    if each.ndim != 1 or not np.isin(each, (1, 2, 3)).all():
        raise ValueError(f"orders must be a list of 1, 2 or 3, got {orders!r}.")
    spent = int(each.sum()) if shared else len(each)
    if spent != lv.steps:
        what = "sum to" if shared else "have one entry for each of"
        raise ValueError(
            f"orders must {what} the grid's {lv.steps} steps, got {list(orders)} "
            f"({spent}). Make a grid of {spent} steps."
        )
    return each


def _split(orders: np.ndarray, lv: Levels, variant: str) -> np.ndarray:
    """Shared stages: first-order steps next to an infinite log-SNR or a repeat.

    A repeated last time is fine: the last stage then stands at the step's end.
    """
    if not isinstance(lv.lam, np.ndarray):
        return orders
    found: list[int] = []
    at = 0
    for order in orders:
        lam = lv.lam[at : at + order + 1].reshape(order + 1, -1)
        head, tail = np.isinf(lam[0]).any(), np.isinf(lam[-1]).any()
        at += order
        if order == 1:
            found.append(1)
            continue
        rest = int(order - head - tail)
        inside = lam[int(head) : int(head) + rest + 1]
        repeat = rest > 1 and (inside[1] == inside[0]).any()
        if rest == 3 and variant == "taylor":
            repeat = repeat or (inside[2] == inside[1]).any()
        middle = [1] * rest if repeat else [rest] * (rest > 0)
        found += [1] * int(head) + middle + [1] * int(tail)
    return np.asarray(found)
