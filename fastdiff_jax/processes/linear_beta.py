"""Linear beta: VP (score-SDE, eqs 32-33) and sub-VP (eq 29)."""

import math
from typing import Any

from ..guards import checked
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import label_of, labels_of, ordered, quiet, register

__all__ = ["sub_vp", "vp_linear"]


def _linear_log_alpha(process: Any, t: Any) -> Any:
    low, high = process.beta_min, process.beta_max
    return -t * (t * (high - low) / 4 + low / 2)


def _linear_time(process: Any, decay: Any, xp: Any) -> Any:
    """The t with -log alpha(t) = decay, without cancellation near 0."""
    low, high = process.beta_min, process.beta_max
    root = xp.sqrt(low**2 + 4 * (high - low) * decay)
    finite = xp.where(xp.isinf(root), 0.0, decay)
    return xp.where(xp.isinf(root), math.inf, 4 * finite / (low + root))


class _LinearBeta:
    """What both paths share: alpha, the clock, and its labels."""

    beta_min: Any
    beta_max: Any
    train_steps: int | None
    start = 1.0
    end = 1e-3
    clean = 0.0
    domain = (0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Array:
        """exp(-(beta_max - beta_min) t^2 / 4 - beta_min t / 2)."""
        xp, (t,) = as_float(t)
        return xp.exp(_linear_log_alpha(self, t))

    def model_time(self, t: ArrayLike) -> Array:
        """t, or the label t N - 1 where `train_steps` = N is set."""
        _, (t,) = as_float(t)
        return label_of(t, self.train_steps)


@register("beta_min", "beta_max")
class VPLinear(_LinearBeta):
    """Variance preserving with beta(t) = beta_min + t (beta_max - beta_min)."""

    beta_min: Any
    beta_max: Any
    train_steps: int | None = None

    def sigma(self, t: ArrayLike) -> Array:
        """sqrt(1 - alpha^2)."""
        xp, (t,) = as_float(t)
        return xp.sqrt(-xp.expm1(2 * _linear_log_alpha(self, t)))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        log_alpha = _linear_log_alpha(self, t)
        with quiet():
            return log_alpha - xp.log(-xp.expm1(2 * log_alpha)) / 2

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time with the given log(alpha / sigma)."""
        xp, (lam,) = as_float(half_log_snr)
        return _linear_time(self, xp.logaddexp(-2 * lam, xp.zeros_like(lam)) / 2, xp)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt, d sigma / dt."""
        _, (t,) = as_float(t)
        slope = -(t * (self.beta_max - self.beta_min) + self.beta_min) / 2
        alpha = self.alpha(t)
        return alpha * slope, -(alpha**2) * slope / self.sigma(t)


@register("beta_min", "beta_max")
class SubVP(_LinearBeta):
    """sub-VP: alpha as in VP-linear, sigma = 1 - alpha^2."""

    beta_min: Any
    beta_max: Any
    train_steps: int | None = None

    def sigma(self, t: ArrayLike) -> Array:
        """1 - alpha^2."""
        xp, (t,) = as_float(t)
        return -xp.expm1(2 * _linear_log_alpha(self, t))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        with quiet():
            return _linear_log_alpha(self, t) - xp.log(self.sigma(t))

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The time with the given log(alpha / sigma): -log alpha = asinh(1/2 snr)."""
        xp, (lam,) = as_float(half_log_snr)
        return _linear_time(self, xp.arcsinh(xp.exp(-lam) / 2), xp)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt, d sigma / dt."""
        _, (t,) = as_float(t)
        slope = -(t * (self.beta_max - self.beta_min) + self.beta_min) / 2
        alpha = self.alpha(t)
        return alpha * slope, -2 * alpha**2 * slope


@checked
def vp_linear(
    beta_min: float = 0.1, beta_max: float = 20.0, *, train_steps: int | None = None
) -> VPLinear:
    """Variance-preserving path with linear beta: t in [0, 1], noise at 1.

    Args:
        beta_min, beta_max: beta(0) and beta(1), per unit time.
        train_steps: N if the network was trained on N integer labels; it then gets
            t N - 1 as its time. None: the network takes t.

    Example:
        >>> process = vp_linear()
        >>> bool(abs(process.alpha(1.0) - 0.00657) < 1e-5)
        True

    Reference: Song et al. 2021 (2011.13456), eqs 32-33.
    """
    ordered(beta_min=beta_min, beta_max=beta_max)
    return VPLinear(beta_min, beta_max, labels_of(train_steps))


@checked
def sub_vp(
    beta_min: float = 0.1, beta_max: float = 20.0, *, train_steps: int | None = None
) -> SubVP:
    """sub-VP path, sigma = 1 - alpha^2. Song et al. 2021 (2011.13456), eq 29."""
    ordered(beta_min=beta_min, beta_max=beta_max)
    return SubVP(beta_min, beta_max, labels_of(train_steps))
