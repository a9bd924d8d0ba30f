"""Runge-Kutta on the probability-flow ODE, in the process' time or in sigma / alpha.

`euler` and `heun` integrate dx/dt = alpha' D + sigma' E in the process' own time (any
path; for flow and EDM that is what the field calls Euler and Heun). `edm_heun`
integrates d(x/alpha)/d(sigma/alpha) = E, where the linear part is exact.
"""

import numpy as np

from ... import plan
from ...numerics import Levels, levels, namespace
from ...plan import Leg
from ...typing import Array, ArrayLike, Process
from ..registry import solver

__all__ = ["edm_heun", "euler", "heun"]


@solver(order=1, paper="Euler, in the path's own time")
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
    step = lv.time[1:] - lv.time[:-1]
    return plan.multistep(
        lv,
        basis=plan.basis_of(lv.starts, "velocity", process),
        keep=namespace(step).ones_like(step),
        weights=step[..., None],
    )


def _trapezoid(
    lv: Levels, keep: Array, length: Array
) -> list[tuple[np.ndarray, list[Leg]]]:
    """Two lines per step, Euler's alone into sigma = 0, where nothing is evaluated."""
    rows, last = np.split(np.arange(lv.steps), [lv.steps - lv.clean])
    half = length[rows] / 2
    first = Leg(lv.at(rows), keep[rows], (length[rows],))
    second = Leg(lv.at(rows + 1), keep[rows], (half, half))
    euler = Leg(lv.at(last), keep[last], (length[last],))
    return [(rows, [first, second]), (last, [euler])]


@solver(order=2, calls=2, paper="Heun, in the path's own time")
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
    length = lv.time[1:] - lv.time[:-1]
    groups = _trapezoid(lv, namespace(length).ones_like(length), length)
    return plan.stages(groups, lv.end, basis="velocity", process=process)


@solver(order=2, calls=2, paper="Karras 2022, 2206.00364")
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
    lv = levels(process, ts).require("noise")
    ratio = lv.alpha[1:] / lv.alpha[:-1]
    length = lv.sigma[1:] - ratio * lv.sigma[:-1]  # alpha_t Δ
    made = plan.stages(_trapezoid(lv, ratio, length), lv.end, basis="noise")
    plan.self_check(made, lv, "noise")
    return made
