"""Paths of speech enhancement: OUVE (SGMSE+, StoRM) and the Schroedinger bridge SB-VE.

OUVE pulls the state to the noisy speech y while noise grows geometrically:

    dx = theta (y - x) dt + g dw,  g = sigma_min e^{l t} sqrt(2 l),  l = log(max / min)

Welker et al. 2022 (2203.17004), Richter et al. 2022 (2208.05830), eqs 5-8; Lemercier
et al. 2022 (2212.11851). SB-VE is pinned at both ends: Jukic et al. 2024 (2407.16074).
"""

from typing import Any

import numpy as np

from ..guards import checked, must
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import LogRatio, ordered, positive, quiet, register

__all__ = ["ouve", "sb_ve"]


@register("theta", "sigma_min", "sigma_max")
class OUVE(LogRatio):
    """alpha = e^{-theta t}, beta = 1 - alpha.

    sigma^2 = sigma_min^2 (e^{2 l t} - e^{-2 theta t}) l / (theta + l)
    """

    theta: Any
    sigma_min: Any
    sigma_max: Any
    start = 1.0
    end = 0.03
    clean = 0.0
    domain = (0.0, 1.0)
    centre = 1.0

    def _log(self, xp: Any) -> Any:
        return xp.log(xp.asarray(self.sigma_max / self.sigma_min))

    def alpha(self, t: ArrayLike) -> Array:
        """e^{-theta t}."""
        xp, (t,) = as_float(t)
        return xp.exp(-self.theta * t)

    def beta(self, t: ArrayLike) -> Array:
        """1 - e^{-theta t}, the share of the endpoint y."""
        xp, (t,) = as_float(t)
        return -xp.expm1(-self.theta * t)

    def sigma(self, t: ArrayLike) -> Array:
        """Standard deviation, exactly 0 at t = 0."""
        xp, (t,) = as_float(t)
        log = self._log(xp)
        rise = xp.expm1(2 * (self.theta + log) * t)
        scale = self.sigma_min * xp.sqrt(log / (self.theta + log))
        return scale * self.alpha(t) * xp.sqrt(rise)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time with the given lambda."""
        xp, (lam,) = as_float(half_log_snr)
        log = self._log(xp)
        total = self.theta + log
        rise = xp.exp(-2 * lam) * total / (log * self.sigma_min**2)
        return xp.log1p(rise) / (2 * total)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt, d sigma / dt = g^2 / (2 sigma) - theta sigma."""
        xp, (t,) = as_float(t)
        log, sigma = self._log(xp), self.sigma(t)
        growth = self.sigma_min**2 * xp.exp(2 * log * t) * log
        with quiet():
            return -self.theta * self.alpha(t), growth / sigma - self.theta * sigma

    def model_time(self, t: ArrayLike) -> Array:
        """T."""
        _, (t,) = as_float(t)
        return t


@checked
def ouve(theta: float = 1.5, sigma_min: float = 0.05, sigma_max: float = 0.5) -> OUVE:
    """Ornstein-Uhlenbeck path with growing noise, from clean to noisy speech.

    x = e^{-theta t} x_0 + (1 - e^{-theta t}) y + sigma(t) eps

    Args:
        theta: stiffness, > 0.
        sigma_min, sigma_max: scale of the noise rate at t = 0 and 1, increasing.

    Returns:
        A process with `beta` and `centre = 1`. The start y + sigma(1) eps misses
        e^{-theta} (x_0 - y), 22 % of the residual at the published theta.

    Example:
        >>> round(float(ouve().sigma(1.0)), 4)
        0.389

    Reference: 2208.05830, eqs 5-8.
    """
    positive(theta=theta)
    ordered(sigma_min=sigma_min, sigma_max=sigma_max)
    return OUVE(theta, sigma_min, sigma_max)


