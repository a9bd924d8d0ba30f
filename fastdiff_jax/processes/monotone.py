"""The inverse of half log-SNR where no closed form exists."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import as_float
from ..typing import Array, ArrayLike

__all__ = ["time_of"]

_HALVINGS = 64  # a float64 interval is exhausted well before


def time_of(process: Any, half_log_snr: ArrayLike, low: float, high: float) -> Array:
    """The time in [low, high] at which lambda has the given value.

    Bisection, then one Newton step where lambda and its rate are finite: exact to
    rounding, and differentiable in the value and in the process' constants.

    Args:
        process: gives `half_log_snr` (decreasing in time) and `rates`.
        half_log_snr: values, any shape; NumPy or JAX.
        low, high: the interval.

    Returns:
        Times, same shape. Values beyond the ends give the ends.
    """
    xp, (lam,) = as_float(half_log_snr)
    left, right = xp.full_like(lam, low), xp.full_like(lam, high)

    def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
        left, right = ends
        middle = (left + right) / 2
        late = process.half_log_snr(middle) < lam  # noisier than asked for
        return xp.where(late, left, middle), xp.where(late, middle, right)

    if xp is np:
        for i in range(_HALVINGS):
            left, right = halve(i, (left, right))
        time = (left + right) / 2
    else:
        left, right = jax.lax.fori_loop(0, _HALVINGS, halve, (left, right))
        time = jax.lax.stop_gradient((left + right) / 2)
    # the bisected end itself where lambda is infinite
    time = xp.where(left == low, low, xp.where(right == high, high, time))
    return _polish(process, lam, time, xp)


def _polish(process: Any, lam: Any, time: Any, xp: Any) -> Array:
    """One Newton step, with safe numbers where there is nothing to polish."""
    alpha, sigma = process.alpha(time), process.sigma(time)
    inside = (alpha > 0) & (sigma > 0) & xp.isfinite(lam)
    inside = jax.lax.stop_gradient(inside) if xp is jnp else inside
    with np.errstate(divide="ignore", invalid="ignore"):
        d_alpha, d_sigma = process.rates(time)
        slope = d_alpha / alpha - d_sigma / sigma
        gap = process.half_log_snr(time) - lam
    slope, gap = xp.where(inside, slope, 1.0), xp.where(inside, gap, 0.0)
    return time - gap / slope
