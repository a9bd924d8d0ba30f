"""The reverse SDEs of one path: how much noise a step draws, and its weights.

For every tau^2 >= 0 the SDE with noise tau times Anderson's has the path's marginals:
0 is the ODE, 1 the reverse SDE. With a = 1 + tau^2 constant over the step from s to t,
h = lambda_t - lambda_s and T = tau^2 h, exactly for a known D,

    x_t = (sigma_t / sigma_s) e^{-T} x_s + alpha_t sum_j b_j D_j
          + sigma_t sqrt(1 - e^{-2T}) z,
    b_j = a int_0^h e^{-a (h - u)} l_j(u) du,

the deterministic integrals over steps and nodes stretched by a. sigma_t = 0 and
alpha_s = 0 are limits of the same formulas and need no rule of their own. Lu et al.
2022 (2211.01095), Xue et al. 2023 (2309.05019), Gonzalez et al. 2023 (2305.14267).

An ancestral step walks without noise to a level below its end and adds the rest anew:
its amount is called eta.
"""

import math
from collections.abc import Sequence

import numpy as np

from ..guards import must, within
from ..numerics import (
    Level,
    Levels,
    as_float,
    exp_adams_weights,
    history_nodes,
    namespace,
    phi,
)
from ..plan import Leg
from ..typing import Array, ArrayLike

__all__ = [
    "amount",
    "ancestral_split",
    "exact_weights",
    "fresh",
    "is_noisy",
    "midpoint_weights",
    "one_leg",
    "published_third_weights",
    "scaled",
    "sde_step",
    "sqrt_safe",
    "stage_legs",
]


def amount(
    lv: Levels,
    value: ArrayLike,
    name: str = "tau2",
    *,
    most: float = math.inf,
    infinite: bool = False,
) -> Array:
    """An amount of noise, a number or one per step, in the steps' shape (N, ...).

    Args:
        lv: the grid's levels.
        value: 0 is the ODE, 1 the reverse SDE (tau2) or the posterior (eta).
        name: of the option, for the error.
        most: the largest legal value.
        infinite: whether infinity is legal beside that: all noise drawn anew.

    Raises:
        ValueError: another shape, or a value that is negative, NaN or too large.
    """
    _, (value,) = as_float(value)
    h = lv.h
    if value.ndim not in (0, 1, h.ndim) or value.shape[:1] not in ((), h.shape[:1]):
        raise ValueError(
            f"{name} must be a scalar or one value per step, shape ({lv.steps},); got "
            f"shape {value.shape}."
        )
    if isinstance(value, np.ndarray):
        good = (value >= 0) & (value <= most) & np.isfinite(value)
        good |= infinite & (value == math.inf)
        if not good.all():
            rule = f"lie in [0, {most:g}]" if most < math.inf else "be finite and >= 0"
            rule += " or be infinite" * infinite
            raise ValueError(
                f"{name} must {rule} (0 = ODE, 1 = the reverse SDE), got "
                f"{value[~good].ravel()[0]:g}. Use {name}=1.0, or 0.0 for no noise."
            )
    if value.ndim == 1:
        value = value.reshape(value.shape + (1,) * (h.ndim - 1))
    return namespace(value).broadcast_to(value, h.shape)


def scaled(s_noise: ArrayLike) -> Array:
    """The factor on the fresh noise, checked.

    Raises:
        ValueError: a factor that is not a finite number.
    """
    _, (s_noise,) = as_float(s_noise)
    within("[0, inf)", s_noise=s_noise)
    if s_noise.ndim:
        raise must("s_noise", "one number", s_noise)
    return s_noise


def is_noisy(value: Array) -> bool:
    """Whether a plan with this amount draws noise: any traced amount may."""
    return not isinstance(value, np.ndarray) or bool((value > 0).any())


def sqrt_safe(x: Array) -> Array:
    """Square root with a derivative of 0 at 0."""
    xp = namespace(x)
    return xp.where(x > 0, xp.sqrt(xp.where(x > 0, x, 1.0)), 0.0)


