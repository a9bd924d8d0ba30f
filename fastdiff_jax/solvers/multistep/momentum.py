"""Momentum on top of linear multistep: heavy ball, Nesterov, generalised heavy ball.

With φ(x, g) = (α_t/α_s) x + α_t (ρ_t - ρ_s) g, ρ = sigma / alpha, and AB_k the
Adams-Bashforth sum of equal steps over k noise predictions E:

    HB:    v' = (1 - β) v + β AB_k(E),  x' = φ(x, v')
    NT:    v' the same,                 x' = φ(x, (1 - β) v' + β AB_k(E))
    GHVB:  v' = (1 - β) v + β E,        x' = φ(x, Σ_j c_j v'_{-j})

and, on DPM-Solver++(2M), the same average of its extrapolated D (`dpmpp_2m_hb`).

An order of 2.7 means k = 3 and β = 0.7; a whole one means β = 1, plain Adams-Bashforth.
A velocity damps oscillations where the step is too long for the model, most with small
β. Wizadwongsa et al. 2023 (2307.11118).
"""

import math

import numpy as np

from ... import plan
from ...numerics import Levels, equal_adams_weights, levels, namespace, step_orders
from ...typing import Array, ArrayLike, Process
from .._rows import outer, where_rows
from ..registry import solver

__all__ = ["dpmpp_2m_hb", "ghvb", "hb", "nt"]

_DIFFERENCES = (1, 1 / 2, 5 / 12, 3 / 8, 251 / 720)  # Adams' weights of ∇^j


def _at_most_2(order: float) -> int:
    """Equal-step weights on a grid that is uneven in sigma / alpha."""
    return min(math.ceil(order), 2)


def _lagging(order: float) -> int:
    """The same; a velocity (an order that is not whole) lags by a step."""
    return _at_most_2(order) if order == int(order) else 1


@solver(order=_lagging, orders=(1, 2, 3, 4, 5), paper="Wizadwongsa 2023, 2307.11118")
def hb(
    process: Process, ts: ArrayLike, *, order: float = 1.8, initial: str = "noise"
) -> plan.Plan:
    """Polyak's heavy ball on equal-step Adams-Bashforth. 1 call per step.

    v' = (1 - β) v + β AB_k(E), x_t = φ(x_s, v'). The velocity lags: order 1 for β < 1.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        order: k - 1 + β, in (0, 5].
        initial: the velocity before the first step: 'noise' (E), or as the published
            code has it, the network's raw output before it is turned into noise:
            'data' (D) or 'velocity' (alpha E - sigma D).

    Returns:
        A plan of N rows; registers hold k - 1 evaluations and the velocity.

    Raises:
        ValueError: an order outside (0, 5], or an unknown initial velocity.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.hb(process, fd.grids.log_snr(process, 8), order=2.5).registers
        4
    """
    return _heavy(process, ts, _split("hb", order), 1.0, initial)


@solver(order=_lagging, orders=(1, 2, 3, 4, 5), paper="Wizadwongsa 2023, 2307.11118")
def nt(
    process: Process, ts: ArrayLike, *, order: float = 1.8, initial: str = "noise"
) -> plan.Plan:
    """Nesterov momentum on equal-step Adams-Bashforth. 1 call per step.

    v' = (1 - β) v + β AB_k(E), x_t = φ(x_s, (1 - β) v' + β AB_k(E)). Order 1 for β < 1.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        order: k - 1 + β, in (0, 5].
        initial: as in `hb`.

    Returns:
        A plan of N rows; registers hold k - 1 evaluations and the velocity.

    Raises:
        ValueError: an order outside (0, 5], or an unknown initial velocity.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.nt(process, fd.grids.log_snr(process, 8)).nfe
        8
    """
    count, beta = _split("nt", order)
    return _heavy(process, ts, (count, beta), 1 - beta, initial)


@solver(order=_at_most_2, orders=(1, 2, 3, 4, 5), paper="Wizadwongsa 2023, 2307.11118")
def ghvb(
    process: Process, ts: ArrayLike, *, order: float = 1.8, initial: str = "noise"
) -> plan.Plan:
    """Generalised heavy ball: momentum that keeps the order k. 1 call per step.

    v' = (1 - β) v + β E, x_t = φ(x_s, Σ_{j<k} g_j ∇^j v'), g_0 = 1 and
    g_j = γ_j + γ_{j-1} (1 - β)/β with γ = 1, 1/2, 5/12, 3/8, 251/720. Order k = ⌈order⌉
    on grids uniform in ρ, at most 2 on others; the error grows as β goes to 0.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        order: k - 1 + β, in (0, 5].
        initial: as in `hb`.

    Returns:
        A plan of N rows; registers hold velocities.

    Raises:
        ValueError: an order outside (0, 5], or an unknown initial velocity.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ghvb(process, fd.grids.log_snr(process, 8), order=2.8).registers
        3
    """
    count, beta = _split("ghvb", order)
    lv, keep, gain = _steps(process, ts)
    x, e = plan.register(0), plan.evaluation(lv.starts, "noise")
    past = plan.Ring(1, max(count - 1, 1))
    velocity, start = _velocity(lv, beta, initial, e, past)
    table = _backward(step_orders(lv, count, infinite=True), beta, max(count, 2))
    now, *older = outer(gain, table)  # on v', v, v_{-1}, ...
    step = keep * x + now * velocity
    for weight, v in zip(older, [*past], strict=False):
        step = step + weight * v
    return _made(lv, [(0, step), (past, velocity)], start, initial)


