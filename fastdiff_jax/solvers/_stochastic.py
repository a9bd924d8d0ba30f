"""The reverse SDEs of one path and their exponential steps, in data prediction.

For every tau^2 >= 0 the SDE with noise tau times Anderson's has the path's marginals:
0 is the ODE, 1 the reverse SDE. With a = 1 + tau^2 constant over the step from s to t,
h = lambda_t - lambda_s and T = tau^2 h, exactly for a known D,

    x_t = (sigma_t / sigma_s) e^{-T} x_s + alpha_t sum_j b_j D_j
          + sigma_t sqrt(1 - e^{-2T}) z,
    b_j = a int_0^h e^{-a (h - u)} l_j(u) du,

the deterministic integrals over steps and nodes stretched by a. sigma_t = 0 and
alpha_s = 0 are limits of the same formulas and need no rule of their own. Lu et al.
2022 (2211.01095), Xue et al. 2023 (2309.05019), Gonzalez et al. 2023 (2305.14267).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .. import plan
from ..numerics import (
    Levels,
    as_float,
    exp_adams_weights,
    history_nodes,
    namespace,
    phi,
)
from ..plan import Level
from ..typing import Array, ArrayLike

__all__ = [
    "Leg",
    "ancestral",
    "exact_weights",
    "fresh",
    "is_noisy",
    "keep_and_noise",
    "midpoint_weights",
    "per_step",
    "published_third_weights",
    "root",
    "staged",
    "stages_of",
    "with_stages",
]


def per_step(lv: Levels, value: ArrayLike, name: str = "tau2") -> Array:
    """A scalar or one value per step, checked, in the shape of the steps, (N, ...).

    Raises:
        ValueError: another shape, a negative or an infinite value.
    """
    _, (value,) = as_float(value)
    h = lv.h
    if value.ndim not in (0, 1, h.ndim) or value.shape[:1] not in ((), h.shape[:1]):
        raise ValueError(
            f"{name} must be a scalar or one value per step, shape ({lv.steps},); got "
            f"shape {value.shape}."
        )
    if isinstance(value, np.ndarray) and not ((value >= 0) & np.isfinite(value)).all():
        bad = value[~((value >= 0) & np.isfinite(value))].ravel()[0]
        raise ValueError(
            f"{name} must be finite and >= 0 (0 = ODE, 1 = the reverse SDE), got "
            f"{bad:g}. Use {name}=1.0, or 0.0 for no noise."
        )
    if value.ndim == 1:
        value = value.reshape(value.shape + (1,) * (h.ndim - 1))
    return namespace(value).broadcast_to(value, h.shape)


def is_noisy(tau2: Array) -> bool:
    """Whether a plan with these values draws noise: any traced value may."""
    return not isinstance(tau2, np.ndarray) or bool((tau2 > 0).any())


def root(x: Array) -> Array:
    """Square root with a derivative of 0 at 0."""
    xp = namespace(x)
    return xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1.0)), 0.0)


def _exponent(tau2: Array, h: Array) -> Array:
    """T = tau^2 h; 0 for the ODE, also over an infinite step."""
    return tau2 * namespace(tau2, h).where(tau2 == 0, 0.0, h)


def fresh(tau2: Array, h: Array) -> Array:
    """Share of the noise level that a step draws anew, sqrt(1 - e^{-2T})."""
    return root(-namespace(tau2, h).expm1(-2 * _exponent(tau2, h)))


def keep_and_noise(start: Level, end: Level, tau2: Array, h: Array) -> tuple:
    """Weight of the state and standard deviation of the noise over each step."""
    xp = namespace(tau2, h)
    keep = end.sigma / start.sigma * xp.exp(-_exponent(tau2, h))
    return keep, end.sigma * fresh(tau2, h)


def exact_weights(lv: Levels, tau2: Array, rows: np.ndarray, count: int) -> Array:
    """alpha_t b_j of the steps `rows` on the newest `count` evaluations."""
    a = 1 + tau2[rows]
    nodes = a[..., None] * history_nodes(lv.lam, rows, count)
    unit = exp_adams_weights(a * lv.h[rows], nodes, -1)
    return lv.alpha[rows + 1][..., None] * unit


def midpoint_weights(lv: Levels, tau2: Array, rows: np.ndarray) -> Array:
    """Second order with half the sum of weights on the slope, as libraries default."""
    xp = namespace(lv.lam, tau2)
    h, ratio = lv.h[rows], lv.h[rows] / lv.h[rows - 1]
    first = -lv.alpha[rows + 1] * xp.expm1(-(1 + tau2[rows]) * h)
    return xp.stack([first * (1 + ratio / 2), -first * ratio / 2], axis=-1)


def published_third_weights(lv: Levels, tau2: Array, rows: np.ndarray) -> Array:
    """Third order with half the second difference's factor, as published."""
    xp = namespace(lv.lam, tau2)
    h, h0, h1 = lv.h[rows], lv.h[rows - 1], lv.h[rows - 2]
    z = (1 + tau2[rows]) * h
    p1, p2, p3 = (z * phi(k, -z) for k in (1, 2, 3))
    q, eta = h0 / (h0 + h1), h / (h0 + h1)
    newer = (p2 * (1 + q) + p3 * eta) * h / h0
    older = -(p2 * q + p3 * eta) * h / h1
    unit = xp.stack([p1 + newer, older - newer, -older], axis=-1)
    return lv.alpha[rows + 1][..., None] * unit


