"""DPM-Solver++(2M) with Polyak's heavy ball.

The extrapolated data prediction of 2M is averaged over the steps, a velocity v beside
the stored D. Wizadwongsa et al. 2023 (2307.11118).
"""

import numpy as np

from .. import plan
from ..numerics import levels, namespace, step_orders
from ..typing import Array, ArrayLike, Process

__all__ = ["dpmpp_2m_hb"]


def dpmpp_2m_hb(
    process: Process,
    ts: ArrayLike,
    *,
    beta: float = 0.8,
    lower_order_final: bool | None = None,
) -> plan.Plan:
    """DPM-Solver++(2M) with a heavy ball on its extrapolation. 1 call per step.

    v' = (1 - β) v + β [D_0 + (h / 2 h_prev)(D_0 - D_1)] from the second step on, where
    v starts as the bracket; x_t = (σ_t/σ_s) x_s + α_t (1 - e^{-h}) v'. First-order
    steps leave v alone. Order 2 for β = 1, else 1.

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        beta: share of the new bracket, in (0, 1]; 1 is DPM-Solver++(2M).
        lower_order_final: order 1 at the last step; None: only below 15 steps.

    Returns:
        A plan of N rows. A step into sigma = 0 gives D.

    Raises:
        ValueError: beta outside (0, 1].

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.dpmpp_2m_hb(process, fd.grids.log_snr(process, 8)).nfe
        8
    """
    if not 0 < beta <= 1:
        raise ValueError(f"beta must lie in (0, 1] (1 = no momentum), got {beta}.")
    lv = levels(process, ts)
    lower = lv.steps < 15 if lower_order_final is None else lower_order_final
    second = step_orders(lv, 2, lower_final=lower) == 2
    xp = namespace(lv.lam)
    gain = -lv.alpha[1:] * xp.expm1(-lv.h)
    newest, older, kept = _velocity(lv.h, second, beta)
    zero, one = xp.zeros_like(gain), xp.ones_like(gain)
    moved = _where(second, kept, zero)
    level = plan.take(lv, slice(None, -1))
    made = plan.absolute(  # slot 0: D, slot 1: the velocity
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "data"),
        advance=plan.Move(
            lv.sigma[1:] / lv.sigma[:-1],
            xp.stack([gain * older, gain * moved], 1),
            None,
            (gain * _where(second, newest, one))[:, None],
        ),
        push=plan.Push(
            np.tile(np.array([0, 1], np.int32), (lv.steps, 1)),
            xp.stack([one, newest], 1)[:, :, None],
            xp.stack([xp.stack([zero, zero], 1), xp.stack([older, kept], 1)], 1),
        ),
    )
    plan.check(made, lv, "data")
    return made


def _velocity(h: Array, second: np.ndarray, beta: float) -> tuple[Array, Array, Array]:
    """Weights of D_0, D_1 and v in the new velocity; steps of order 1 keep v."""
    xp = namespace(h)
    previous = xp.concatenate([h[:1], h[:-1]])
    zero, one = xp.zeros_like(h), xp.ones_like(h)
    # steps of order 1 may lie beside an infinite or a zero step: no ratio there
    ratio = _where(second, h, zero) / _where(second, previous, one)
    share = _where(second & (np.cumsum(second) == 1), one, beta * one)
    share = _where(second, share, zero)
    return share * (1 + ratio / 2), -share * ratio / 2, 1 - share


def _where(rows: np.ndarray, first: Array, second: Array) -> Array:
    """Per row, the first or the second (R, ...)."""
    mask = rows.reshape((-1,) + (1,) * (first.ndim - 1))
    return namespace(first, second).where(mask, first, second)
