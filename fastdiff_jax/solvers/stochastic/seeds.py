"""SEEDS: exponential Runge-Kutta for the reverse SDEs, stage noise composed exactly.

With z = (1 + tau2) h, a stage at lambda_s + r h is (sigma_r / sigma_s) e^{-tau2 r h}
x_s + alpha_r sum_k w_k D_k + sigma_r n. Its noise n is the start of the step's own:
n <- e^{-tau2 dr h} n + sqrt(1 - e^{-2 tau2 dr h}) z from stage to stage. Gonzalez et
al. 2023 (2305.14267).
"""

from ... import plan
from ...numerics import levels, phi
from ...typing import Array, ArrayLike, Process
from .._noise import amount, one_leg, scaled, stage_legs
from ..registry import solver

__all__ = ["seeds"]


@solver(  # order=3: 3 calls per step, and order 3 without noise
    order=2,
    orders=(2, 3),
    calls=2,
    stochastic=("tau2",),
    paper="Gonzalez 2023, 2305.14267",
)
def seeds(
    process: Process,
    ts: ArrayLike,
    *,
    order: int = 2,
    tau2: ArrayLike = 1.0,
    r: float | None = None,
    s_noise: ArrayLike = 1.0,
) -> plan.Plan:
    """SEEDS-2 and SEEDS-3. Order 2 or 3 without noise, weak order 2 with it.

    Data prediction throughout; SEEDS-1 is `sde_dpmpp_1`. With P_k = z φ_k(-z), the
    step ends on P_1 D_1 + (P_2 / r) (D_last - D_1), D_last at the fraction r.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        order: number of stages, 2 or 3, and of calls per step.
        tau2: 0 = ODE, 1 = the reverse SDE; a scalar or one per step, shape (N,).
        r: fraction of the step, in half log-SNR, of the second stage; None: 1/2
            (order 2) or 1/3 (order 3, whose third stage stands at 2/3).
        s_noise: factor of the noise.

    Returns:
        A plan of `order` N rows; one row on a step from alpha = 0 or into sigma = 0.

    Raises:
        ValueError: another order, r outside its range, or a negative tau2.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> seeds(process, fd.grids.log_snr(process, 5), order=3).nfe
        15
    """
    if order not in (2, 3):
        raise ValueError(f"order must be 2 or 3, got {order!r}. Order 1: sde_dpmpp_1.")
    r = 1 / order if r is None else r
    last = 1.0 if order == 2 else 2 / 3
    if not 0 < r < last:
        raise ValueError(f"r must lie in (0, {last:.3g}) for order {order}, got {r}.")
    lv = levels(process, ts)
    tau2, rows, s_noise = amount(lv, tau2), lv.inside, scaled(s_noise)
    lam, h = lv.lam[rows], lv.h[rows]
    z = (1 + tau2[rows]) * h
    fractions = (0.0, r) if order == 2 else (0.0, r, last)
    stages = [lv.at(rows)]
    stages += [plan.between(process, lv, rows, lam + f * h) for f in fractions[1:]]

    def line(f: float, node: float) -> tuple[Array, Array]:
        """Weights of D_1 and of D at `node` over the fraction f of the step."""
        slope = f / node * (f * z) * phi(2, -f * z)
        return f * z * phi(1, -f * z) - slope, slope

    unit = [(r * z * phi(1, -r * z),), line(1.0, r)]
    if order == 3:
        first, third = line(1.0, last)
        unit = [unit[0], line(last, r), (first, 0 * z, third)]
    legs = stage_legs(lv, tau2, rows, stages, fractions, unit, s_noise)
    return plan.stages([(rows, legs), one_leg(lv, tau2, rows, s_noise)], lv.end)
