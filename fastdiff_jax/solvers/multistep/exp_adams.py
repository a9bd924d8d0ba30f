"""Exponential Adams: the exact integral of the polynomial through past evaluations.

With l_k the Lagrange basis in half log-SNR on the newest p evaluations,

    data   x_t = (σ_t/σ_s) x_s + α_t Σ_k D_k int e^{-(λ_t - λ)} l_k(λ) dλ
    noise  x_t = (α_t/α_s) x_s - σ_t Σ_k E_k int e^{λ_t - λ} l_k(λ) dλ

In noise prediction this is the DEIS of current libraries (polynomial in log rho), in
data prediction UniP with every system solved; the corrector adds the evaluation at the
step's end (UniC). Zhang & Chen 2023 (2204.13902); Zhao et al. 2023 (2302.04867);
Hochbruck & Ostermann 2011 (BIT 51) for the exponential multistep methods themselves.
"""

import numpy as np

from ... import plan
from ...numerics import (
    exponential_weights,
    gather_columns,
    keep_factor,
    levels,
    step_orders,
)
from ...typing import ArrayLike, Process
from .._starting import Start, begin
from ..registry import solver
from ._unipc import assemble

__all__ = ["deis_logrho", "exp_adams"]


@solver(order=lambda p: p, orders=(1, 2, 3, 4, 5, 6), paper="exponential Adams, exact")
def exp_adams(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 3,
    corrector: bool = False,
    prediction: str = "data",
    lower_order_final: bool | None = None,
    start: Start = "published",
) -> plan.Plan:
    """Exponential Adams of any order to 6. Order p, p + 1 with corrector, 1 call.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,). A step into sigma = 0 is of first
            order: x = D.
        order: number of evaluations p in the predictor, 1 to 6.
        corrector: correct each step with the evaluation at the predicted point, which
            the next step needs anyhow: no extra call.
        prediction: 'data' or 'noise'.
        lower_order_final: orders ..., 2, 1 at the end; None: only below 15 steps.
        start: 'published' warms up with orders 1, 2, ...; 'graded' cuts the first step
            into N^(1 - 2/p) growing parts, one call each, and so keeps the
            order on every grid. Order 6 then needs smooth networks: it amplified
            errors of the evaluations up to 400 times.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an order outside 1..6, or noise prediction at alpha = 0.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 8)
        >>> fd.solvers.exp_adams(process, ts, order=4).registers
        4
    """
    if not 1 <= order <= 6:
        raise ValueError(f"exp_adams needs order in 1..6, got {order}.")
    lv = levels(process, ts)
    lv.require(prediction)
    lv, _ = begin(process, lv, start, order + corrector, 1 + corrector)
    lower = lv.steps < 15 if lower_order_final is None else lower_order_final
    orders = step_orders(lv, order, lower_final=lower)
    if corrector:
        corrected = np.arange(lv.steps) < lv.steps - 1  # the last end has no evaluation
        return assemble(lv, orders, corrected, "exact", prediction)
    return plan.multistep(
        lv,
        basis=prediction,
        keep=keep_factor(lv, prediction),
        weights=gather_columns(
            orders, lambda rows, p: exponential_weights(lv, rows, p, prediction)
        ),
    )


@solver(order=lambda p: p, orders=(1, 2, 3, 4, 5, 6), paper="Zhang 2023, 2204.13902")
def deis_logrho(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 2,
    lower_order_final: bool | None = None,
    start: Start = "published",
) -> plan.Plan:
    """DEIS with the polynomial in log rho: `exp_adams` on E. Order p, 1 call per step.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        order: number of evaluations p, 1 to 6.
        lower_order_final: orders ..., 2, 1 at the end; None: only below 15 steps.
        start: as in `exp_adams`.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: an order outside 1..6, or alpha = 0 on the grid.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.deis_logrho(process, fd.grids.log_snr(process, 8)).nfe
        8
    """
    return exp_adams(
        process,
        ts,
        order=order,
        prediction="noise",
        lower_order_final=lower_order_final,
        start=start,
    )
