"""The clock v = asinh(alpha / sigma): finite at pure noise, -log sigma near the data.

With r = sqrt(alpha^2 + sigma^2), alpha / r = tanh v and sigma / r = sech v on every
Gaussian path, and the diffusion ODE dx/dt = alpha' D + sigma' E of y = x / r is

    dy/dv = D - tanh(v) y

since dx/r = (alpha'/r) D + (sigma'/r) E and E = (y - tanh(v) D) cosh(v). Nothing is
divided by alpha or sigma, so v = 0 (alpha = 0: flow at t = 1) is an ordinary point,
which half log-SNR sends to -infinity; towards the data v - lambda -> log 2, where time
itself would need ever smaller steps.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from ..numerics import namespace
from ..plan import Level
from ..typing import Array, Process

__all__ = ["clock_of", "level_at"]


def clock_of(process: Process, t: Any) -> Array:
    """The clock asinh(alpha / sigma) at the times t."""
    alpha, sigma = process.alpha(t), process.sigma(t)
    with np.errstate(divide="ignore"):  # sigma = 0 is at infinity
        return namespace(alpha, sigma).arcsinh(alpha / sigma)


def level_at(process: Process, v: Array, ends: tuple[Any, Any]) -> Level:
    """Time, alpha and sigma where the clock shows v, in v's dtype.

    `ends` are the lowest and highest time of the run: rounding must not leave them.
    """
    inside = v > 0
    safe = jnp.where(inside, v, 1.0)  # keeps the gradient of the other branch finite
    lam = safe + jnp.log(-jnp.expm1(-2 * safe)) - jnp.log(2.0).astype(v.dtype)
    time = process.half_log_snr_inverse(jnp.where(inside, lam, -jnp.inf))
    time = jnp.clip(time, *ends)
    return Level(*(w.astype(v.dtype) for w in level(process, time)))


def level(process: Process, time: Array) -> tuple[Array, Array, Array]:
    """(time, alpha, sigma)."""
    return time, process.alpha(time), process.sigma(time)
