"""Momentum on top of linear multistep: heavy ball, Nesterov, generalised heavy ball.

With φ(x, g) = (α_t/α_s) x + α_t (ρ_t - ρ_s) g, ρ = sigma / alpha, and AB_k the
Adams-Bashforth sum of equal steps over k noise predictions E:

    HB:    v' = (1 - β) v + β AB_k(E),  x' = φ(x, v')
    NT:    v' the same,                 x' = φ(x, (1 - β) v' + β AB_k(E))
    GHVB:  v' = (1 - β) v + β E,        x' = φ(x, Σ_j c_j v'_{-j})

An order of 2.7 means k = 3 and β = 0.7; a whole one means β = 1, plain Adams-Bashforth.
A velocity damps oscillations where the step is too long for the model, most with small
β. Wizadwongsa et al. 2023 (2307.11118).
"""

import math

import numpy as np

from .. import plan
from ..numerics import Levels, equal_adams_weights, levels, namespace, step_orders
from ..typing import Array, ArrayLike, Process

__all__ = ["ghvb", "hb", "nt"]

_DIFFERENCES = (1, 1 / 2, 5 / 12, 3 / 8, 251 / 720)  # Adams' weights of ∇^j


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
        A plan of N rows; slots hold k - 1 evaluations and the velocity.

    Raises:
        ValueError: an order outside (0, 5], or an unknown initial velocity.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.hb(process, fd.grids.log_snr(process, 8), order=2.5).slots
        3
    """
    return _two_slots(process, ts, _split("hb", order), 1.0, initial)


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
        A plan of N rows; slots hold k - 1 evaluations and the velocity.

    Raises:
        ValueError: an order outside (0, 5], or an unknown initial velocity.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.nt(process, fd.grids.log_snr(process, 8)).nfe
        8
    """
    count, beta = _split("nt", order)
    return _two_slots(process, ts, (count, beta), 1 - beta, initial)


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
        A plan of N rows; slots hold velocities.

    Raises:
        ValueError: an order outside (0, 5], or an unknown initial velocity.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ghvb(process, fd.grids.log_snr(process, 8), order=2.8).slots
        2
    """
    count, beta = _split("ghvb", order)
    lv, level, keep, gain = _steps(process, ts)
    own, kept, start = _first(level, beta, initial, max(count - 1, 1))
    table = _backward(step_orders(lv, count, infinite=True), beta, max(count, 2))
    weights = _outer(gain, table)  # of v', v, v_{-1}, ...
    history = [weights[:, 0] * kept + weights[:, 1], *weights[:, 2:].swapaxes(0, 1)]
    xp = namespace(gain)
    push = [own, kept, *[xp.zeros_like(own)] * (len(history) - 1)]
    made = plan.build(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "noise"),
        advance=plan.Move(
            keep, xp.stack(history, 1), None, (weights[:, 0] * own)[:, None]
        ),
        push=xp.stack(push, 1),
        start=start,
    )
    if initial == "noise":
        plan.check(made, lv, "data")
    return made


# ------------------------------------------------------------------------ helpers


def _split(name: str, order: float) -> tuple[int, float]:
    """Number of evaluations k and the share β of a real order."""
    if not 0 < order <= 5:
        raise ValueError(f"{name} needs order in (0, 5], got {order}.")
    count = math.ceil(order)
    return count, order - (count - 1)


def _steps(process: Process, ts: ArrayLike) -> tuple[Levels, plan.Level, Array, Array]:
    lv = levels(process, ts)
    level = plan.take(lv, slice(None, -1))
    plan.basis(level, "noise")  # alpha = 0 fails here, by name
    keep = lv.alpha[1:] / lv.alpha[:-1]
    return lv, level, keep, lv.sigma[1:] - keep * lv.sigma[:-1]


def _outer(gain: Array, table: np.ndarray) -> Array:
    """Gain of each row (R, ...) times its row of the table (R, K): (R, K, ...)."""
    table = namespace(gain).asarray(table, dtype=gain.dtype)
    return gain[:, None] * table.reshape(table.shape + (1,) * (gain.ndim - 1))


def _where(rows: np.ndarray, first: Array, second: Array | float) -> Array:
    """Per row, the first or the second (R, ...)."""
    mask = rows.reshape((-1,) + (1,) * (first.ndim - 1))
    return namespace(first, second).where(mask, first, second)


def _first(
    level: plan.Level, beta: float, initial: str, slots: int
) -> tuple[Array, Array, plan.Start | None]:
    """Weights (own, kept) of E and of the last slot in v' = own E + kept v, each row.

    In row 0 that slot holds x (by the start move), and v = r_x x + r_E E.
    """
    a, s = level.alpha, level.sigma
    xp = namespace(a)
    own, kept = xp.full_like(a, beta), xp.full_like(a, 1 - beta)
    if initial == "noise":
        of_x, of_noise, start = xp.zeros_like(a), xp.ones_like(a), None
    elif initial == "data":
        of_x, of_noise = 1 / a, -s / a
    elif initial == "velocity":
        of_x, of_noise = -s / a, (a**2 + s**2) / a
    else:
        raise ValueError(
            f"initial must be 'noise', 'data' or 'velocity', got {initial!r}."
        )
    if initial != "noise":
        one = np.ones(())
        start = plan.Start(one, one, np.eye(slots)[-1])
    first = np.arange(len(a)) == 0
    own = _where(first, own + (1 - beta) * of_noise, own)
    return own, _where(first, kept * of_x, kept), start


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


def _two_slots(
    process: Process,
    ts: ArrayLike,
    order: tuple[int, float],
    share: float,
    initial: str,
) -> plan.Plan:
    """HB and NT: x' = φ(x, share v' + (1 - share) AB_k(E)), share 1 or 1 - β.

    Slots 0..k-2 hold evaluations, the last one the velocity.
    """
    count, beta = order
    lv, level, keep, gain = _steps(process, ts)
    xp, older, row = namespace(gain), count - 1, np.arange(lv.steps)
    own, kept, start = _first(level, beta, initial, count)
    adams = equal_adams_weights(step_orders(lv, count, infinite=True), count)
    past = np.zeros((lv.steps, older))
    for j in range(1, count):
        past[row, (row - j) % older] = adams[:, j]
    unit = xp.ones_like(gain)
    newest, past = _outer(unit, adams[:, :1])[:, 0], _outer(unit, past)
    velocity = beta * newest + (own - beta)  # own is not β in the first row only
    seen = xp.concatenate([beta * past, kept[:, None]], 1)  # in v', of the slots
    plain = xp.concatenate([past, 0 * kept[:, None]], 1)  # in AB_k
    stored, slots = [velocity], [seen]
    if older:
        stored, slots = [unit, velocity], [0 * seen, seen]
    where = np.stack([row % max(older, 1), np.full_like(row, older)], 1)
    made = plan.absolute(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "noise"),
        advance=plan.Move(
            keep,
            gain[:, None] * (share * seen + (1 - share) * plain),
            None,
            (gain * (share * velocity + (1 - share) * newest))[:, None],
        ),
        push=plan.Push(
            where[:, -len(stored) :].astype(np.int32),
            xp.stack(stored, 1)[:, :, None],
            xp.stack(slots, 1),
        ),
        start=start,
    )
    if initial == "noise":
        plan.check(made, lv, "data")
    return made
