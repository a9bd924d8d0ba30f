"""The published Euler-Maruyama steps of Flow-GRPO and DanceGRPO.

With dt = t_next - t < 0, v = dx/dt and S = ((1 - t) D - x) / t^2 on the straight path,
s = eta sqrt(t / (1 - t)) the noise rate. Liu et al. 2025 (2505.05470); Xue et al. 2025
(2505.07818). What trains a policy with them is `fd.policy`.
"""

import numpy as np

from ... import plan
from ...numerics import Levels, levels, namespace
from ...typing import ArrayLike, Process
from .._noise import amount
from ..registry import solver

__all__ = ["flow_grpo"]


@solver(
    order=1,
    stochastic=("eta",),
    paper="Liu 2025, 2505.05470",
    needs="the straight path, fd.processes.flow()",
)
def flow_grpo(
    process: Process,
    ts: ArrayLike,
    *,
    eta: ArrayLike = 0.7,
    variant: str = "flow_grpo",
) -> plan.Plan:
    """The published Euler-Maruyama step of Flow-GRPO or DanceGRPO. Order 1.

    With dt = t_next - t < 0, v = dx/dt and S = ((1 - t) D - x) / t^2,

        flow_grpo  s = eta sqrt(t / (1 - t)),  c = s sqrt(-dt)
                   mean = x (1 + s^2 dt / (2t)) + v (1 + s^2 (1 - t) / (2t)) dt
        dance      mean = x + (v - eta^2 S / 2) dt,  c = eta sqrt(-dt)

    For comparison with the publications, and their last step adds noise as well.
    Prefer the exact exponential step with the same SDE, `fd.solvers.sde_dpmpp_1` or
    `sde_dpmpp_2m` with `tau2=flow_grpo_tau2(eta)`: at t = 1 it draws the noise anew,
    where here 1 - t is replaced by 1 - ts[1], as in the published code.

    Args:
        process: `fd.processes.flow()`.
        ts: times, decreasing, shape (N + 1,).
        eta: noise level, a scalar or one per step, shape (N,); 0 is the ODE's Euler
            step. A window: `(2 * window(...)) ** 0.5`.
        variant: 'flow_grpo' or 'dance'.

    Returns:
        A plan of N rows, every one with noise weights.

    Raises:
        ValueError: another path, a negative eta, or an unknown variant.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.flow()
        >>> flow_grpo(process, fd.grids.uniform(process, 10)).stochastic
        True

    Reference: Liu et al. 2025 (2505.05470), eq 9; Xue et al. 2025 (2505.07818).
    """
    if variant not in ("flow_grpo", "dance"):
        raise ValueError(f"variant must be 'flow_grpo' or 'dance', got {variant!r}.")
    lv = levels(process, ts)
    _check_straight(lv)
    eta = amount(lv, eta, "eta")
    xp = namespace(lv.time, eta)
    t, dt = lv.time[:-1], lv.time[1:] - lv.time[:-1]
    # v = (x - D) / t
    if variant == "dance":
        std = eta
        point = 1 / t + eta**2 / (2 * t**2)
        data = -1 / t - eta**2 * (1 - t) / (2 * t**2)
    else:
        open_ = xp.where(t == 1, lv.time[1], t)
        std = eta * xp.sqrt(t / (1 - open_))
        of_v = 1 + std**2 * (1 - t) / (2 * t)
        point, data = std**2 / (2 * t) + of_v / t, -of_v / t
    return plan.multistep(
        lv,
        keep=1 + point * dt,
        weights=(data * dt)[:, None],
        noise=std * xp.sqrt(-dt),
    )


def _check_straight(lv: Levels) -> None:
    if lv.time.ndim > 1:
        raise ValueError(
            f"flow_grpo needs one time per step, got shape {lv.time.shape}. Use "
            "fd.solvers.sde_dpmpp_2m for times per element."
        )
    if isinstance(lv.time, np.ndarray) and not (
        np.allclose(lv.alpha, 1 - lv.time) and np.allclose(lv.sigma, lv.time)
    ):
        raise ValueError(
            "process must be the straight path alpha = 1 - t, sigma = t; got "
            f"alpha={lv.alpha[0]:g}, sigma={lv.sigma[0]:g} at t={lv.time[0]:g}. Use "
            "fd.processes.flow(), or fd.solvers.sde_dpmpp_1 on any path."
        )
