"""DPM-Solver++ with one inner stage and noise, as k-diffusion names them.

`dpmpp_sde` steps the reverse SDE with the stage inside the step; `dpmpp_2s_ancestral`
walks the ODE below the target level and adds noise. Karras et al. 2022 (2206.00364)
for the ancestral split, Lu et al. 2022 (2211.01095) for the step.
"""

import math

import numpy as np

from ... import plan
from ...numerics import Level, Levels, levels, namespace
from ...plan import Leg
from ...typing import Array, ArrayLike, Process
from .._noise import (
    amount,
    ancestral_split,
    is_noisy,
    one_leg,
    scaled,
    sqrt_safe,
    stage_legs,
)
from ..registry import solver

__all__ = ["dpmpp_2s_ancestral", "dpmpp_sde"]


@solver(order=2, calls=2, stochastic=("tau2",), paper="Lu 2022, 2211.01095")
def dpmpp_sde(
    process: Process,
    ts: ArrayLike,
    *,
    tau2: ArrayLike = 1.0,
    r: float = 0.5,
    compat: bool = False,
    s_noise: ArrayLike = 1.0,
) -> plan.Plan:
    """DPM++ SDE: one stage inside each step of the reverse SDE. Weak order 2, 2 calls.

    x_t = (σ_t/σ_s) e^{-τ²h} x_s + α_t (1 - e^{-(1+τ²)h}) [(1 - 1/2r) D_1 + D_2 / 2r]
    + σ_t n, with D_2 at λ_s + r h; the stage's noise is the start of the step's.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        tau2: 0 = ODE, 1 = the reverse SDE; a scalar or one per step, shape (N,).
        r: fraction of the step, in half log-SNR, where the stage stands.
        compat: the published weights: the ancestral split with eta = sqrt(tau2) <= 1,
            with a noise of its own for the stage, independent of the step's, as where
            a `noise_sampler` without memory is given. Its law is of order 1 for every
            tau2 > 0. k-diffusion by default takes both noises from one Brownian path
            in sigma: `fd.interop` reads DPMSolverSDEScheduler so.
        s_noise: factor of the noise.

    Returns:
        A plan of 2N rows; one row on a step from alpha = 0 or into sigma = 0.

    Raises:
        ValueError: r outside (0, 1), a negative tau2, or compat with tau2 above 1.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> dpmpp_sde(process, fd.grids.log_snr(process, 5)).nfe
        10
    """
    if not 0 < r < 1:
        raise ValueError(f"r must lie in (0, 1), got {r}. Use 0.5.")
    lv = levels(process, ts)
    tau2, rows = amount(lv, tau2, most=1 if compat else math.inf), lv.inside
    h, s_noise = lv.h[rows], scaled(s_noise)
    stages = [lv.at(rows), plan.between(process, lv, rows, lv.lam[rows] + r * h)]
    half = 1 / (2 * r)
    if compat:
        moves = _ancestral(lv, rows, stages, sqrt_safe(tau2[rows]), half)
        drawn = is_noisy(tau2)
        legs = [Leg(*g[:3], s_noise * g[3] if drawn else None) for g in moves]
    else:
        z = (1 + tau2[rows]) * h
        xp = namespace(z)
        whole = -xp.expm1(-z)
        unit = [(-xp.expm1(-r * z),), ((1 - half) * whole, half * whole)]
        legs = stage_legs(lv, tau2, rows, stages, (0.0, r), unit, s_noise)
    groups = [(rows, legs), one_leg(lv, tau2, rows, s_noise)]
    return plan.stages(groups, lv.end, independent=compat and is_noisy(tau2))


def _ancestral(
    lv: Levels, rows: np.ndarray, stages: list[Level], eta: Array, half: float
) -> list[tuple[Level, Array, tuple, Array]]:
    """The published step: each of its two moves is an ancestral step from x_s."""
    start, moves = stages[0], []
    lam = lv.lam[rows]
    for level, target in zip(stages, (stages[1], lv.at(rows + 1)), strict=True):
        h = namespace(lam).log(target.alpha / target.sigma) - lam
        down, up = (target.sigma * v for v in ancestral_split(h, eta))
        keep = down / start.sigma
        first = target.alpha - keep * start.alpha
        weights = ((1 - half) * first, half * first) if moves else (first,)
        moves.append((level, keep, weights, up))
    return moves


@solver(order=1, calls=2, stochastic=("eta",), paper="Karras 2022, 2206.00364")
def dpmpp_2s_ancestral(
    process: Process,
    ts: ArrayLike,
    *,
    eta: ArrayLike = 1.0,
    s_noise: ArrayLike = 1.0,
) -> plan.Plan:
    """DPM++ 2S ancestral. Order 2 at eta = 0, otherwise 1, 2 calls per step.

    A midpoint step of the ODE from σ_s/α_s to σ_down, then noise σ_up:
    σ_up = η sqrt(ρ_t² (ρ_s² - ρ_t²) / ρ_s²), σ_down² = ρ_t² - σ_up², ρ = σ/α. From a
    given x_T the mean is of order 1; the law of Gaussian data comes out to order 2.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        eta: scales the noise's standard deviation, in [0, 1]; a scalar or one per
            step, shape (N,). Its square is the other solvers' tau2 for short steps.
        s_noise: factor of the noise.

    Returns:
        A plan of 2N rows; one row on a step from alpha = 0 or into sigma = 0.

    Raises:
        ValueError: eta outside [0, 1].

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> dpmpp_2s_ancestral(process, fd.grids.log_snr(process, 5), eta=0.5).nfe
        10
    """
    lv = levels(process, ts)
    eta, rows, s_noise = amount(lv, eta, "eta", most=1), lv.inside, scaled(s_noise)
    start, end = lv.at(rows), lv.at(rows + 1)
    down, up = (end.sigma * v for v in ancestral_split(lv.h[rows], eta[rows]))
    xp = namespace(down, lv.lam)
    # half-way to `down` in half log-SNR: at most the step's end, reached at eta = 1
    half = xp.log(start.sigma * end.alpha / (start.alpha * down)) / 2
    middle = _at(process, lv.lam[rows] + half)
    stage = middle.sigma / start.sigma
    keep = down / start.sigma
    inner = middle.alpha - stage * start.alpha
    second = end.alpha - keep * start.alpha
    noise = s_noise * up if is_noisy(eta) else None
    legs = [
        Leg(start, stage, (inner,)),
        Leg(middle, keep, (0 * second, second), noise),
    ]
    return plan.stages([(rows, legs), one_leg(lv, eta**2, rows, s_noise)], lv.end)


def _at(process: Process, lam: Array) -> Level:
    time = process.half_log_snr_inverse(lam)
    return Level(time, process.alpha(time), process.sigma(time))
