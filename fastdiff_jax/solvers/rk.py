"""Runge-Kutta on the probability-flow ODE, in the process' time or in sigma / alpha.

`euler` and `heun` integrate dx/dt = alpha' D + sigma' E in the process' own time (any
path; for flow and EDM that is what the field calls Euler and Heun). `edm_heun`
integrates d(x/alpha)/d(sigma/alpha) = E, where the linear part is exact.
"""

import numpy as np

from .. import plan
from ..numerics import Levels, levels, namespace
from ..typing import Array, ArrayLike, Process

__all__ = ["edm_heun", "euler", "heun"]


def _velocity(process: Process, level: plan.Level) -> plan.Convert:
    """dx/dt = (sigma' / sigma) x + (alpha' - alpha sigma' / sigma) D."""
    d_alpha, d_sigma = process.rates(level.time)
    rate = d_sigma / level.sigma
    return plan.Convert(rate[:, None], (d_alpha - level.alpha * rate)[:, None])


def euler(process: Process, ts: ArrayLike) -> plan.Plan:
    """x_t = x_s + (t - s) dx/dt(x_s, s). Order 1, 1 call per step.

    Args:
        process: the path; its clock is the ODE's.
        ts: times, non-increasing, shape (N + 1,).

    Returns:
        A plan of N rows.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> fd.solvers.euler(flow, fd.grids.uniform(flow, 4, end=0.0)).nfe
        4
    """
    lv = levels(process, ts)
    level = plan.take(lv, slice(None, -1))
    xp, step = namespace(lv.time), lv.time[1:] - lv.time[:-1]
    return plan.build(
        level,
        plan.take(lv, -1),
        convert=_velocity(process, level),
        advance=plan.Move(xp.ones_like(step), None, evaluation=step[:, None]),
    )


def _two_stage_rows(lv: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step, stage of each row and whether it closes: 2 per step, 1 into sigma = 0."""
    last = isinstance(lv.sigma, np.ndarray) and (lv.sigma[-1] == 0).any()
    step = np.repeat(np.arange(lv.steps), 2)
    stage = np.tile([0, 1], lv.steps)
    if last:
        step, stage = step[:-1], stage[:-1]
    closes = (stage == 1) | (np.arange(len(step)) == len(step) - 1)
    return step, stage, closes


def _trapezoid(length: Array, stage: np.ndarray, closes: np.ndarray) -> Array:
    """Newest-first weights: the whole step to stage 2, halves to close."""
    xp = namespace(length)
    shape = (-1,) + (1,) * (length.ndim - 1)
    full = xp.where((stage == 0).reshape(shape), length, length / 2)
    half = xp.where(((stage == 1) & closes).reshape(shape), length / 2, 0.0)
    return xp.stack([full, half], axis=1)


def heun(process: Process, ts: ArrayLike) -> plan.Plan:
    """Heun's method in the process' time. Order 2, 2 calls per step.

    x' = x_s + Δ v(x_s, s);  x_t = x_s + Δ/2 (v(x_s, s) + v(x', t)),  Δ = t - s. A last
    step into sigma = 0 is Euler's, as there the velocity cannot be evaluated.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).

    Returns:
        A plan of 2N rows, 2N - 1 if the last level is clean.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> fd.solvers.heun(flow, fd.grids.uniform(flow, 4, end=0.0)).nfe
        7
    """
    lv = levels(process, ts)
    step, stage, closes = _two_stage_rows(lv)
    level = plan.take(lv, step + stage)
    length = (lv.time[1:] - lv.time[:-1])[step]
    return plan.runge_kutta(
        level,
        plan.take(lv, -1),
        convert=_velocity(process, level),
        keep=namespace(length).ones_like(length),
        weights=_trapezoid(length, stage, closes),
        closes=closes,
    )


def edm_heun(process: Process, ts: ArrayLike) -> plan.Plan:
    """EDM's Heun: the trapezoid in rho = sigma / alpha. Order 2, 2 calls per step.

    x' = (α_t/α_s) x_s + α_t Δ E(x_s);  x_t = (α_t/α_s) x_s + α_t Δ/2 (E(x_s) + E(x')),
    Δ = rho_t - rho_s. A last step into sigma = 0 is Euler's.

    Args:
        process: the path, any; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,), e.g. `grids.edm(process, N)`.

    Returns:
        A plan of 2N rows, 2N - 1 if the last level is clean.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.edm_heun(process, fd.grids.edm(process, 18)).nfe
        35

    Reference: Karras et al. 2022 (2206.00364), algorithm 1.
    """
    lv = levels(process, ts)
    step, stage, closes = _two_stage_rows(lv)
    level = plan.take(lv, step + stage)
    convert = plan.basis(level, "noise")
    ratio = lv.alpha[1:] / lv.alpha[:-1]
    length = (lv.sigma[1:] - ratio * lv.sigma[:-1])[step]  # alpha_t Δ
    made = plan.runge_kutta(
        level,
        plan.take(lv, -1),
        convert=convert,
        keep=ratio[step],
        weights=_trapezoid(length, stage, closes),
        closes=closes,
    )
    plan.check(made, lv, "noise")
    return made
