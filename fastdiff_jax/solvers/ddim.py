"""DDIM: x_t = alpha_t D + sqrt(sigma_t^2 - c^2) E + c z. Order 1, 1 call per step.

c = eta sigma_t sqrt(1 - e^{-2h}): eta = 0 is the ODE, eta = 1 is DDPM's ancestral
step. Song et al. 2021 (2010.02502), eqs 12 and 16; Ho et al. 2020 (2006.11239).
"""

import numpy as np

from .. import plan
from ..numerics import Levels, as_float, levels, namespace
from ..typing import Array, ArrayLike, Process

__all__ = ["ddim"]


def ddim(
    process: Process,
    ts: ArrayLike,
    *,
    eta: ArrayLike = 0.0,
    prediction: str = "data",
    second_noise: bool = False,
) -> plan.Plan:
    """First-order exponential step, deterministic or ancestral.

    x_t = alpha_t D + sqrt(sigma_t^2 - c^2) E + c z, with D, E evaluated at x_s and
    c = eta sigma_t sqrt(1 - (alpha_s sigma_t / (alpha_t sigma_s))^2).

    Args:
        process: the path.
        ts: times, non-increasing, shape (N + 1,).
        eta: 0 = ODE, 1 = DDPM; scalar or one per step, shape (N,), in [0, 1].
        prediction: 'data' or 'noise', the basis of the arithmetic. Both give the same
            sample; 'data' is exact at alpha = 0.
        second_noise: the denoiser returns two predictions; D is the first and E comes
            from the second (CFG++; clipping that keeps the raw direction).

    Returns:
        A plan of N rows.

    Raises:
        ValueError: eta outside [0, 1], or times that increase.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> fd.solvers.ddim(process, fd.grids.uniform(process, 10)).nfe
        10
    """
    lv = levels(process, ts)
    plan.basis(plan.take(lv, slice(None, -1)), prediction)  # fails here, by name
    _, (eta,) = as_float(eta)
    if isinstance(eta, np.ndarray) and not ((eta >= 0) & (eta <= 1)).all():
        raise ValueError(f"eta must lie in [0, 1] (0 = ODE, 1 = DDPM), got {eta}.")
    stochastic = not isinstance(eta, np.ndarray) or bool((eta > 0).any())
    xp = namespace(lv.alpha, eta)
    share = 1.0 if not stochastic else xp.sqrt(1 + eta**2 * xp.expm1(-2 * lv.h))
    noise = None if not stochastic else _noise(lv, eta)
    direction = share * lv.sigma[1:] / lv.sigma[:-1]
    if second_noise:
        return _two(lv, direction, noise)
    if prediction == "data":
        weights = lv.alpha[1:] - direction * lv.alpha[:-1]
        keep = direction
    else:
        keep = lv.alpha[1:] / lv.alpha[:-1]
        weights = share * lv.sigma[1:] - keep * lv.sigma[:-1]
    return plan.multistep(
        lv, prediction=prediction, keep=keep, weights=weights[..., None], noise=noise
    )


def _noise(lv: Levels, eta: Array) -> Array:
    xp = namespace(lv.alpha, eta)
    return eta * lv.sigma[1:] * xp.sqrt(-xp.expm1(-2 * lv.h))


def _two(lv: Levels, direction: Array, noise: Array | None) -> plan.Plan:
    """D from the first prediction, E = (x - alpha_s D') / sigma_s from the second."""
    xp = namespace(direction)
    level = plan.take(lv, slice(None, -1))
    zero, one = xp.zeros_like(level.alpha), xp.ones_like(level.alpha)
    return plan.build(
        level,
        plan.take(lv, -1),
        convert=plan.Convert(xp.stack([zero, zero], 1), xp.stack([one, one], 1)),
        advance=plan.Move(
            anchor=direction,
            history=None,
            evaluation=xp.stack([lv.alpha[1:], -direction * lv.alpha[:-1]], 1),
            noise=noise,
        ),
    )
