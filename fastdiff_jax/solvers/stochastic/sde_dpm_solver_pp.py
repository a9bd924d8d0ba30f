"""SDE-DPM-Solver++: exponential multistep for the reverse SDEs, one draw per step.

x_t = (sigma_t / sigma_s) e^{-tau2 h} x_s + sum_j w_j D_j + sigma_t sqrt(1 - e^{-2 tau2
h}) z. Lu et al. 2022 (2211.01095), appendix B; k-diffusion's `dpmpp_2m_sde` and
`dpmpp_3m_sde` (their `eta` is tau2).
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
    step_orders,
)
from ...typing import Array, ArrayLike, Process
from .._noise import (
    amount,
    exact_weights,
    is_noisy,
    midpoint_weights,
    published_third_weights,
    scaled,
    sde_step,
    sqrt_safe,
)
from ..registry import solver

__all__ = ["sde_dpmpp_1", "sde_dpmpp_2m", "sde_dpmpp_3m"]


@solver(order=1, stochastic=("tau2",), paper="Lu 2022, 2211.01095")
def sde_dpmpp_1(
    process: Process,
    ts: ArrayLike,
    *,
    tau2: ArrayLike = 1.0,
    prediction: str = "data",
    s_noise: ArrayLike = 1.0,
) -> plan.Plan:
    """SDE-DPM-Solver++(1), also SEEDS-1. Order 1, 1 call per step.

    x_t = (σ_t/σ_s) e^{-τ²h} x_s + α_t (1 - e^{-(1+τ²)h}) D + σ_t sqrt(1 - e^{-2τ²h}) z.
    tau2 = 1 is DDPM's ancestral step, tau2 = 0 is DDIM.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        tau2: 0 = ODE, 1 = the reverse SDE; a scalar or one per step, shape (N,).
        prediction: 'data', or 'noise' for SDE-DPM-Solver.
        s_noise: factor of the noise.

    Returns:
        A plan of N rows.

    Raises:
        ValueError: a negative tau2, or noise prediction with noise at an exact end.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> sde_dpmpp_1(process, fd.grids.log_snr(process, 10)).nfe
        10
    """
    return _multistep(process, ts, 1, tau2, prediction, s_noise)


@solver(order=2, stochastic=("tau2",), paper="Lu 2022, 2211.01095")
def sde_dpmpp_2m(
    process: Process,
    ts: ArrayLike,
    *,
    tau2: ArrayLike = 1.0,
    variant: str = "midpoint",
    prediction: str = "data",
    lower_order_final: bool | None = None,
    euler_at_final: bool = False,
    s_noise: ArrayLike = 1.0,
) -> plan.Plan:
    """SDE-DPM-Solver++(2M). Weak order 2, 1 call per step.

    x_t = (σ_t/σ_s) e^{-τ²h} x_s + α_t [P D_0 + c (D_0 - D_1) h / h_prev] + noise,
    P = 1 - e^{-z}, z = (1+τ²) h, and c = P / 2 ('midpoint') or 1 - P / z ('exact').

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        tau2: 0 = ODE, 1 = the reverse SDE; a scalar or one per step, shape (N,).
            k-diffusion's `eta` is this number; an `eta` that scales a standard
            deviation, as DDIM's, is its root.
        variant: 'midpoint' (published default) or 'exact' (libraries' "heun").
        prediction: 'data', or 'noise' for SDE-DPM-Solver.
        lower_order_final: order 1 at the last step; None: only below 15 steps.
        euler_at_final: order 1 at the last step, whatever N.
        s_noise: factor of the noise.

    Returns:
        A plan of N rows. A step into sigma = 0 gives D.

    Raises:
        ValueError: an unknown variant, a negative tau2, or noise prediction with noise
            at an exact end.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> ts = fd.grids.log_snr(process, 10)
        >>> made = sde_dpmpp_2m(process, ts, tau2=0.5)
        >>> made.nfe, made.stochastic, sde_dpmpp_2m(process, ts, tau2=0).stochastic
        (10, True, False)
    """
    _choice("variant", variant)
    midpoint = variant == "midpoint"
    ends = (lower_order_final, euler_at_final)
    return _multistep(process, ts, 2, tau2, prediction, s_noise, midpoint, ends)


@solver(
    order=2, stochastic=("tau2",), paper="Lu 2022, 2211.01095"
)  # order 3 without noise
def sde_dpmpp_3m(
    process: Process,
    ts: ArrayLike,
    *,
    tau2: ArrayLike = 1.0,
    compat: bool = False,
    prediction: str = "data",
    lower_order_final: bool | None = None,
    euler_at_final: bool = False,
    variant: str = "exact",
    s_noise: ArrayLike = 1.0,
) -> plan.Plan:
    """SDE-DPM-Solver++(3M). Order 3 without noise, weak order 2 with it, 1 call.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        tau2: as `sde_dpmpp_2m`.
        compat: the published third-order weights, whose second difference has half
            the factor that order 3 needs. False: the exact Lagrange integral.
        prediction: 'data', or 'noise' for SDE-DPM-Solver (exact weights only).
        lower_order_final: orders 2, 1 at the last steps; None: only below 15 steps.
        euler_at_final: order 1 at the last step, whatever N.
        variant: of the second step, 'exact' (k-diffusion) or 'midpoint'.
        s_noise: factor of the noise.

    Returns:
        A plan of N rows. A step into sigma = 0 gives D.

    Raises:
        ValueError: an unknown variant, a negative tau2, or noise prediction with noise
            at an exact end or with `compat`.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> sde_dpmpp_3m(process, fd.grids.log_snr(process, 10)).registers
        3
    """
    _choice("variant", variant)
    if compat and prediction == "noise":
        raise ValueError(
            "compat must be False with prediction='noise', got True: no published "
            "third-order weights exist there. Leave compat out."
        )
    midpoint = variant == "midpoint"
    ends = (lower_order_final, euler_at_final)
    return _multistep(process, ts, 3, tau2, prediction, s_noise, midpoint, ends, compat)


def _choice(name: str, value: str) -> None:
    if value not in ("midpoint", "exact"):
        raise ValueError(f"{name} must be 'midpoint' or 'exact', got {value!r}.")


def _multistep(
    process: Process,
    ts: ArrayLike,
    order: int,
    tau2: ArrayLike,
    prediction: str,
    s_noise: ArrayLike,
    midpoint: bool = False,
    ends: tuple[bool | None, bool] = (False, False),
    compat: bool = False,
) -> plan.Plan:
    lv = levels(process, ts).require(prediction)
    tau2, s_noise = amount(lv, tau2), scaled(s_noise)
    noisy, (lower, euler) = is_noisy(tau2), ends
    lower = lv.steps < 15 if lower is None else lower  # steadies very few steps
    orders = step_orders(lv, order, lower_final=lower, final=1 if euler else None)
    if prediction == "noise":
        keep, noise, weights = _noise_form(lv, tau2, midpoint)
    else:
        keep, noise = sde_step(lv.starts, lv.ends, tau2, lv.h)

        def weights(rows: np.ndarray, count: int) -> Array:
            if count == 2 and midpoint:
                return midpoint_weights(lv, tau2, rows)
            if count == 3 and compat:
                return published_third_weights(lv, tau2, rows)
            return exact_weights(lv, tau2, rows, count)

    return plan.multistep(
        lv,
        basis=prediction,
        keep=keep,
        weights=gather_columns(orders, weights),
        noise=s_noise * noise if noisy else None,
    )


def _noise_form(lv: Levels, tau2: Array, midpoint: bool) -> tuple:
    """x_t = (α_t/α_s) x_s - (1+τ²) σ_t sum_j E_j int e^{h-u} l_j du + noise.

    The noise is τ σ_t sqrt(e^{2h} - 1) z, which does not vanish at sigma_t = 0.
    """
    xp = namespace(lv.alpha, tau2)
    if isinstance(lv.sigma, np.ndarray) and is_noisy(tau2):
        if (lv.sigma == 0).any():
            raise ValueError(
                "prediction='noise' with tau2 > 0 cannot step into sigma = 0: its "
                "noise does not vanish there. Use prediction='data', or end above 0."
            )
    ratio = keep_factor(lv, "noise")
    # tau sigma_t sqrt(e^{2h} - 1), written without e^h
    noise = sqrt_safe(tau2 * ((ratio * lv.sigma[:-1]) ** 2 - lv.sigma[1:] ** 2))

    def weights(rows: np.ndarray, count: int) -> Array:
        a = 1 + tau2[rows]
        if count == 2 and midpoint:
            share = (lv.h[rows] / lv.h[rows - 1]) / 2
            first = a * exponential_weights(lv, rows, 1, "noise")[..., 0]
            return xp.stack([first * (1 + share), -first * share], axis=-1)
        return a[..., None] * exponential_weights(lv, rows, count, "noise")

    return ratio, noise, weights