@register("base", "scale")
class SBVE:
    """alpha = 1 - s^2 / S^2, beta = s^2 / S^2, sigma = s sqrt(1 - s^2 / S^2).

    s^2 = c (k^{2t} - 1) / (2 log k), S = s(1). Pinned to x_0 at t = 0, to y at t = 1:
    sigma = 0 at both ends: the first step must add noise, as `two_endpoint` does.
    """

    base: Any
    scale: Any
    start = 1.0
    end = 1e-4
    clean = 0.0
    domain = (0.0, 1.0)
    centre = 1.0

    def _log(self, xp: Any) -> Any:
        return xp.log(xp.asarray(self.base))

    def _parts(self, t: ArrayLike) -> tuple[Any, Any, Any, Any]:
        """(namespace, s^2, S^2 - s^2, S^2), exact at both ends."""
        xp, (t,) = as_float(t)
        log = self._log(xp)
        unit = self.scale / (2 * log)
        passed = unit * xp.expm1(2 * log * t)
        left = unit * xp.exp(2 * log * t) * xp.expm1(2 * log * (1 - t))
        return xp, passed, left, unit * xp.expm1(2 * log)

    def alpha(self, t: ArrayLike) -> Array:
        """1 - s^2 / S^2."""
        _, _, left, total = self._parts(t)
        return left / total

    def beta(self, t: ArrayLike) -> Array:
        """s^2 / S^2, the share of the endpoint y."""
        _, passed, _, total = self._parts(t)
        return passed / total

    def sigma(self, t: ArrayLike) -> Array:
        """Standard deviation of the bridge: 0 at both ends."""
        xp, passed, left, total = self._parts(t)
        return xp.sqrt(passed * left / total)

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma) = log(S^2 - s^2) / 2 - log s - log S: -inf at t = 1."""
        xp, passed, left, total = self._parts(t)
        with quiet():
            return (xp.log(left) - xp.log(passed) - xp.log(total)) / 2

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """s^2 = S^2 / (1 + S^2 e^{2 lambda})."""
        xp, (lam,) = as_float(half_log_snr)
        _, _, _, total = self._parts(xp.zeros_like(lam))
        with np.errstate(over="ignore"):
            passed = total / (1 + total * xp.exp(2 * lam))
        log = self._log(xp)
        time = xp.log1p(2 * log * passed / self.scale) / (2 * log)
        # the start exactly, and no rounding beyond it
        return xp.where(xp.isneginf(lam), 1.0, xp.minimum(time, 1.0))

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt = -g^2 / S^2, d sigma / dt; g^2 = c k^{2t}."""
        xp, (t,) = as_float(t)
        _, passed, left, total = self._parts(t)
        growth = self.scale * xp.exp(2 * self._log(xp) * t)
        with np.errstate(divide="ignore"):
            d_sigma = growth * (left - passed) / (2 * total * self.sigma(t))
        return -growth / total, d_sigma

    def model_time(self, t: ArrayLike) -> Array:
        """T."""
        _, (t,) = as_float(t)
        return t


@checked
def sb_ve(k: float = 2.6, c: float = 0.4) -> SBVE:
    """Schroedinger bridge with exploding variance, from clean to noisy speech.

    x = (1 - s^2/S^2) x_0 + (s^2/S^2) y + s sqrt(1 - s^2/S^2) eps

    Args:
        k: base of the noise rate g = sqrt(c) k^t, > 1.
        c: its scale, > 0.

    Returns:
        A process with `beta` and `centre = 1`. Start it with `solvers.two_endpoint`:
        sigma is 0 at t = 1, where other tables divide by it.

    Raises:
        ValueError: k <= 1 or c <= 0.

    Example:
        >>> process = sb_ve()
        >>> [float(process.sigma(t)) for t in (0.0, 1.0)]
        [0.0, 0.0]

    Reference: 2407.16074, table 1 and eqs 9-13.
    """
    positive(c=c)
    if isinstance(k, int | float | np.generic) and not k > 1:
        raise must("k", "> 1 (noise that grows)", k)
    return SBVE(k, c)
