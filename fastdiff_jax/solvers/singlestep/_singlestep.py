"""One step of DPM-Solver of order 1, 2 or 3: weights of its stages.

From x at level s, with chi = -1 and m = D (data) or chi = +1 and m = E (noise), and
P_k(c) = c h phi_k(chi c h), a stage or the step's end at half log-SNR lambda_s + c h is
keep x + G (sum_k w_k m_k) with (keep, G) = (sigma'/sigma_s, alpha') for data and
(alpha'/alpha_s, -sigma') for noise.

Written against the array namespace of h: the plan builders call it on whole grids, the
adaptive solver on traced scalars. Lu et al. 2022 (2206.00927), algorithms 1, 2 and 4-5.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from ... import plan
from ...numerics import Level, Levels, levels, namespace, phi, with_clean
from ...plan import Leg
from ...typing import Array, ArrayLike, Process

__all__ = [
    "Inner",
    "assemble",
    "check_options",
    "even",
    "every_step",
    "finite_orders",
    "fraction",
    "inner_stages",
    "legs_of",
    "step_rows",
]

VARIANTS = ("dpmsolver", "taylor")
Inner: TypeAlias = str | Callable[[Process, Array, Array, float], Array]


def step_rows(
    h: Array,
    fractions: Sequence[float | Array],
    scales: Sequence[tuple[Array, Array]],
    prediction: str,
    variant: str = "dpmsolver",
    compat: bool = False,
) -> list[tuple[Array, list[Array]]]:
    """The lines of one step of order len(fractions) + 1.

    Args:
        h: length of the step in half log-SNR. Order 1 in data prediction: may be
            infinite.
        fractions: where the inner stages stand, (lambda_j - lambda_s) / h, increasing.
        scales: (alpha, sigma) at the start, at each inner stage, and at the end.
        prediction: 'data' or 'noise'.
        variant: 'dpmsolver' or 'taylor', see `dpm_solver_2` and `dpm_solver_3`.
        compat: the second inner stage of order 3 by the midpoint rule ('dpmsolver').

    Returns:
        (keep, weights, oldest evaluation first) per row: to each inner stage, then to
        the end.
    """
    chi = -1 if prediction == "data" else 1
    alpha_s, sigma_s = scales[0]
    rows = []
    for k, unit in enumerate(_unit_weights(h, fractions, chi, variant, compat)):
        alpha, sigma = scales[k + 1]
        keep = _ratio(sigma, sigma_s) if chi < 0 else _ratio(alpha, alpha_s)
        if chi < 0:
            rows.append((keep, [alpha * w for w in unit]))
        elif len(unit) == 1:  # -sigma (e^h - 1), finite at sigma = 0
            rows.append((keep, [sigma - keep * sigma_s]))
        else:
            rows.append((keep, [-sigma * w for w in unit]))
    return rows


def _ratio(a: Array, b: Array) -> Array:
    """The quotient; 1 at b = 0, where only a step of length zero can stand."""
    xp = namespace(a, b)
    return xp.where(b == 0, 1.0, a / xp.where(b == 0, 1.0, b))


def _unit_weights(
    h: Array, fractions: Sequence[float | Array], chi: int, variant: str, compat: bool
) -> list[list[Array]]:
    """Weights of each row without the factor G, oldest evaluation first."""
    xp = namespace(h)

    def first(c: float | Array) -> Array:
        return chi * xp.expm1(chi * c * h)

    def higher(k: int, c: float | Array = 1.0) -> Array:
        return c * h * phi(k, chi * c * h)

    if len(fractions) == 0:
        return [[first(1.0)]]
    if len(fractions) == 1:
        (r,) = fractions
        slope = (first(1.0) / 2 if variant == "dpmsolver" else higher(2)) / r
        return [[first(r)], [first(1.0) - slope, slope]]
    r1, r2 = fractions
    # the slope (m_1 - m_0) / r_1 carries the second stage from order 1 to order 2
    midpoint = compat and variant == "dpmsolver"
    slope = (first(r2) / 2 if midpoint else higher(2, r2)) * r2 / r1
    return [
        [first(r1)],
        [first(r2) - slope, slope],
        _third(first(1.0), higher(2), higher(3), r1, r2, variant),
    ]


def _third(
    p1: Array, p2: Array, p3: Array, r1: float | Array, r2: float | Array, variant: str
) -> list[Array]:
    """The end of a third-order step: weights of m_0, m_1, m_2."""
    if variant == "dpmsolver":
        return [p1 - p2 / r2, 0 * p2, p2 / r2]
    # P_2 f' + P_3 f'' of the parabola through the three evaluations
    older = (p2 * r2 - 2 * p3) / (r2 - r1) / r1
    newer = (2 * p3 - p2 * r1) / (r2 - r1) / r2
    return [p1 - older - newer, older, newer]


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


def finite_orders(orders: np.ndarray, outer: Levels) -> np.ndarray:
    """Order 1 for each step that touches an infinite half log-SNR."""
    if not isinstance(outer.lam, np.ndarray):
        return orders
    infinite = np.isinf(outer.lam).reshape(outer.steps + 1, -1)
    touches = infinite[1:] | infinite[:-1]
    return np.where(touches.any(axis=1), 1, orders)


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
) -> plan.Plan:
    """One row per stage, computed together for all steps of one order."""
    if prediction not in ("data", "noise"):
        raise ValueError(f"prediction must be 'data' or 'noise', got {prediction!r}.")
    orders = finite_orders(orders, outer)
    if denoise:
        outer = with_clean(process, outer)
        orders = np.append(orders, 1)
    groups = []
    for order in np.unique(orders):
        steps = np.flatnonzero(orders == order)
        options = (prediction, variant, compat)
        legs = legs_of(process, outer, steps, place, int(order), options)
        groups.append((steps, legs))
    made = plan.stages(groups, outer.end, basis=prediction)
    plan.self_check(made, outer, prediction)
    return made


def legs_of(
    process: Process,
    outer: Levels,
    steps: np.ndarray,
    place: Callable[[np.ndarray, int], tuple[list, list]],
    order: int,
    options: tuple[str, str, bool],
) -> list[Leg]:
    """The lines of some steps of one order; options: prediction, variant, compat."""
    times, fractions = place(steps, order) if order > 1 else ([], [])
    stages = [outer.at(steps)]
    stages += [Level(t, process.alpha(t), process.sigma(t)) for t in times]
    scales = [(v.alpha, v.sigma) for v in (*stages, outer.at(steps + 1))]
    rows = step_rows(outer.h[steps], fractions, scales, *options)
    return [
        Leg(level, keep, tuple(weights))
        for level, (keep, weights) in zip(stages, rows, strict=True)
    ]
