"""FlowTurbo: Heun steps, then pseudo-corrector steps, then refined steps, H_a P_b R_c.

With d' the last velocity of the step before and Δ = t - s, a pseudo-corrector step is

    x' = x_s + Δ d';   x_t = x_s + Δ/2 (d' + v(x', t))

Heun's, with a velocity that was there already in place of a new one at x_s: one call,
still order 2. A refined step is Heun's with both velocities from a small network.
Zhao et al. 2024 (2409.18128). There time runs from 0 (noise) to 1.
"""

import numpy as np

from ... import plan
from ...numerics import Levels, levels
from ...typing import ArrayLike, Process
from .._rows import where_rows
from ..registry import solver

__all__ = ["flow_turbo"]

_HEUN, _PSEUDO, _REFINE = 0, 1, 2


@solver(order=2, paper="Zhao 2024, 2409.18128")
def flow_turbo(
    process: Process,
    ts: ArrayLike,
    *,
    heun: int = 1,
    pseudo: int | None = None,
    refine: int = 0,
) -> plan.Plan:
    """H_a P_b R_c in the process' time. Order 2; 2, 1 and 0 model calls per step.

    Args:
        process: the path; its clock is the ODE's. Made for `processes.flow()`.
        ts: times, non-increasing, shape (N + 1,); N = heun + pseudo + refine. The
            paper's grid is uniform.
        heun: a, 1 or more: the first pseudo-corrector needs a velocity.
        pseudo: b; None: all steps that are left.
        refine: c; the model must then be a `transforms.velocity_refiner`.

    Returns:
        A plan of 2 a + b + 2 c rows. A last step into sigma = 0, where the velocity
        does not follow from D, is Euler's, 1 row (the published loop asks a velocity
        network there, at the clean end, too). With c > 0 the rows carry controls
        {"refine": 0 model, 1 or 2 stage of a refined step}.

    Raises:
        ValueError: counts that are negative or do not add up to N, or heun = 0.

    Example:
        >>> import fastdiff_jax as fd
        >>> flow = fd.processes.flow()
        >>> ts = fd.grids.uniform(flow, 8)
        >>> flow_turbo(flow, ts, heun=1, pseudo=5, refine=2).nfe
        11
    """
    lv = levels(process, ts)
    n = lv.steps
    pseudo = n - heun - refine if pseudo is None else pseudo
    if heun < 1 or pseudo < 0 or refine < 0 or heun + pseudo + refine != n:
        raise ValueError(
            f"flow_turbo needs heun >= 1, pseudo >= 0, refine >= 0 that sum to the "
            f"{n} steps of ts, got {heun}, {pseudo}, {refine}. Leave pseudo None for "
            "the steps that are left."
        )
    kinds = np.repeat([_HEUN, _PSEUDO, _REFINE], [heun, pseudo, refine])
    return _assemble(process, lv, kinds)


def _assemble(process: Process, lv: Levels, kinds: np.ndarray) -> plan.Plan:
    n = lv.steps
    euler = np.zeros(n, bool)
    euler[-1] = lv.clean
    skips = (kinds == _PSEUDO) & ~euler  # no evaluation at the step's start
    ends = ~euler  # one at its end
    step = np.repeat(np.arange(n), (~skips).astype(int) + ends)
    first = np.append(True, step[1:] != step[:-1])
    stage = np.where(first & ~skips[step], 0, 1)
    closes = (stage == 1) | euler[step]
    # which step a row's own velocity leads ahead in, to the next point
    ahead = step + closes
    leads = (~closes) | np.append(skips, False)[ahead]
    length = lv.time[1:] - lv.time[:-1]
    level = lv.at(step + stage)
    controls = None
    if (kinds == _REFINE).any():
        refined = np.where(kinds[step] == _REFINE, stage + 1, 0)
        controls = {"refine": refined.astype(np.int32)}
    x = plan.register(0)
    d, last = plan.evaluation(level, "velocity", process), plan.Ring(1, 1)
    # a step's second line goes on from x_s + Δ d': take half of it back
    half = where_rows(stage == 1, length[step] / 2, 0.0)
    whole = where_rows(euler[step] & closes, length[step], 0.0)
    sample = x + (half + whole) * d - half * last[0]
    lead = where_rows(leads, length[np.minimum(ahead, n - 1)], 0.0)
    return plan.build(
        level,
        lv.end,
        [(0, sample + lead * d), (last, d)],
        sample=sample,
        basis=plan.basis_of(level, "velocity", process),
        controls=controls,
    )
