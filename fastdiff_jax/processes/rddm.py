"""RDDM: a residual schedule and a noise schedule, each with its own cumulative sum.

    x = x_0 + abar R + bbar eps,  R = y - x_0:  alpha = 1 - abar, beta = abar

Liu et al. 2023 (2308.13712), eqs 7-9 and appendix A.3. The published coefficients are
1, 2, ..., T in rising or falling order, or all equal, so their sums are polynomials in
the label and the path is defined between labels too.
"""

from typing import Any, Literal

from ..guards import checked, must
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import Labelled, positive, quiet, register
from .monotone import time_of

__all__ = ["rddm"]

Ramp = Literal["increased", "decreased", "average"]


def _filled(ramp: Ramp, n: Any, steps: int) -> tuple[Any, Any]:
    """(sum of the first n coefficients, its rest to 1), no cancellation in either."""
    total, left = steps * (steps + 1), steps - n
    if ramp == "increased":
        return n * (n + 1) / total, left * (steps + n + 1) / total
    if ramp == "decreased":
        return n * (2 * steps + 1 - n) / total, left * (left + 1) / total
    return n / steps, left / steps


def _slope(ramp: Ramp, n: Any, steps: int) -> Any:
    """The sum's derivative."""
    total = steps * (steps + 1)
    if ramp == "increased":
        return (2 * n + 1) / total
    if ramp == "decreased":
        return (2 * steps + 1 - 2 * n) / total
    return 0 * n + 1 / steps


@register("noise_sum")
class RDDM(Labelled):
    """alpha = 1 - abar, beta = abar, sigma = bbar; time is the label, clean at -1."""

    noise_sum: Any
    steps: int = 1000
    residual: Ramp = "decreased"
    noise: Ramp = "increased"

    def alpha(self, t: ArrayLike) -> Array:
        """1 - abar: share of the clean data."""
        _, (t,) = as_float(t)
        return _filled(self.residual, t + 1, self.steps)[1]

    def beta(self, t: ArrayLike) -> Array:
        """Abar: share of the endpoint y, and of the residual."""
        _, (t,) = as_float(t)
        return _filled(self.residual, t + 1, self.steps)[0]

    def sigma(self, t: ArrayLike) -> Array:
        """Bbar."""
        xp, (t,) = as_float(t)
        return xp.sqrt(self.noise_sum * _filled(self.noise, t + 1, self.steps)[0])

    def gain(self, s: ArrayLike, t: ArrayLike) -> Array:
        """1: the chain from t to s only adds."""
        xp, (s, t) = as_float(s, t)
        return xp.ones_like(s + t)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The (fractional) label with the given lambda, by bisection."""
        return time_of(self, half_log_snr, *self.domain)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / d label, d sigma / d label."""
        _, (t,) = as_float(t)
        slope = self.noise_sum * _slope(self.noise, t + 1, self.steps)
        with quiet():
            d_sigma = slope / (2 * self.sigma(t))
        return -_slope(self.residual, t + 1, self.steps), d_sigma

    def model_time(self, t: ArrayLike) -> Array:
        """The label."""
        _, (t,) = as_float(t)
        return t


@checked
def rddm(
    steps: int = 1000,
    *,
    noise_sum: float = 0.01,
    residual: Ramp = "decreased",
    noise: Ramp = "increased",
) -> RDDM:
    """Residual-denoising path between the data and a degraded y.

    x = x_0 + abar_n (y - x_0) + bbar_n eps, n = t + 1 the number of steps taken.

    Args:
        steps: T, labels 0..T-1 of the network.
        noise_sum: sum of the squared noise coefficients, bbar_T^2: 0.01 for
            restoration, 1 for generation (y = 0).
        residual: ramp of the residual's coefficients: 'increased', 'decreased' or
            'average'.
        noise: ramp of the squared noise coefficients.

    Returns:
        A process with `beta` and `centre = 1`. alpha is exactly 0 at the last label.

    Raises:
        ValueError: an unknown ramp, no steps, or noise_sum not > 0.

    Example:
        >>> import numpy as np
        >>> process = rddm(5)
        >>> [round(float(a), 3) for a in process.beta(np.arange(-1.0, 5.0))]
        [0.0, 0.333, 0.6, 0.8, 0.933, 1.0]

    Reference: 2308.13712, eqs 7-9.
    """
    if steps < 1:
        raise must("steps", ">= 1", steps)
    positive(noise_sum=noise_sum)
    return RDDM(noise_sum, steps, residual, noise)