# ------------------------------------------------------------------------ helpers


def _split(name: str, order: float) -> tuple[int, float]:
    """Number of evaluations k and the share β of a real order."""
    if not 0 < order <= 5:
        raise ValueError(f"{name} needs order in (0, 5], got {order}.")
    count = math.ceil(order)
    return count, order - (count - 1)


def _steps(process: Process, ts: ArrayLike) -> tuple[Levels, Array, Array]:
    lv = levels(process, ts).require("noise")
    keep = lv.alpha[1:] / lv.alpha[:-1]
    return lv, keep, lv.sigma[1:] - keep * lv.sigma[:-1]


def _velocity(
    lv: Levels, beta: float, initial: str, bracket: plan.Form, past: plan.Ring
) -> tuple[plan.Form, dict[int, plan.Form]]:
    """The velocity beta bracket + (1 - beta) v, v the newest in a ring, and its start.

    In row 0 that register holds x (by the start), and v = r_x x + r_E E.
    """
    a, s = lv.starts.alpha, lv.starts.sigma
    of_x, of_noise = {
        "noise": lambda: (0 * a, 0 * a + 1),
        "data": lambda: (1 / a, -s / a),
        "velocity": lambda: (-s / a, (a**2 + s**2) / a),
    }.get(initial, lambda: _unknown(initial))()
    first = np.arange(lv.steps) == 0
    kept = where_rows(first, (1 - beta) * of_x, 1 - beta + 0 * a)
    own = where_rows(first, (1 - beta) * of_noise, 0 * a)
    e = plan.evaluation(lv.starts, "noise")
    start = {} if initial == "noise" else {past.first + past.size - 1: plan.register(0)}
    return beta * bracket + own * e + kept * past[0], start


def _unknown(initial: str) -> tuple:
    raise ValueError(f"initial must be 'noise', 'data' or 'velocity', got {initial!r}.")


def _made(lv: Levels, writes: list, start: dict, initial: str) -> plan.Plan:
    made = plan.build(
        lv.starts,
        lv.end,
        writes,
        basis=plan.basis_of(lv.starts, "noise"),
        start=start,
    )
    if initial == "noise":
        plan.self_check(made, lv, "data")
    return made


def _backward(orders: np.ndarray, beta: float, width: int) -> np.ndarray:
    """Weights on v', v, v_{-1}, ... of Σ_j g_j ∇^j v', shape (N, width)."""
    g = np.array(_DIFFERENCES)
    g[1:] += (1 - beta) / beta * np.array(_DIFFERENCES[:-1])
    table = np.zeros((6, width))
    for order in range(1, 6):
        for j in range(order):
            for i in range(min(j + 1, width)):
                table[order, i] += g[j] * (-1) ** i * math.comb(j, i)
    return table[orders]


def _heavy(
    process: Process,
    ts: ArrayLike,
    order: tuple[int, float],
    share: float,
    initial: str,
) -> plan.Plan:
    """HB and NT: x' = φ(x, share v' + (1 - share) AB_k(E)), share 1 or 1 - β."""
    count, beta = order
    lv, keep, gain = _steps(process, ts)
    e = plan.evaluation(lv.starts, "noise")
    past, v = plan.Ring(1, count - 1), plan.Ring(count, 1)
    unit = namespace(gain).ones_like(gain)
    adams = equal_adams_weights(step_orders(lv, count, infinite=True), count)
    newest, *older = outer(unit, adams)
    bracket = newest * e
    for weight, m in zip(older, [*past], strict=False):
        bracket = bracket + weight * m
    velocity, start = _velocity(lv, beta, initial, bracket, v)
    step = keep * plan.register(0) + (share * gain) * velocity
    if share < 1:
        step = step + ((1 - share) * gain) * bracket
    writes = [(0, step), (v, velocity)]
    return _made(lv, [*writes, *([(past, e)] if count > 1 else [])], start, initial)


@solver(order=1, paper="Wizadwongsa 2023, 2307.11118")
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
    newest, older, kept = _bracket(lv.h, second, beta)
    x, d, v = plan.register(0), plan.prediction(), plan.Ring(1, 1)
    past = plan.Ring(2, 1)
    velocity = newest * d + older * past[0] + kept * v[0]
    used = where_rows(second, gain, 0.0) * velocity + where_rows(second, 0.0, gain) * d
    made = plan.build(
        lv.starts,
        lv.end,
        [
            (0, (lv.sigma[1:] / lv.sigma[:-1]) * x + used),
            (v, velocity),
            (past, d),
        ],
    )
    plan.self_check(made, lv, "data")
    return made


def _bracket(h: Array, second: np.ndarray, beta: float) -> tuple[Array, Array, Array]:
    """Weights of D_0, D_1 and v in the new velocity; steps of order 1 keep v."""
    xp = namespace(h)
    previous = xp.concatenate([h[:1], h[:-1]])
    zero, one = xp.zeros_like(h), xp.ones_like(h)
    # steps of order 1 may lie beside an infinite or a zero step: no ratio there
    ratio = where_rows(second, h, zero) / where_rows(second, previous, one)
    share = where_rows(second & (np.cumsum(second) == 1), one, beta * one)
    share = where_rows(second, share, zero)
    return share * (1 + ratio / 2), -share * ratio / 2, 1 - share
