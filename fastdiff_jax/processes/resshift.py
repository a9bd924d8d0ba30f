"""ResShift: the residual y - x_0 is shifted in, with noise of its own small scale.

    x = (1 - eta) x_0 + eta y + kappa sqrt(eta) eps

Yue, Wang & Loy 2023 (2307.12348), eqs 1-2 and 14: sqrt(eta) is a geometric ramp with
a bent clock. The forward chain adds increments, so its own posterior keeps
eta_t / eta_s of the state.
"""

from typing import Any

import numpy as np

from ..guards import checked, must
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import Labelled, ordered, positive, register

__all__ = ["resshift"]


@register("low", "high", "kappa", "power")
class ResShift(Labelled):
    """alpha = 1 - eta, beta = eta, sigma = kappa sqrt(eta); time is the label.

    sqrt(eta) = low (high / low)^((t / (T-1))^power) at t in [0, T-1], linear to 0
    below: label -1 is the clean data.
    """

    low: Any
    high: Any
    kappa: Any
    power: Any
    steps: int = 15

    def _span(self, xp: Any) -> Any:
        return xp.log(xp.asarray(self.high)) - xp.log(xp.asarray(self.low))

    def root_eta(self, t: ArrayLike) -> Array:
        """sqrt(eta)."""
        xp, (t,) = as_float(t)
        unit = xp.where(t > 0, t, 1.0) / self.start
        bent = xp.where(t > 0, unit**self.power, 0.0)
        return xp.where(t > 0, self.low * xp.exp(bent * self._span(xp)), 0.0) + (
            xp.where(t > 0, 0.0, self.low * (1 + t))
        )

    def alpha(self, t: ArrayLike) -> Array:
        """1 - eta."""
        root = self.root_eta(t)
        return (1 - root) * (1 + root)

    def beta(self, t: ArrayLike) -> Array:
        """Eta, the share of the endpoint y."""
        return self.root_eta(t) ** 2

    def sigma(self, t: ArrayLike) -> Array:
        """Kappa sqrt(eta)."""
        return self.kappa * self.root_eta(t)

    def gain(self, s: ArrayLike, t: ArrayLike) -> Array:
        """1: the chain from t to s only adds."""
        xp, (s, t) = as_float(s, t)
        return xp.ones_like(s + t)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """From q^2 + kappa e^lambda q = 1 with q = sqrt(eta)."""
        xp, (lam,) = as_float(half_log_snr)
        with np.errstate(over="ignore"):
            b = self.kappa * xp.exp(lam)
        root = 2 / (b + xp.hypot(b, xp.full_like(b, 2.0)))
        above = root > self.low
        ratio = xp.where(above, root, self.high) / self.low
        bent = xp.log(ratio) / self._span(xp)
        late = self.start * bent ** (1 / self.power)
        return xp.where(above, late, root / self.low - 1)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt, d sigma / dt; at label 0 those from below."""
        xp, (t,) = as_float(t)
        unit = xp.where(t > 0, t, 1.0) / self.start
        root = self.root_eta(t)
        bend = self.power / self.start * unit ** (self.power - 1)
        slope = xp.where(t > 0, root * self._span(xp) * bend, self.low)
        return -2 * root * slope, self.kappa * slope

    def model_time(self, t: ArrayLike) -> Array:
        """The label."""
        _, (t,) = as_float(t)
        return t

    def input_scale(self, t: ArrayLike, variance: float = 1.0) -> Array:
        """1 / sqrt(sigma^2 + variance): what the published network's x is scaled by."""
        xp, (t,) = as_float(t)
        return 1 / xp.sqrt(self.sigma(t) ** 2 + variance)


@checked
def resshift(
    steps: int = 15,
    *,
    min_noise: float = 0.04,
    kappa: float = 2.0,
    power: float = 0.3,
    end: float = 0.99,
) -> ResShift:
    """Residual-shifting path between the data and a degraded y.

    x = (1 - eta) x_0 + eta y + kappa sqrt(eta) eps; sqrt(eta_0) = min(m, m / kappa).

    Args:
        steps: T, labels 0..T-1 of the network, >= 2. Published: 15 with min_noise
            0.04, or 4 with min_noise 0.2.
        min_noise: m, sets the first level.
        kappa: noise scale.
        power: p > 0, bend of the clock: small p leaves the clean end quickly.
        end: sqrt(eta) at the last label, below 1.

    Returns:
        A process with `beta` and `centre = 1`.

    Raises:
        ValueError: too few steps, a constant that is not > 0, or end >= 1.

    Example:
        >>> process = resshift(4, min_noise=0.2)
        >>> [round(float(q), 3) for q in process.root_eta(np.arange(-1.0, 4.0))]
        [0.0, 0.1, 0.52, 0.761, 0.99]

    Reference: 2307.12348, eqs 1-2 and 14.
    """
    if steps < 2:
        raise must("steps", ">= 2", steps)
    positive(min_noise=min_noise, kappa=kappa, power=power)
    low = min(min_noise / kappa, min_noise)
    ordered(min_noise=low, end=end)
    if not end < 1:
        raise must("end", "below 1 (alpha stays positive)", end)
    return ResShift(low, end, kappa, power, steps)
