"""One step of DPM-Solver of order 1, 2 or 3: weights of its stages.

From x at level s, with chi = -1 and m = D (data) or chi = +1 and m = E (noise), and
P_k(c) = c h phi_k(chi c h), a stage or the step's end at half log-SNR lambda_s + c h is
keep x + G (sum_k w_k m_k) with (keep, G) = (sigma'/sigma_s, alpha') for data and
(alpha'/alpha_s, -sigma') for noise.

Written against the array namespace of h: the plan builders call it on whole grids, the
adaptive solver on traced scalars. Lu et al. 2022 (2206.00927), algorithms 1, 2 and 4-5.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from .. import plan
from ..numerics import Levels, levels, namespace, phi, with_clean
from ..typing import Array, ArrayLike, Process

__all__ = [
    "Inner",
    "Target",
    "assemble",
    "check_options",
    "even",
    "every_step",
    "finite_orders",
    "fraction",
    "inner_stages",
    "step_rows",
]

VARIANTS = ("dpmsolver", "taylor")
Inner: TypeAlias = str | Callable[[Process, Array, Array, float], Array]


class Target(NamedTuple):
    """Where a row leads: keep * x + sum of weights * m, newest m first."""

    keep: Array
    weights: list[Array]


def step_rows(
    h: Array,
    fractions: Sequence[ArrayLike],
    scales: Sequence[tuple[Array, Array]],
    prediction: str,
    variant: str = "dpmsolver",
    compat: bool = False,
) -> list[Target]:
    """The rows of one step of order len(fractions) + 1.

    Args:
        h: length of the step in half log-SNR. Order 1 in data prediction: may be
            infinite.
        fractions: where the inner stages stand, (lambda_j - lambda_s) / h, increasing.
        scales: (alpha, sigma) at the start, at each inner stage, and at the end.
        prediction: 'data' or 'noise'.
        variant: 'dpmsolver' or 'taylor', see `dpm_solver_2` and `dpm_solver_3`.
        compat: the second inner stage of order 3 by the midpoint rule ('dpmsolver').

    Returns:
        One Target per row: to each inner stage, then to the end.
    """
    chi = -1 if prediction == "data" else 1
    alpha_s, sigma_s = scales[0]
    rows = []
    for k, unit in enumerate(_unit_weights(h, fractions, chi, variant, compat)):
        alpha, sigma = scales[k + 1]
        keep = _ratio(sigma, sigma_s) if chi < 0 else _ratio(alpha, alpha_s)
        if chi < 0:
            rows.append(Target(keep, [alpha * w for w in unit]))
        elif len(unit) == 1:  # -sigma (e^h - 1), finite at sigma = 0
            rows.append(Target(keep, [sigma - keep * sigma_s]))
        else:
            rows.append(Target(keep, [-sigma * w for w in unit]))
    return rows


def _ratio(a: Array, b: Array) -> Array:
    """The quotient; 1 at b = 0, where only a step of length zero can stand."""
    xp = namespace(a, b)
    return xp.where(b == 0, 1.0, a / xp.where(b == 0, 1.0, b))


def _unit_weights(
    h: Array, fractions: Sequence[ArrayLike], chi: int, variant: str, compat: bool
) -> list[list[Array]]:
    """Weights of each row without the factor G, newest evaluation first."""
    xp = namespace(h)

    def first(c: ArrayLike) -> Array:
        return chi * xp.expm1(chi * c * h)

    def higher(k: int, c: ArrayLike = 1.0) -> Array:
        return c * h * phi(k, chi * c * h)

    if len(fractions) == 0:
        return [[first(1.0)]]
    if len(fractions) == 1:
        (r,) = fractions
        slope = (first(1.0) / 2 if variant == "dpmsolver" else higher(2)) / r
        return [[first(r)], [slope, first(1.0) - slope]]
    r1, r2 = fractions
    # the slope (m_1 - m_0) / r_1 carries the second stage from order 1 to order 2
    midpoint = compat and variant == "dpmsolver"
    slope = (first(r2) / 2 if midpoint else higher(2, r2)) * r2 / r1
    return [
        [first(r1)],
        [slope, first(r2) - slope],
        _third(first(1.0), higher(2), higher(3), r1, r2, variant),
    ]


def _third(
    p1: Array, p2: Array, p3: Array, r1: ArrayLike, r2: ArrayLike, variant: str
) -> list[Array]:
    """The end of a third-order step: weights of m_2, m_1, m_0."""
    if variant == "dpmsolver":
        return [p2 / r2, 0 * p2, p1 - p2 / r2]
    # P_2 f' + P_3 f'' of the parabola through the three evaluations
    older = (p2 * r2 - 2 * p3) / (r2 - r1) / r1
    newer = (2 * p3 - p2 * r1) / (r2 - r1) / r2
    return [newer, older, p1 - older - newer]


# ------------------------------------------------------------------ where stages stand


def _by_log_snr(process: Process, t: Array, t_next: Array, r: float) -> Array:
    start = process.half_log_snr(t)
    lam = start + r * (process.half_log_snr(t_next) - start)
    return process.half_log_snr_inverse(lam)


def _by_time(process: Process, t: Array, t_next: Array, r: float) -> Array:
    del process
    return t + r * (t_next - t)


def _by_root(process: Process, t: Array, t_next: Array, r: float) -> Array:
    """Even in the square root of the time since the clean end."""
    clean = process.clean
    if not np.isfinite(clean):
        raise ValueError(
            f"inner='time_quadratic' needs a process with a finite clean time; "
            f"{type(process).__name__} has {clean}. Use inner='log_snr'."
        )
    root, root_next = (t - clean) ** 0.5, (t_next - clean) ** 0.5
    return clean + (root + r * (root_next - root)) ** 2


_CLOCKS: dict[str, Callable] = {
    "log_snr": _by_log_snr,
    "time_uniform": _by_time,
    "time_quadratic": _by_root,
}


def even(order: int) -> tuple[float, ...]:
    """Fractions of the inner stages that divide a step evenly."""
    return tuple(j / order for j in range(1, order))


def fraction(
    process: Process, outer: Levels, steps: np.ndarray, t: Array, fallback: float
) -> Array:
    """(lambda(t) - lambda_s) / h; the fallback where the step has length zero."""
    xp, h = namespace(outer.lam), outer.h[steps]
    gone = process.half_log_snr(t) - outer.lam[steps]
    return xp.where(h == 0, fallback, gone / xp.where(h == 0, 1.0, h))


def inner_stages(
    process: Process,
    outer: Levels,
    steps: np.ndarray,
    fractions: tuple[float, ...],
    inner: Inner,
) -> tuple[list, list]:
    """Times of the inner stages of some steps, and where they stand in log-SNR."""
    clock = inner if callable(inner) else _CLOCKS[inner]
    t, t_next = outer.time[steps], outer.time[steps + 1]
    times = [clock(process, t, t_next, r) for r in fractions]
    if inner == "log_snr":  # known without rounding
        return times, list(fractions)
    at = zip(times, fractions, strict=True)
    return times, [fraction(process, outer, steps, u, r) for u, r in at]


def check_options(inner: Inner, variant: str, extra: tuple[str, ...] = ()) -> None:
    """ValueError for an unknown clock or variant."""
    known = (*extra, *_CLOCKS)
    if not callable(inner) and inner not in known:
        raise ValueError(
            f"inner must be one of {', '.join(known)} or a function "
            f"(process, t, t_next, r) -> times, got {inner!r}."
        )
    if variant not in VARIANTS:
        raise ValueError(f"variant must be 'dpmsolver' or 'taylor', got {variant!r}.")


def finite_orders(orders: np.ndarray, outer: Levels, stride: int = 1) -> np.ndarray:
    """Order 1 for each step that touches an infinite half log-SNR."""
    if not isinstance(outer.lam, np.ndarray):
        return orders
    infinite = np.isinf(outer.lam).reshape(outer.steps + 1, -1).any(axis=1)
    touches = (infinite[1:] | infinite[:-1])[::stride]
    return np.where(touches, 1, orders)


# ---------------------------------------------------------------------- rows of a plan


def every_step(
    process: Process,
    ts: ArrayLike,
    order: int,
    fractions: tuple[float, ...],
    inner: Inner,
    variant: str,
    prediction: str,
    denoise: bool,
) -> plan.Plan:
    """Every step of one order; ts are the steps' ends."""
    check_options(inner, variant)
    ends = (0.0, *fractions)
    rising = all(a < b for a, b in zip(ends, ends[1:], strict=False))
    if len(fractions) != order - 1 or not rising or not ends[-1] <= 1:
        rule = "0 < r <= 1" if order == 2 else "a pair with 0 < r_1 < r_2 <= 1"
        got = fractions[0] if order == 2 else fractions
        raise ValueError(f"r must be {rule}, got {got}.")
    outer = levels(process, ts)
    orders = finite_orders(np.full(outer.steps, order), outer)

    def place(steps: np.ndarray, count: int) -> tuple[list, list]:
        return inner_stages(process, outer, steps, fractions[: count - 1], inner)

    return assemble(process, outer, orders, place, variant, prediction, False, denoise)