def ancestral_split(h: Array, eta: Array) -> tuple[Array, Array]:
    """Levels a step walks down to and draws anew, over the level of its end.

    With rho = sigma / alpha and rho_t = e^{-h} rho_s,

        up   = min(1, eta sqrt(1 - e^{-2h})),  down^2 = 1 - up^2,   in units of rho_t

    eta = 0 is the ODE, 1 the posterior of the forward process, infinity forgets the
    noise of x_s. A step of length zero walks all the way and draws nothing.
    """
    xp = namespace(h, eta)
    moves = h > 0
    h = xp.where(moves, h, 1.0)

    def left(eta: Array) -> Array:
        # not 1 - eta^2 (1 - q^2): this is exact at eta = 1, for any h
        return (1 - eta**2) + eta**2 * xp.exp(-2 * h)

    with np.errstate(invalid="ignore"):  # eta = infinity: all of it is drawn anew
        full = moves & ~(left(eta) > 0)
    eta = xp.where(full | ~moves, 0.0, eta)
    down = xp.where(full, 0.0, sqrt_safe(left(eta)))
    return down, xp.where(full, 1.0, eta * sqrt_safe(-xp.expm1(-2 * h)))


def _exponent(tau2: Array, h: Array) -> Array:
    """T = tau^2 h; 0 for the ODE, also over an infinite step."""
    return tau2 * namespace(tau2, h).where(tau2 == 0, 0.0, h)


def fresh(tau2: Array, h: Array) -> Array:
    """Share of the noise level that a step draws anew, sqrt(1 - e^{-2T})."""
    return sqrt_safe(-namespace(tau2, h).expm1(-2 * _exponent(tau2, h)))


def sde_step(start: Level, end: Level, tau2: Array, h: Array) -> tuple[Array, Array]:
    """Weight of the state and standard deviation of the noise over each step."""
    xp = namespace(tau2, h)
    keep = end.sigma / start.sigma * xp.exp(-_exponent(tau2, h))
    return keep, end.sigma * fresh(tau2, h)


def exact_weights(
    lv: Levels, tau2: Array, rows: np.ndarray, count: int, ahead: bool = False
) -> Array:
    """alpha_t b_j of the steps `rows` on `count` evaluations, newest first.

    `ahead`: the newest is the one at the step's end.
    """
    a, xp = 1 + tau2[rows], namespace(lv.lam, tau2)
    nodes = history_nodes(lv.lam, rows, count - ahead)
    if ahead:
        nodes = xp.concatenate([lv.h[rows][..., None], nodes], axis=-1)
    unit = exp_adams_weights(a * lv.h[rows], a[..., None] * nodes, -1)
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


def stage_legs(
    lv: Levels,
    tau2: Array,
    rows: np.ndarray,
    stages: Sequence[Level],
    fractions: Sequence[float],
    unit: Sequence[Sequence[Array]],
    s_noise: float | Array = 1.0,
) -> list[Leg]:
    """Lines of a stochastic exponential Runge-Kutta method.

    The noise of a stage is the first part of the step's own; drawn anew by each line
    it would cost an order.

    Args:
        lv: levels of the grid.
        tau2: per step, (N, ...).
        rows: the steps with stages, (M,).
        stages: levels of the evaluations, the step's start first.
        fractions: where they stand in the step, 0 first.
        unit: unit[j][k]: weight, without alpha, of D_k on the way to stage j + 1.
        s_noise: factor of the noise.
    """
    start, end, h = stages[0], lv.at(rows + 1), lv.h[rows]
    t2, noisy = tau2[rows], is_noisy(tau2)
    ends, marks = [*stages[1:], end], [*fractions, 1.0]
    legs = []
    for j, (level, target) in enumerate(zip(stages, ends, strict=True)):
        share = marks[j + 1] - marks[j]
        keep, _ = sde_step(start, target, t2, marks[j + 1] * h)
        weights = tuple(target.alpha * w for w in unit[j])
        drawn = s_noise * target.sigma * fresh(t2, share * h) if noisy else None
        legs.append(Leg(level, keep, weights, drawn))
    return legs


def one_leg(
    lv: Levels, tau2: Array, rows: np.ndarray, s_noise: float | Array = 1.0
) -> tuple[np.ndarray, list[Leg]]:
    """First order over the steps without stages: all but `rows`."""
    single = np.setdiff1d(np.arange(lv.steps), rows)
    start, end = lv.at(single), lv.at(single + 1)
    h, t2 = lv.h[single], tau2[single]
    keep, noise = sde_step(start, end, t2, h)
    weight = -end.alpha * namespace(h, t2).expm1(-(1 + t2) * h)
    drawn = s_noise * noise if is_noisy(tau2) else None
    return single, [Leg(start, keep, (weight,), drawn)]
