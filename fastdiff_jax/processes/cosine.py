"""Cosine schedule of improved DDPM (Nichol & Dhariwal 2021, eq 17)."""

import math
from typing import Any

from ..guards import checked
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import LogRatio, label_of, labels_of, positive, register

__all__ = ["vp_cosine"]


@register("offset")
class VPCosine(LogRatio):
    """alpha = cos(pi/2 (t+s)/(1+s)) / cos(pi/2 s/(1+s)), s the offset."""

    offset: Any
    train_steps: int | None = None
    start = 0.9946  # as DPM-Solver: alpha vanishes at 1
    end = 1e-3
    clean = 0.0
    domain = (0.0, 1.0)

    def _angles(self, t: Any) -> tuple[Any, Any]:
        """A = pi t / (2 (1+s)) and b = pi s / (2 (1+s))."""
        unit = math.pi / (2 * (1 + self.offset))
        return unit * t, unit * self.offset

    def _loss(self, t: Any, xp: Any) -> Any:
        """1 - alpha, with full relative accuracy near t = 0."""
        a, b = self._angles(t)
        return 2 * xp.sin(a / 2) ** 2 + xp.sin(a) * xp.tan(b)

    def alpha(self, t: ArrayLike) -> Array:
        """sin(pi (1-t) / (2 (1+s))) / cos(b): exact 0 at t = 1."""
        xp, (t,) = as_float(t)
        a, b = self._angles(1 - t)
        near_clean = 1 - self._loss(t, xp)
        return xp.where(t < 0.5, near_clean, xp.sin(a) / xp.cos(xp.asarray(b)))

    def sigma(self, t: ArrayLike) -> Array:
        """sqrt(1 - alpha^2) = sqrt((1 - alpha) (1 + alpha))."""
        xp, (t,) = as_float(t)
        return xp.sqrt(self._loss(t, xp) * (1 + self.alpha(t)))

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time with the given lambda, from a quadratic in tan(a / 2)."""
        xp, (lam,) = as_float(half_log_snr)
        loss = -xp.expm1(-xp.logaddexp(-2 * lam, xp.zeros_like(lam)) / 2)
        tangent = xp.tan(xp.asarray(self._angles(0.0)[1]))
        half = loss / (tangent + xp.sqrt(tangent**2 + loss * (2 - loss)))
        return 4 * (1 + self.offset) / math.pi * xp.arctan(half)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt, d sigma / dt."""
        xp, (t,) = as_float(t)
        a, b = self._angles(1 - t)
        unit = math.pi / (2 * (1 + self.offset))
        slope = -unit * xp.cos(a) / xp.cos(xp.asarray(b))
        return slope, -self.alpha(t) * slope / self.sigma(t)

    def model_time(self, t: ArrayLike) -> Array:
        """t, or the label t N - 1 where `train_steps` = N is set."""
        _, (t,) = as_float(t)
        return label_of(t, self.train_steps)


@checked
def vp_cosine(offset: float = 0.008, *, train_steps: int | None = None) -> VPCosine:
    """Cosine path; default grids start at t = 0.9946. Nichol & Dhariwal 2021, eq 17."""
    positive(offset=offset)
    return VPCosine(offset, labels_of(train_steps))