def assemble(
    process: Process,
    outer: Levels,
    orders: np.ndarray,
    place: Callable[[np.ndarray, int], tuple[list, list]],
    variant: str,
    prediction: str,
    compat: bool,
    denoise: bool,
    stride: int = 1,
) -> plan.Plan:
    """One row per stage, computed together for all steps of one order.

    Step k goes from level `stride` k to the next one: 2 leaves the levels between the
    end of one step and the start of the next to the caller, and the check of constants.
    """
    if prediction not in ("data", "noise"):
        raise ValueError(f"prediction must be 'data' or 'noise', got {prediction!r}.")
    orders = finite_orders(orders, outer, stride)
    xp = namespace(outer.lam)
    if denoise:
        outer = with_clean(process, outer)
        orders = np.append(orders, 1)
    width, begin = int(orders.max()), np.cumsum(orders) - orders
    parts, where = [], []
    for order in np.unique(orders):
        at = np.flatnonzero(orders == order)
        steps = stride * at
        times, fractions = place(steps, int(order)) if order > 1 else ([], [])
        stages = [plan.take(outer, steps)]
        stages += [plan.Level(t, process.alpha(t), process.sigma(t)) for t in times]
        scales = [(v.alpha, v.sigma) for v in (*stages, plan.take(outer, steps + 1))]
        rows = step_rows(outer.h[steps], fractions, scales, prediction, variant, compat)
        parts.append(_stage_rows(stages, rows, width))
        where.append((begin[at][:, None] + np.arange(order)).ravel())
    sort = np.argsort(np.concatenate(where))
    *level, keep, weights = (xp.concatenate(c)[sort] for c in zip(*parts, strict=True))
    closes = np.zeros(len(sort), bool)
    closes[np.cumsum(orders) - 1] = True
    made = plan.runge_kutta(
        plan.Level(*level),
        plan.take(outer, -1),
        convert=plan.basis(plan.Level(*level), prediction),
        keep=keep,
        weights=weights,
        closes=closes,
    )
    if stride == 1:
        plan.check(made, outer, prediction)
    return made


def _stage_rows(stages: list, rows: list, width: int) -> list:
    """Columns time, alpha, sigma, keep (S p, ...) and weights (S p, width, ...)."""
    xp = namespace(rows[0].keep)

    def flat(columns: list) -> Array:
        stacked = xp.stack(columns, axis=1)
        return stacked.reshape((-1, *stacked.shape[2:]))

    zero = xp.zeros_like(rows[0].keep)
    padded = [[*row.weights, *[zero] * (width - len(row.weights))] for row in rows]
    level = [flat([v[i] for v in stages]) for i in range(3)]
    weights = flat([xp.stack(each, axis=1) for each in padded])
    return [*level, flat([row.keep for row in rows]), weights]