def ancestral(start: Level, end: Level, eta: Array) -> tuple[Array, Array]:
    """Levels sigma / alpha = down, up of the ancestral split, times alpha_t.

    up = eta sqrt(rho_t^2 (rho_s^2 - rho_t^2) / rho_s^2), down^2 = rho_t^2 - up^2, with
    rho = sigma / alpha: walk to `down` without noise, then add `up`.
    """
    ratio = end.sigma * start.alpha / (end.alpha * start.sigma)  # rho_t / rho_s
    down, up = (1 - eta**2) + (eta * ratio) ** 2, eta**2 * (1 - ratio**2)
    return end.sigma * root(down), end.sigma * root(up)


class Leg(NamedTuple):
    """A row of a step with stages: from the step's start to the next stage or its end.

    keep x_s + sum_k weights_k D_k + scale n, with the step's noise n <- decay n +
    draw z: decay 0 draws each leg's noise on its own.
    """

    level: Level  # of the row's evaluation, (M, ...)
    keep: Array
    weights: tuple[Array, ...]  # of the step's evaluations, oldest first
    scale: Array
    decay: Array
    draw: Array


def with_stages(lv: Levels) -> np.ndarray:
    """The steps that have an inside: next to alpha = 0 or sigma = 0 there is none."""
    rows = np.arange(lv.steps)
    if isinstance(lv.lam, np.ndarray):
        rows = rows[np.isfinite(lv.h).reshape(lv.steps, -1).all(axis=1)]
    return rows


def stages_of(
    lv: Levels,
    tau2: Array,
    rows: np.ndarray,
    stages: Sequence[Level],
    fractions: Sequence[float],
    unit: Sequence[Sequence[Array]],
    noise_scale: float = 1.0,
    composed: bool = True,
) -> list[Leg]:
    """Legs of a stochastic exponential Runge-Kutta method.

    Args:
        lv: levels of the grid.
        tau2: per step, (N, ...).
        rows: the steps with stages, (M,).
        stages: levels of the evaluations, the step's start first.
        fractions: where they stand in the step, 0 first.
        unit: unit[j][k]: weight, without alpha, of D_k on the way to stage j + 1.
        noise_scale: factor of the noise.
        composed: the noise of a stage is the first part of the step's own. False:
            each leg draws its own, which costs an order.
    """
    start, end, h = stages[0], plan.take(lv, rows + 1), lv.h[rows]
    t2 = tau2[rows]
    xp = namespace(h, t2)
    ends, marks = [*stages[1:], end], [*fractions, 1.0]
    legs = []
    for j, (level, target) in enumerate(zip(stages, ends, strict=True)):
        share = marks[j + 1] - (marks[j] if composed else 0.0)
        decay = xp.exp(-t2 * share * h) if j and composed else xp.zeros_like(h)
        keep, _ = keep_and_noise(start, target, t2, marks[j + 1] * h)
        weights = tuple(target.alpha * w for w in unit[j])
        scale = noise_scale * target.sigma
        legs.append(Leg(level, keep, weights, scale, decay, fresh(t2, share * h)))
    return legs


