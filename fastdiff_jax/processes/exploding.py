"""alpha = 1: variance exploding (score-SDE, eqs 30-31) and EDM."""

import math
from typing import Any

from ..guards import checked
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import ordered, quiet, register

__all__ = ["edm", "ve"]


@register("sigma_min", "sigma_max")
class VE:
    """alpha = 1, sigma = sigma_min (sigma_max / sigma_min)^t; sigma = 0 at t = -inf."""

    sigma_min: Any
    sigma_max: Any
    start = 1.0
    end = 0.0
    clean = -math.inf
    domain = (-math.inf, 1.0)

    def alpha(self, t: ArrayLike) -> Array:
        """1."""
        xp, (t,) = as_float(t)
        return xp.ones_like(t)

    def sigma(self, t: ArrayLike) -> Array:
        """sigma_min (sigma_max / sigma_min)^t."""
        _, (t,) = as_float(t)
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def _span(self, xp: Any) -> Any:
        return xp.log(xp.asarray(self.sigma_max / self.sigma_min))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """-log sigma."""
        xp, (t,) = as_float(t)
        return -xp.log(xp.asarray(self.sigma_min)) - t * self._span(xp)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time with the given -log sigma."""
        xp, (lam,) = as_float(half_log_snr)
        return -(lam + xp.log(xp.asarray(self.sigma_min))) / self._span(xp)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt = 0, d sigma / dt = sigma log(sigma_max / sigma_min)."""
        xp, (t,) = as_float(t)
        return xp.zeros_like(t), self.sigma(t) * self._span(xp)

    def model_time(self, t: ArrayLike) -> Array:
        """sigma: networks of score-SDE's VE family are conditioned on it."""
        return self.sigma(t)


@register("sigma_min", "sigma_max")
class EDM:
    """alpha = 1, sigma = t."""

    sigma_min: Any
    sigma_max: Any
    clean = 0.0
    domain = (0.0, math.inf)

    @property
    def start(self) -> float:
        """sigma_max."""
        return self.sigma_max

    @property
    def end(self) -> float:
        """sigma_min."""
        return self.sigma_min

    def alpha(self, t: ArrayLike) -> Array:
        """1."""
        xp, (t,) = as_float(t)
        return xp.ones_like(t)

    def sigma(self, t: ArrayLike) -> Array:
        """T."""
        _, (t,) = as_float(t)
        return t

    def half_log_snr(self, t: ArrayLike) -> Array:
        """-log t."""
        xp, (t,) = as_float(t)
        with quiet():
            return -xp.log(t)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """exp(-lambda)."""
        xp, (lam,) = as_float(half_log_snr)
        return xp.exp(-lam)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """0 and 1."""
        xp, (t,) = as_float(t)
        return xp.zeros_like(t), xp.ones_like(t)

    def model_time(self, t: ArrayLike) -> Array:
        """Sigma."""
        return self.sigma(t)


@checked
def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> VE:
    """Variance-exploding path, sigma geometric in t. Song et al. 2021, eqs 30-31."""
    ordered(sigma_min=sigma_min, sigma_max=sigma_max)
    return VE(sigma_min, sigma_max)


@checked
def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> EDM:
    """EDM's path, time is sigma; the bounds are where default grids start and end.

    Reference: Karras et al. 2022 (2206.00364), table 1.
    """
    ordered(sigma_min=sigma_min, sigma_max=sigma_max)
    return EDM(sigma_min, sigma_max)
