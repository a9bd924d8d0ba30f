"""Runge-Kutta in rho = sigma / alpha, where the linear part of the ODE is exact.

With u = x / alpha the probability-flow ODE is du/d rho = E. A Butcher table (a, b, c)
over a step of length D = rho_t - rho_s reads, with rho_j = rho_s + c_j D,

    x_j = (alpha_j/alpha_s) x_s + alpha_j D sum_k a_jk E_k
    x_t = (alpha_t/alpha_s) x_s + alpha_t D sum_k b_k E_k

Zhang & Chen 2023 (2204.13902), rhoRK-DEIS; Lu et al. 2022 (2206.00927), DPM-Solver-2.
"""

import difflib
from typing import NamedTuple

import numpy as np

from ... import plan
from ...numerics import Level, Levels, levels, namespace
from ...typing import Array, ArrayLike, Process
from ..registry import solver
from ._steps import exponential_stages

__all__ = ["dpm2", "rho_rk"]


class _Butcher(NamedTuple):
    """A Butcher table without its diagonal: `a` starts at the second stage."""

    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]


_TABLES = {
    "euler": _Butcher((0,), (), (1,)),
    "heun2": _Butcher((0, 1), ((1,),), (1 / 2, 1 / 2)),
    "kutta3": _Butcher((0, 1 / 2, 1), ((1 / 2,), (-1, 2)), (1 / 6, 2 / 3, 1 / 6)),
    "ralston3": _Butcher(
        (0, 1 / 2, 3 / 4), ((1 / 2,), (0, 3 / 4)), (2 / 9, 1 / 3, 4 / 9)
    ),
    "heun3": _Butcher((0, 1 / 3, 2 / 3), ((1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    "van_der_houwen3": _Butcher(
        (0, 8 / 15, 2 / 3), ((8 / 15,), (1 / 4, 5 / 12)), (1 / 4, 0, 3 / 4)
    ),
    "ssprk3": _Butcher((0, 1, 1 / 2), ((1,), (1 / 4, 1 / 4)), (1 / 6, 1 / 6, 2 / 3)),
    "rk4": _Butcher(
        (0, 1 / 2, 1 / 2, 1),
        ((1 / 2,), (0, 1 / 2), (0, 0, 1)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}


@solver(order=3, calls=3, paper="Zhang 2023, 2204.13902")
def rho_rk(process: Process, ts: ArrayLike, *, variant: str = "kutta3") -> plan.Plan:
    """rhoRK-DEIS. Order and calls per step are those of the Butcher table.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,). A last step into sigma = 0 is
            Euler's, one call: x = D.
        variant: 'euler' (order 1), 'heun2' (2, two calls), 'kutta3', 'ralston3',
            'heun3', 'van_der_houwen3', 'ssprk3' (3, three calls), 'rk4' (4, four).

    Returns:
        A plan of S N rows for S stages; S (N - 1) + 1 if the last level is clean.

    Raises:
        ValueError: an unknown variant, or alpha = 0 on the grid.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.rho_rk(process, fd.grids.log_snr(process, 5)).nfe
        15
    """
    if variant not in _TABLES:
        near = difflib.get_close_matches(str(variant), _TABLES, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"variant must be one of {', '.join(_TABLES)}, got {variant!r}.{hint}"
        )
    table = _TABLES[variant]
    lv, rows = _steps(process, ts)
    start, length = lv.rho[rows], lv.rho[rows + 1] - lv.rho[rows]
    log, stages = namespace(start).log, []
    for c in table.c:
        if c in (0, 1):
            stages.append(lv.at(rows + c))
        else:
            lam = -log(start + c * length)
            stages.append(plan.between(process, lv, rows, lam))
    moves = [[length * w for w in line] for line in (*table.a, table.b)]
    return _assemble(lv, rows, stages, moves)


@solver(order=2, calls=2, paper="Lu 2022, 2206.00927")
def dpm2(process: Process, ts: ArrayLike, *, r: float = 0.5) -> plan.Plan:
    """DPM-2: a second evaluation inside the step in log sigma. Order 2, 2 calls.

    x_m = (α_m/α_s) x_s + α_m (ρ_m - ρ_s) E_s,           ρ_m = ρ_s^{1-r} ρ_t^r
    x_t = (α_t/α_s) x_s + α_t (ρ_t - ρ_s) [(1 - 1/(2r)) E_s + 1/(2r) E_m]

    r = 1/2 is the midpoint rule, k-diffusion's `dpm_2` after DPM-Solver-2.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,). A last step into sigma = 0 is
            Euler's.
        r: where the second evaluation stands, in (0, 1].

    Returns:
        A plan of 2N rows, 2N - 1 if the last level is clean.

    Raises:
        ValueError: r outside (0, 1], or alpha = 0 on the grid.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> fd.solvers.dpm2(process, fd.grids.edm(process, 10)).nfe
        19

    Reference: Lu et al. 2022 (2206.00927), DPM-Solver-2.
    """
    if not 0 < r <= 1:
        raise ValueError(f"dpm2 needs r in (0, 1] (1/2 is the midpoint), got {r}.")
    lv, rows = _steps(process, ts)
    start, length = lv.rho[rows], lv.rho[rows + 1] - lv.rho[rows]
    if r == 1:
        middle, reach = lv.at(rows + 1), length
    else:
        lam = lv.lam[rows] + r * lv.h[rows]
        middle = plan.between(process, lv, rows, lam)
        reach = middle.sigma / middle.alpha - start
    share = 1 / (2 * r)
    moves = [[reach], [(1 - share) * length, share * length]]
    return _assemble(lv, rows, [lv.at(rows), middle], moves)


def _steps(process: Process, ts: ArrayLike) -> tuple[Levels, np.ndarray]:
    """Levels, and the steps with stages: all but one into sigma = 0."""
    lv = levels(process, ts).require("noise")
    return lv, np.arange(lv.steps - lv.clean)


def _assemble(
    lv: Levels,
    rows: np.ndarray,
    stages: list[Level],
    moves: list[list[Array]],
) -> plan.Plan:
    """Moves in rho, times alpha at the level they lead to."""
    ends = [*(s.alpha for s in stages[1:]), lv.alpha[rows + 1]]
    weights = [[a * w for w in line] for a, line in zip(ends, moves, strict=True)]
    return exponential_stages(
        lv, basis="noise", rows=rows, levels=stages, weights=weights
    )