def staged(
    lv: Levels,
    tau2: Array,
    rows: np.ndarray,
    legs: Sequence[Leg],
    noise_scale: float = 1.0,
) -> plan.Plan:
    """The plan of a method with stages: one row per leg, one on a step without any.

    Args:
        lv: levels of the grid, N + 1.
        tau2: per step, (N, ...): of the steps without stages, and whether any draws.
        rows: the steps with stages, (M,).
        legs: of these steps, (M, ...) each.
        noise_scale: factor of the noise on the steps without stages.
    """
    count, single = len(legs), np.setdiff1d(np.arange(lv.steps), rows)
    where = [rows * count + j for j in range(count)] + [single * count]
    order = np.argsort(np.concatenate(where))
    stage = np.concatenate([np.full(len(w), j) for j, w in enumerate(where)])[order]
    all_legs = [*legs, _alone(lv, tau2, single, noise_scale)]
    xp = namespace(lv.lam, tau2, *(leg.keep for leg in all_legs))

    def join(parts: Sequence[Array]) -> Array:
        return xp.concatenate(parts, axis=0)[order]

    def only(mask: np.ndarray, w: Array, other: float = 0.0) -> Array:
        return xp.where(mask.reshape((-1,) + (1,) * (w.ndim - 1)), w, other)

    keep = join([leg.keep for leg in all_legs])
    weights = join([_newest_first(leg, count) for leg in all_legs])
    scale, decay, draw = (
        join([getattr(leg, name) for leg in all_legs])
        for name in ("scale", "decay", "draw")
    )
    level = Level(*(join(p) for p in zip(*(g.level for g in all_legs), strict=True)))
    closes, noisy = stage >= count - 1, is_noisy(tau2)
    advance = plan.Move(
        anchor=only(closes, keep, 1.0),
        history=only(closes, weights[:, 1:]) if count > 1 else None,
        evaluation=only(closes, weights[:, :1]),
        noise=only(closes, scale * draw) if noisy else None,
        register=only(closes, scale * decay) if noisy else None,
    )
    predict = plan.Move(
        anchor=only(~closes, keep, 1.0),
        history=only(~closes, weights[:, : count - 1]) if count > 1 else None,
        register=only(~closes, scale) if noisy else None,
    )
    return plan.build(
        level,
        plan.take(lv, -1),
        convert=plan.basis(level, "data"),
        advance=advance,
        predict=predict,
        register=plan.Register(decay, draw) if noisy else None,
    )


def _newest_first(leg: Leg, count: int) -> Array:
    """A leg's weights as (M, count, ...), zero for the stages after it."""
    line = leg.weights[::-1]
    xp = namespace(*line)
    zero = xp.zeros_like(line[0])
    return xp.stack([*line, *[zero] * (count - len(line))], axis=1)


def _alone(lv: Levels, tau2: Array, rows: np.ndarray, noise_scale: float) -> Leg:
    """First order over the steps without stages."""
    start, end = plan.take(lv, rows), plan.take(lv, rows + 1)
    h, t2 = lv.h[rows], tau2[rows]
    xp = namespace(h, t2)
    keep, noise = keep_and_noise(start, end, t2, h)
    weight = -end.alpha * xp.expm1(-(1 + t2) * h)
    one = xp.ones_like(h)
    return Leg(start, keep, (weight,), noise_scale * noise, xp.zeros_like(h), one)
