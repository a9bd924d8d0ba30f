"""The predictors of the score-SDE framework, as weights in data prediction.

With a = alpha_s / alpha_t the gain of the forward jump from t back up to s, its noise
is g^2 = sigma_s^2 - a^2 sigma_t^2 = sigma_s^2 (1 - e^{-2h}), on any Gaussian path, and
the score is S = (alpha_s D - x) / sigma_s^2. Song et al. 2021 (2011.13456).
"""

from typing import NamedTuple

import numpy as np

from ... import plan
from ...numerics import Levels, namespace
from ...typing import Array, Process, PyTree
from .._noise import ancestral_split, exact_weights, is_noisy, sde_step, sqrt_safe

__all__ = [
    "Jump",
    "ancestral_jump",
    "euler_maruyama_jump",
    "exponential_jump",
    "gain",
    "jumps_plan",
    "reverse_diffusion_jump",
    "without_last_noise",
]


class Jump(NamedTuple):
    """x_t = keep x_s + weight D + noise z; (N, ...) each, noise None for none."""

    keep: Array
    weight: Array
    noise: Array | None


def gain(lv: Levels) -> Array:
    """The ratio a = alpha_s / alpha_t of each step, (N, ...); 1 where it is empty."""
    xp = namespace(lv.alpha)
    after = xp.where(lv.alpha[1:] == 0, 1.0, lv.alpha[1:])
    return xp.where(lv.time[1:] == lv.time[:-1], 1.0, lv.alpha[:-1] / after)


def _fresh(lv: Levels) -> Array:
    """g^2 / sigma_s^2 = 1 - e^{-2h}."""
    return -namespace(lv.lam).expm1(-2 * lv.h)


def _closes(lv: Levels) -> Array:
    """Which steps go into sigma = 0."""
    return (lv.sigma[1:] == 0) & (lv.h > 0)


def reverse_diffusion_jump(lv: Levels, tau2: Array, name: str) -> Jump:
    """To x - f + (1 + tau2) / 2 g^2 S + tau g z, f = (a - 1) x; D into sigma = 0."""
    _refuse_pure_noise(lv, lv.h > 0, name)
    xp, closes, part = namespace(lv.lam, tau2), _closes(lv), _fresh(lv)
    half = (1 + tau2) / 2 * part
    noise = None
    if is_noisy(tau2):
        noise = xp.where(closes, 0.0, lv.sigma[:-1] * sqrt_safe(tau2 * part))
    return Jump(
        xp.where(closes, 0.0, 2 - gain(lv) - half),
        xp.where(closes, lv.alpha[1:], half * lv.alpha[:-1]),
        noise,
    )


def ancestral_jump(lv: Levels, variance: str) -> Jump:
    """The forward jump's posterior mean, and one of two standard deviations."""
    xp, part = namespace(lv.lam), _fresh(lv)
    before = xp.where(lv.sigma[:-1] == 0, 1.0, lv.sigma[:-1])
    share, drawn = ancestral_split(lv.h, xp.ones_like(lv.h))
    keep = xp.where(lv.h == 0, 1.0, lv.sigma[1:] / before * share)
    large = xp.zeros_like(lv.sigma[1:], dtype=bool)
    if variance == "large":
        large = ~large
    elif variance == "published":  # sqrt(beta) on VP
        off = xp.abs(lv.alpha**2 + lv.sigma**2 - 1)
        large = (off[1:] < _UNIT) & (off[:-1] < _UNIT)
    scale = xp.where(large & ~_closes(lv), lv.sigma[:-1], lv.sigma[1:])
    return Jump(keep, lv.alpha[1:] * part, scale * drawn)


_UNIT = 1e-5  # how far alpha^2 + sigma^2 may be from 1 on a VP path, in float32


def euler_maruyama_jump(process: Process, lv: Levels, tau2: Array, name: str) -> Jump:
    """One step of the reverse SDE in the process' time; Euler's into sigma = 0."""
    xp, level = namespace(lv.time, tau2), lv.starts
    tau2 = xp.where(lv.sigma[1:] == 0, 0.0, tau2)
    _refuse_pure_noise(lv, tau2 > 0, name)
    step = lv.time[1:] - lv.time[:-1]
    if isinstance(step, np.ndarray) and not np.isfinite(step).all():
        raise ValueError(
            f"{name} steps in time and cannot reach ts[-1]="
            f"{lv.time[-1]}. End the grid at a finite time, or use another predictor."
        )
    d_alpha, d_sigma = process.rates(level.time)
    rate = d_sigma / level.sigma
    gap = rate - d_alpha / xp.where(level.alpha == 0, 1.0, level.alpha)
    lift = rate + tau2 * gap
    return Jump(
        1 + step * lift,
        step * (d_alpha - lift * level.alpha),
        level.sigma * sqrt_safe(-2 * tau2 * gap * step) if is_noisy(tau2) else None,
    )


def exponential_jump(lv: Levels, tau2: Array) -> Jump:
    """SDE-DPM-Solver++(1), exact for a constant D."""
    keep, noise = sde_step(lv.starts, lv.ends, tau2, lv.h)
    weight = exact_weights(lv, tau2, np.arange(lv.steps), 1)[..., 0]
    return Jump(keep, weight, noise if is_noisy(tau2) else None)


def without_last_noise(jump: Jump) -> Jump:
    """The mean of the last step instead of a draw: the papers' denoising."""
    if jump.noise is None:
        return jump
    xp = namespace(jump.noise)
    last = xp.zeros_like(jump.noise[:1])
    return jump._replace(noise=xp.concatenate([jump.noise[:-1], last]))


def jumps_plan(lv: Levels, jump: Jump, controls: PyTree = None) -> plan.Plan:
    """The plan of one-step moves."""
    return plan.multistep(
        lv,
        keep=jump.keep,
        weights=jump.weight[..., None],
        noise=jump.noise,
        controls=controls,
        exact=False,  # not all of them are exact on a constant
    )


def _refuse_pure_noise(lv: Levels, used: Array, name: str) -> None:
    alpha = lv.alpha[:-1]
    if not (isinstance(alpha, np.ndarray) and isinstance(used, np.ndarray)):
        return
    bad = (alpha == 0) & used
    if bad.any():
        at = int(np.argwhere(bad)[0][0])
        raise ValueError(
            f"{name} needs alpha > 0: at ts[{at}]={lv.time[at]} its step does not read "
            "the prediction. Start the grid below it, e.g. start=0.999, or use the "
            "predictor 'ancestral' or 'sde_dpmpp_1'."
        )
