"""Resfusion: a variance-preserving path that carries the residual along.

    x = a x_0 + (1 - a) R + sqrt(1 - a^2) eps,  R = y - x_0,  a = sqrt(alpha bar)
    alpha = 2a - 1,  beta = 1 - a = (1 - alpha) / 2

Shi et al. 2023 (2311.14900), eqs 14-20. At a = 1/2 the clean data has left the state,
x = y / 2 + sqrt(3/4) eps: sampling starts there.
"""

import math
from typing import Any

import numpy as np

from ..guards import checked, must
from ..numerics import as_float
from ..typing import Array, ArrayLike, Process
from .common import LogRatio, register
from .discrete import VPDiscrete, vp_discrete

__all__ = ["resfusion"]

_HALF = -math.log(3) / 2  # half log-SNR of a variance-preserving path at alpha = 1/2
_ROUNDING = 1e-12


@register("base", "start")
class Resfusion(LogRatio):
    """alpha = 2a - 1, beta = 1 - a, sigma = sqrt(1 - a^2), with a the base's alpha.

    `discrete`: the base's times are labels, one training step apart.
    """

    base: Any
    start: Any
    discrete: bool = True
    centre = 0.5

    @property
    def end(self) -> float:
        """The base path's."""
        return self.base.end

    @property
    def clean(self) -> float:
        """The base path's."""
        return self.base.clean

    @property
    def domain(self) -> tuple[float, float]:
        """From the base's clean end to where a = 1/2."""
        return self.base.domain[0], self.start

    def alpha(self, t: ArrayLike) -> Array:
        """2a - 1, exactly 0 at the start."""
        xp, (t,) = as_float(t)
        found = 2 * self.base.alpha(t) - 1
        return xp.where(abs(found) < _ROUNDING, 0.0, found)

    def beta(self, t: ArrayLike) -> Array:
        """1 - a = sigma^2 / (1 + a), without cancellation."""
        _, (t,) = as_float(t)
        return self.base.sigma(t) ** 2 / (1 + self.base.alpha(t))

    def sigma(self, t: ArrayLike) -> Array:
        """sqrt(1 - a^2)."""
        _, (t,) = as_float(t)
        return self.base.sigma(t)

    def gain(self, s: ArrayLike, t: ArrayLike) -> Array:
        """a_s / a_t: the chain scales the state as the base's does."""
        return self.base.alpha(s) / self.base.alpha(t)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """(2a - 1)^2 = E (1 - a^2) with E = e^{2 lambda}, then the base's inverse."""
        xp, (lam,) = as_float(half_log_snr)
        low = xp.exp(2 * xp.minimum(lam, 0.0))  # E, or 1 / E where lambda > 0
        high = xp.exp(-2 * xp.maximum(lam, 0.0))
        a = xp.where(
            lam < 0,
            (2 + xp.sqrt(low * (low + 3))) / (4 + low),
            (2 * high + xp.sqrt(1 + 3 * high)) / (1 + 4 * high),
        )
        signal = 2 * a - 1  # of the base: log(a / sigma), sigma = (2a - 1) / e^lambda
        near = signal < 1e-3  # there 1 - a^2 has all its digits
        safe = xp.where(near, 1.0, signal)
        finite = xp.where(near, 0.0, lam)
        base = xp.log(a) + xp.where(
            near,
            -xp.log(xp.where(near, 1 - a**2, 1.0)) / 2,
            finite - xp.log(safe),
        )
        time = self.base.half_log_snr_inverse(base)
        # the start exactly, and no rounding beyond it
        return xp.where(xp.isneginf(lam), self.start, xp.minimum(time, self.start))

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / dt, d sigma / dt."""
        d_a, d_sigma = self.base.rates(t)
        return 2 * d_a, d_sigma

    def model_time(self, t: ArrayLike) -> Array:
        """The base path's."""
        return self.base.model_time(t)

    def step_root(self, t: ArrayLike) -> Array:
        """sqrt(alpha_t) of the training step into t: a_t / a_{t-1}; 1 if continuous."""
        xp, (t,) = as_float(t)
        if not self.discrete:
            return xp.ones_like(t)
        return self.base.alpha(t) / self.base.alpha(t - 1)


@checked
def resfusion(base: Process | None = None, *, steps: int = 12) -> Resfusion:
    """Residual-and-noise path between the data and a degraded y.

    x = (2a - 1) x_0 + (1 - a) y + sqrt(1 - a^2) eps, from a = 1/2 to a = 1.

    Args:
        base: a variance-preserving path that gives a = alpha(t). None: the published
            one, `steps` linear betas scaled by 1000 / steps, whose first level at or
            below 1/2 is set to exactly 1/2 and ends the chain. (The published code
            leaves a level that is within 0.01 of 1/2, as long chains have, where it
            is, and starts a little off the path.)
        steps: length of the published chain before it is cut: 12 leaves 5 labels.

    Returns:
        A process with `beta` and `centre = 1/2`; alpha is exactly 0 at its start.

    Raises:
        ValueError: too few steps, or a base that does not preserve variance.

    Example:
        >>> process = resfusion()
        >>> process.start, [round(float(a), 3) for a in process.alpha([-1, 0, 4])]
        (4.0, [1.0, 0.992, 0.0])

    Reference: 2311.14900, eqs 20 and 27-28.
    """
    if base is None:
        base = vp_discrete(_published(steps))
        return Resfusion(base, base.start)
    start = np.asarray(base.half_log_snr_inverse(_HALF), np.float64)
    a, s = float(base.alpha(start)), float(base.sigma(start))
    if abs(a - 0.5) > _ROUNDING or abs(s - math.sqrt(0.75)) > _ROUNDING:
        raise ValueError(
            "base must preserve variance and reach alpha = 1/2, got alpha "
            f"{a:.6g}, sigma {s:.6g} there. Use vp_linear(), vp_cosine() or "
            "vp_discrete()."
        )
    return Resfusion(base, float(start), isinstance(base, VPDiscrete))


def _published(steps: int) -> np.ndarray:
    """The betas up to the level a = 1/2."""
    if steps < 4:
        fix = "A shorter chain has no level above 1/2 to end at."
        raise must("steps", ">= 4", steps, fix)
    betas = np.linspace(0.1, 20.0, int(steps)) / steps
    kept, level = [], 1.0
    for beta in betas:
        if level * (1 - beta) <= 0.25:
            return np.array([*kept, 1 - 0.25 / level])
        kept.append(beta)
        level *= 1 - beta
    raise AssertionError  # the product of (1 - beta) tends to e^-10
