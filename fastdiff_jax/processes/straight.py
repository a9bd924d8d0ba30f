"""The straight line of flow matching and rectified flow."""

from typing import Any

from ..guards import checked
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import positive, quiet, register

__all__ = ["flow"]


@register("time_scale")
class Flow:
    """Straight line: alpha = 1 - t, sigma = t."""

    time_scale: Any
    start = 1.0
    end = 1e-3
    clean = 0.0
    domain = (0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Array:
        """1 - t."""
        _, (t,) = as_float(t)
        return 1 - t

    def sigma(self, t: ArrayLike) -> Array:
        """T."""
        _, (t,) = as_float(t)
        return t

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log((1 - t) / t): -inf at t = 1, +inf at t = 0."""
        xp, (t,) = as_float(t)
        with quiet():
            return xp.log1p(-t) - xp.log(t)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """1 / (1 + e^lambda)."""
        xp, (lam,) = as_float(half_log_snr)
        return xp.exp(-xp.logaddexp(xp.zeros_like(lam), lam))

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """-1 and 1."""
        xp, (t,) = as_float(t)
        return -xp.ones_like(t), xp.ones_like(t)

    def model_time(self, t: ArrayLike) -> Array:
        """T times `time_scale` (1000 for the published text-to-image flows)."""
        _, (t,) = as_float(t)
        return t * self.time_scale


@checked
def flow(time_scale: float = 1.0) -> Flow:
    """Rectified-flow path, t = 1 is noise; the network gets t * time_scale.

    Reference: Liu et al. 2023 (2209.03003); Lipman et al. 2023 (2210.02747).
    """
    positive(time_scale=time_scale)
    return Flow(time_scale)
