"""PNDM: pseudo-linear multistep with a Runge-Kutta or trapezoid start.

Transfer: φ(x, s -> t, e) = (α_t/α_s) x + α_t (ρ_t - ρ_s) e with ρ = sigma / alpha,
exact for a constant noise e. After the start e = Σ_k b_k E_k with b the Adams-Bashforth
weights of EQUAL steps, so on a grid that is uneven in ρ the order is 2, however many
evaluations are used. Liu et al. 2022 (2202.09778).
"""

import numpy as np

from ... import plan
from ...numerics import equal_adams_weights, levels, step_orders
from ...typing import Array, ArrayLike, Process
from .._rows import outer, where_rows
from ..registry import solver

__all__ = ["f_pndm", "plms", "s_pndm"]


@solver(order=2, orders=(2, 3, 4), paper="Liu 2022, 2202.09778")
def plms(
    process: Process, ts: ArrayLike, *, order: int = 4, average: str = "noise"
) -> plan.Plan:
    """PLMS as in Stable Diffusion: trapezoid, then equal-step Adams. N + 1 calls.

    First step: e' = E(φ(x, s -> t, e), t), x_t = φ(x, s -> t, (e + e') / 2), e' is not
    kept. Then x_t = φ(x, s -> t, Σ_k b_k E_k), orders 2, 3, ..., `order`. Order 2.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        order: number of evaluations used, 2 to 4.
        average: 'noise', or 'velocity' to average v = alpha E - sigma D over the
            evaluations (diffusers with a v-prediction network; order 1).

    Returns:
        A plan of N + 1 rows; N if the first step ends at sigma = 0.

    Raises:
        ValueError: an order outside 2..4, or an unknown average.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.plms(process, fd.grids.uniform(process, 10)).nfe
        11
    """
    if order not in (2, 3, 4):
        raise ValueError(f"plms needs order in 2..4, got {order}.")
    lv = levels(process, ts)
    steps = np.arange(lv.steps)
    twice = not (isinstance(lv.sigma, np.ndarray) and (lv.sigma[1] == 0).any())
    step = np.append(0, steps) if twice else steps
    row = np.arange(len(step))
    at, begin = np.where((row == 1) & twice, 1, step), lv.at(step)
    keep, gain = _transfer(begin, lv.at(step + 1), average)
    orders = step_orders(lv, order, infinite=True)
    table = equal_adams_weights(orders, max(2, orders.max()))[step]
    closes = (row == 1) & twice  # the trapezoid's end
    if twice:
        table[1] = np.eye(2, table.shape[1])[0] / 2 - np.eye(2, table.shape[1])[1] / 2
    level, kind = lv.at(at), "noise" if average == "noise" else "v"
    x, e = plan.register(0), plan.evaluation(level, kind)
    past = plan.Ring(1, table.shape[1] - 1)
    # it was led to by e alone: x_t = x' + gain (e' - e) / 2
    move = where_rows(closes, 1.0, keep) * x
    for weight, m in zip(outer(gain, table), [e, *past], strict=True):
        move = move + weight * m
    # e' is not kept: e is stored again
    stored = where_rows(closes, 0.0, 1.0) * e + where_rows(closes, 1.0, 0.0) * past[0]
    inside = (row == 0) & twice
    made = plan.build(
        level,
        lv.end,
        [(0, move), (past, stored)],
        sample=where_rows(inside, 0.0, 1.0) * move + where_rows(inside, 1.0, 0.0) * x,
        basis=plan.basis_of(level, kind),
    )
    if average == "noise":
        plan.self_check(made, lv, "noise")
    return made


@solver(order=2, paper="Liu 2022, 2202.09778")
def s_pndm(process: Process, ts: ArrayLike) -> plan.Plan:
    """S-PNDM: `plms` with two evaluations. Order 2, N + 1 calls.

    x_t = φ(x, s -> t, (3 E_0 - E_1) / 2) after a first trapezoid.

    Args:
        process: the path; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).

    Returns:
        A plan of N + 1 rows.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.s_pndm(process, fd.grids.uniform(process, 10)).nfe
        11
    """
    return plms(process, ts, order=2)


