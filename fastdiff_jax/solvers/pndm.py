"""PNDM: pseudo-linear multistep with a Runge-Kutta or trapezoid start.

Transfer: φ(x, s -> t, e) = (α_t/α_s) x + α_t (ρ_t - ρ_s) e with ρ = sigma / alpha,
exact for a constant noise e. After the start e = Σ_k b_k E_k with b the Adams-Bashforth
weights of EQUAL steps, so on a grid that is uneven in ρ the order is 2, however many
evaluations are used. Liu et al. 2022 (2202.09778).
"""

import numpy as np

from .. import plan
from ..numerics import equal_adams_weights, levels, namespace, step_orders
from ..typing import Array, ArrayLike, Process

__all__ = ["f_pndm", "plms", "s_pndm"]


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
    at = np.where((row == 1) & twice, 1, step)
    level, begin = plan.take(lv, at), plan.take(lv, step)
    keep, gain = _transfer(begin, plan.take(lv, step + 1), average)
    orders = step_orders(lv, order, infinite=True)
    table = equal_adams_weights(orders, max(2, orders.max()))[step]
    push = np.eye(1, table.shape[1]).repeat(len(row), 0)  # store this row's evaluation
    stage = (row == 0) & twice
    if twice:
        table[1] = np.eye(2, table.shape[1]).sum(0) / 2
        push[1] = np.eye(2, table.shape[1])[1]  # e' is not kept: e again
    weights = _outer(gain, np.where(stage[:, None], 0.0, table))
    made = plan.build(
        level,
        plan.take(lv, -1),
        convert=_basis(level, average),
        advance=plan.Move(
            _where(stage, 1.0, keep), weights[:, 1:], None, weights[:, :1]
        ),
        predict=plan.Move(_where(stage, keep, 1.0), _where(stage, gain, 0.0)[:, None]),
        push=push,
    )
    if average == "noise":
        plan.check(made, lv, "noise")
    return made


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
    ahead = _where(stage < 2, half, lv.time[step + 1])
    time = _where(np.isin(stage, (1, 2)), half, lv.time[step])
    time = _where(stage == 3, lv.time[step + 1], time)
    level = plan.Level(time, process.alpha(time), process.sigma(time))
    after = plan.Level(ahead, process.alpha(ahead), process.sigma(ahead))
    keep, gain = _transfer(plan.take(lv, step), after, average)
    own, stored, staged, slot = _slots(step, stage, step_orders(lv, 4, infinite=True))
    made = plan.absolute(
        level,
        plan.take(lv, -1),
        convert=_basis(level, average),
        advance=plan.Move(
            _where(stage > 2, keep, 1.0), _outer(gain, stored), None, _outer(gain, own)
        ),
        push=plan.Push(
            slot[:, None], np.ones((len(step), 1, 1)), np.zeros((len(step), 1, 5))
        ),
        predict=plan.Move(_where(stage > 2, 1.0, keep), _outer(gain, staged)),
    )
    if average == "noise":
        plan.check(made, lv, "noise")
    return made


def _slots(
    step: np.ndarray, stage: np.ndarray, orders: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights that close a step (own, stored), of its stages, and what is written.

    Slots 0..2 hold the steps' first evaluations, 3 and 4 the stages e2 and e3.
    """
    row, kept = np.arange(len(step)), step % 3
    slot = np.where(stage == 1, 3, np.where((stage == 2) | (stage == 3), 4, kept))
    staged = (np.arange(5) == slot[:, None]) * (stage < 3)[:, None] * 1.0
    own, stored = np.zeros((len(step), 1)), np.zeros((len(step), 5))
    last, adams = row[stage == 3], row[stage == 4]
    own[last] = 1 / 6
    stored[last, kept[last]] = 1 / 6
    stored[last, 3:] = 1 / 3
    weights = equal_adams_weights(orders, 4)[step[adams]]
    own[adams, 0] = weights[:, 0]
    for j in (1, 2, 3):
        stored[adams, (step[adams] - j) % 3] = weights[:, j]
    return own, stored, staged, slot.astype(np.int32)


# ------------------------------------------------------------------------ helpers


def _outer(gain: Array, table: np.ndarray) -> Array:
    """Gain of each row (R, ...) times its row of the table (R, K): (R, K, ...)."""
    table = namespace(gain).asarray(table, dtype=gain.dtype)
    return gain[:, None] * table.reshape(table.shape + (1,) * (gain.ndim - 1))


def _where(rows: np.ndarray, first: Array | float, second: Array | float) -> Array:
    """Per row, the first or the second (R, ...)."""
    xp = namespace(first, second)
    like = first if np.ndim(first) else second
    return xp.where(rows.reshape((-1,) + (1,) * (like.ndim - 1)), first, second)


def _transfer(s: plan.Level, t: plan.Level, average: str) -> tuple[Array, Array]:
    """(keep, gain) of φ(x, s -> t, m) = keep x + gain m, m a noise or a velocity."""
    if average == "noise":
        plan.basis(s, "noise")  # alpha = 0 fails here, by name
        keep = t.alpha / s.alpha
        return keep, t.sigma - keep * s.sigma
    if average != "velocity":
        raise ValueError(f"average must be 'noise' or 'velocity', got {average!r}.")
    square = s.alpha**2 + s.sigma**2
    keep = (t.alpha * s.alpha + t.sigma * s.sigma) / square
    return keep, (t.sigma * s.alpha - t.alpha * s.sigma) / square


def _basis(level: plan.Level, average: str) -> plan.Convert:
    """E = (x - alpha D) / sigma, or v = (alpha x - (alpha^2 + sigma^2) D) / sigma."""
    if average == "noise":
        return plan.basis(level, "noise")
    one = namespace(level.alpha).ones_like(level.alpha)
    w = plan.basis(level._replace(alpha=one), "noise")  # sigma = 0 fails, by name
    square = level.alpha**2 + level.sigma**2
    return plan.Convert(w.point * level.alpha[:, None], w.prediction * square[:, None])
