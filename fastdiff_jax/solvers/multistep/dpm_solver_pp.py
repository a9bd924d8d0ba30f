"""DPM-Solver++ multistep: exponential steps in data prediction.

x_t = (σ_t/σ_s) x_s + α_t Σ_k w_k D_k, h = λ_t - λ_s. Lu et al. 2022 (2211.01095),
algorithm 2 (2M). The noise-prediction twins are DPM-Solver's (2206.00927).
"""

import numpy as np

from ... import plan
from ...numerics import (
    Levels,
    exponential_weights,
    gather_columns,
    keep_factor,
    levels,
    namespace,
    phi,
    step_orders,
    with_clean,
)
from ...typing import Array, ArrayLike, Process
from .._starting import Start, begin
from ..registry import solver

__all__ = ["dpmpp_2m", "dpmpp_3m"]


@solver(order=2, paper="Lu 2022, 2211.01095")
def dpmpp_2m(
    process: Process,
    ts: ArrayLike,
    *,
    variant: str = "midpoint",
    prediction: str = "data",
    lower_order_final: bool | None = None,
    euler_at_final: bool = False,
    denoise: bool = False,
) -> plan.Plan:
    """DPM-Solver++(2M). Order 2, 1 call per step.

    x_t = (σ_t/σ_s) x_s + α_t [P_1 D_0 + c (D_0 - D_1) h / h_prev], P_1 = 1 - e^{-h}
    and c = P_1 / 2 ('midpoint') or h φ_2(-h) ('exact', the full Lagrange integral).

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        variant: 'midpoint' (published default) or 'exact' (libraries' "heun").
        prediction: 'data', or 'noise' for DPM-Solver's multistep.
        lower_order_final: order 1 at the last step; None: only below 15 steps.
        euler_at_final: order 1 at the last step, whatever N.
        denoise: one more evaluation, from the last time to sigma = 0.

    Returns:
        A plan of N rows (N + 1 with `denoise`). A step into sigma = 0 gives D.

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpmpp_2m(process, fd.grids.log_snr(process, 10)).nfe
        10
    """
    _choice(variant)
    return _multistep(
        process,
        ts,
        order=2,
        midpoint=variant == "midpoint",
        prediction=prediction,
        lower=lower_order_final,
        euler_at_final=euler_at_final,
        denoise=denoise,
    )


@solver(order=3, paper="Lu 2022, 2211.01095")
def dpmpp_3m(
    process: Process,
    ts: ArrayLike,
    *,
    compat: bool = False,
    prediction: str = "data",
    lower_order_final: bool | None = None,
    euler_at_final: bool = False,
    denoise: bool = False,
    variant: str = "midpoint",
    start: Start = "published",
) -> plan.Plan:
    """DPM-Solver++(3M). Order 3 (published weights: 2), 1 call per step.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        compat: the published third-order weights, whose second difference has half
            the factor that order 3 needs. False: the exact Lagrange integral.
        prediction: 'data', or 'noise' for DPM-Solver's multistep.
        lower_order_final: orders 2, 1 at the end; None: only below 15 steps.
        euler_at_final: order 1 at the last step, whatever N.
        denoise: one more evaluation, from the last time to sigma = 0.
        variant: of second-order steps, as in `dpmpp_2m`: 'midpoint' or 'exact'.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1/3) growing parts, one call each, and so keeps the
            order on every grid.

    Returns:
        A plan of N rows (N + 1 with `denoise`).

    Raises:
        ValueError: an unknown variant.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpmpp_3m(process, fd.grids.log_snr(process, 10)).registers
        3
    """
    _choice(variant)
    return _multistep(
        process,
        ts,
        order=3,
        midpoint=variant == "midpoint",
        prediction=prediction,
        lower=lower_order_final,
        euler_at_final=euler_at_final,
        denoise=denoise,
        compat=compat,
        start=start,
    )


def _choice(variant: str) -> None:
    if variant not in ("midpoint", "exact"):
        raise ValueError(f"variant must be 'midpoint' or 'exact', got {variant!r}.")


def _multistep(
    process: Process,
    ts: ArrayLike,
    *,
    order: int,
    midpoint: bool,
    prediction: str,
    lower: bool | None,
    euler_at_final: bool,
    denoise: bool,
    compat: bool = False,
    start: Start = "published",
) -> plan.Plan:
    lv, _ = begin(process, levels(process, ts).require(prediction), start, order)
    lower = lv.steps < 15 if lower is None else lower  # steadies very few steps
    orders = step_orders(
        lv, order, lower_final=lower, final=1 if euler_at_final else None
    )
    if denoise:
        lv = with_clean(process, lv)
        orders = np.append(orders, 1)

    def weights(rows: np.ndarray, count: int) -> Array:
        if count == 2 and midpoint:
            return _midpoint(lv, rows, prediction)
        if count == 3 and compat:
            return _published_third(lv, rows, prediction)
        return exponential_weights(lv, rows, count, prediction)

    return plan.multistep(
        lv,
        basis=prediction,
        keep=keep_factor(lv, prediction),
        weights=gather_columns(orders, weights),
    )


def _scale(lv: Levels, rows: np.ndarray, prediction: str) -> tuple[Array, int]:
    """G and chi of the sheet: alpha_t and -1, or -sigma_t and +1."""
    if prediction == "data":
        return lv.alpha[rows + 1], -1
    return -lv.sigma[rows + 1], 1


def _midpoint(lv: Levels, rows: np.ndarray, prediction: str) -> Array:
    """G P_1 (1 + k/2), -G P_1 k/2 with k = h / h_prev."""
    xp = namespace(lv.lam)
    scale, chi = _scale(lv, rows, prediction)
    h, ratio = lv.h[rows], lv.h[rows] / lv.h[rows - 1]
    first = scale * chi * xp.expm1(chi * h)
    return xp.stack([first * (1 + ratio / 2), -first * ratio / 2], axis=-1)


def _published_third(lv: Levels, rows: np.ndarray, prediction: str) -> Array:
    """The published third-order weights: divided difference in place of f''."""
    xp = namespace(lv.lam)
    scale, chi = _scale(lv, rows, prediction)
    h, h0, h1 = lv.h[rows], lv.h[rows - 1], lv.h[rows - 2]
    p1, p2, p3 = (h * phi(k, chi * h) for k in (1, 2, 3))
    q, eta = h0 / (h0 + h1), h / (h0 + h1)
    newer = (p2 * (1 + q) + p3 * eta) * h / h0
    older = -(p2 * q + p3 * eta) * h / h1
    return xp.stack(
        [scale * (p1 + newer), scale * (older - newer), -scale * older], axis=-1
    )