@solver(order=2, paper="Liu 2022, 2202.09778")
def f_pndm(process: Process, ts: ArrayLike, *, average: str = "noise") -> plan.Plan:
    """F-PNDM: three pseudo Runge-Kutta steps, then equal-step Adams 4. N + 9 calls.

    e1 = E(x, s), e2 = E(φ(x, s -> m, e1), m), e3 = E(φ(x, s -> m, e2), m),
    e4 = E(φ(x, s -> t, e3), t), x_t = φ(x, s -> t, (e1 + 2 e2 + 2 e3 + e4) / 6) with
    m = (s + t) / 2 in time; only e1 is kept. Order 2 (4 on grids uniform in ρ).

    Args:
        process: the path, with levels at m; alpha > 0 on the grid.
        ts: times, non-increasing, shape (N + 1,).
        average: as in `plms`.

    Returns:
        A plan of N + 3 min(3, N) rows; a Runge-Kutta step into sigma = 0 is not taken.

    Raises:
        ValueError: an unknown average.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.f_pndm(process, fd.grids.uniform(process, 10)).nfe
        19
    """
    lv = levels(process, ts)
    warm = min(3, lv.steps)
    warm -= isinstance(lv.sigma, np.ndarray) and bool((lv.sigma[warm] == 0).any())
    steps, rest = np.arange(lv.steps), lv.steps - warm
    step = np.append(np.repeat(steps[:warm], 4), steps[warm:])
    stage = np.append(np.tile(np.arange(4), warm), np.full(rest, 4))
    half = (lv.time[step] + lv.time[step + 1]) / 2
    ahead = where_rows(stage < 2, half, lv.time[step + 1])
    time = where_rows(np.isin(stage, (1, 2)), half, lv.time[step])
    time = where_rows(stage == 3, lv.time[step + 1], time)
    level = plan.Level(time, process.alpha(time), process.sigma(time))
    after = plan.Level(ahead, process.alpha(ahead), process.sigma(ahead))
    kind = "noise" if average == "noise" else "v"
    keep, gain = _transfer(lv.at(step), after, average)
    own, stored, to = _weights(step, stage, step_orders(lv, 4, infinite=True))
    x, e = plan.register(0), plan.evaluation(level, kind)
    kept = [plan.register(1 + k) for k in range(5)]
    # inside a step, its start is what the stage before was led to, without its e
    led = np.zeros((len(step), 5))
    for j, where in (
        (1, step % 3),
        (2, np.full_like(step, 3)),
        (3, np.full_like(step, 4)),
    ):
        led[stage == j, where[stage == j]] = 1.0
    before = np.maximum(np.arange(len(step)) - 1, 0)
    inside = np.isin(stage, (1, 2, 3))
    begin = where_rows(inside, 1 / keep[before], 1.0) * x
    back = where_rows(inside, gain[before] / keep[before], 0.0)
    for weight, m in zip(outer(back, led), kept, strict=True):
        begin = begin - weight * m
    move = keep * begin
    for weight, m in zip(
        outer(gain, np.column_stack([own, stored])), [e, *kept], strict=True
    ):
        move = move + weight * m
    ended = stage > 2
    made = plan.build(
        level,
        lv.end,
        [(0, move), (to, e)],
        sample=where_rows(ended, 1.0, 0.0) * move + where_rows(ended, 0.0, 1.0) * begin,
        basis=plan.basis_of(level, kind),
    )
    if average == "noise":
        plan.self_check(made, lv, "noise")
    return made


def _weights(
    step: np.ndarray, stage: np.ndarray, orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of a row's own evaluation and of the stored ones, and where it goes.

    Registers 1..3 hold the steps' first evaluations, 4 and 5 the stages e2 and e3.
    """
    row, kept = np.arange(len(step)), step % 3
    to = np.where(stage == 1, 3, np.where((stage == 2) | (stage == 3), 4, kept))
    own = np.where(stage < 3, 1.0, 0.0)
    stored = np.zeros((len(step), 5))
    last, adams = row[stage == 3], row[stage == 4]
    own[last] = 1 / 6
    stored[last, kept[last]] = 1 / 6
    stored[last, 3:] = 1 / 3
    weights = equal_adams_weights(orders, 4)[step[adams]]
    own[adams] = weights[:, 0]
    for j in (1, 2, 3):
        stored[adams, (step[adams] - j) % 3] = weights[:, j]
    return own, stored, (1 + to).astype(np.int32)


# ------------------------------------------------------------------------ helpers


def _transfer(s: plan.Level, t: plan.Level, average: str) -> tuple[Array, Array]:
    """(keep, gain) of φ(x, s -> t, m) = keep x + gain m, m a noise or a velocity."""
    if average == "noise":
        s.require("noise")
        keep = t.alpha / s.alpha
        return keep, t.sigma - keep * s.sigma
    if average != "velocity":
        raise ValueError(f"average must be 'noise' or 'velocity', got {average!r}.")
    square = s.alpha**2 + s.sigma**2
    keep = (t.alpha * s.alpha + t.sigma * s.sigma) / square
    return keep, (t.sigma * s.alpha - t.alpha * s.sigma) / square
