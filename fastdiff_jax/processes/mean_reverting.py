"""Mean reversion towards a degraded input: IR-SDE. Luo et al. 2023 (2301.11699).

    dx = theta(t) (mu - x) dt + g(t) dw,  g^2 = 2 lambda_inf^2 theta

    x_t = alpha x_0 + beta mu + sigma eps,  alpha = e^{-Theta(t)},  beta = 1 - alpha,
    sigma = lambda_inf sqrt(1 - alpha^2),   Theta(t) = int_0^t theta

(eqs 2 to 6). Around mu this is a variance-preserving path whose noise has the scale
lambda_inf. theta is known at the labels 1..T and constant between them, as in the
published discrete chain; Theta is then linear between labels, and exact at them.
"""

import math
from typing import Any, Literal

import numpy as np

from ..guards import checked, must
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import positive, quiet, register

__all__ = ["mean_reverting"]

_OFFSET = 0.008  # of the cosine schedule (Nichol & Dhariwal 2021, eq 17)


@register("table", "lambda_inf")
class MeanReverting:
    """Mean-reverting path with two endpoints; time counts labels, 0 = clean.

    `table` holds Theta at the labels 0..T.
    """

    table: Any
    lambda_inf: Any
    clean = 0.0
    end = 1.0
    centre = 1.0  # beta = 1 - alpha

    @property
    def start(self) -> float:
        """The last label, T."""
        return self.table.shape[0] - 1.0

    @property
    def domain(self) -> tuple[float, float]:
        """(0, T)."""
        return 0.0, self.start

    @property
    def unit(self) -> Any:
        """Scale of the noise, lambda_inf: of the prior and of a v prediction."""
        return self.lambda_inf

    def _labels(self, like: Any, xp: Any) -> tuple[Any, Any]:
        labels = xp.arange(self.table.shape[0], dtype=like.dtype)
        return labels, xp.asarray(self.table, dtype=like.dtype)

    def _decay(self, t: Any, xp: Any) -> Any:
        """Theta(t)."""
        labels, table = self._labels(t, xp)
        return xp.interp(t, labels, table)

    def alpha(self, t: ArrayLike) -> Array:
        """exp(-Theta), the weight of x_0."""
        xp, (t,) = as_float(t)
        return xp.exp(-self._decay(t, xp))

    def beta(self, t: ArrayLike) -> Array:
        """1 - alpha, the weight of the degraded input."""
        xp, (t,) = as_float(t)
        return -xp.expm1(-self._decay(t, xp))

    def sigma(self, t: ArrayLike) -> Array:
        """lambda_inf sqrt(1 - alpha^2)."""
        xp, (t,) = as_float(t)
        free = xp.sqrt(-xp.expm1(-2 * self._decay(t, xp)))
        return xp.asarray(self.lambda_inf, dtype=t.dtype) * free

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        decay = self._decay(t, xp)
        scale = xp.log(xp.asarray(self.lambda_inf, dtype=t.dtype))
        with quiet():
            return -decay - xp.log(-xp.expm1(-2 * decay)) / 2 - scale

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The (fractional) label with the given log(alpha / sigma); exact inverse."""
        xp, (lam,) = as_float(half_log_snr)
        labels, table = self._labels(lam, xp)
        scale = xp.log(xp.asarray(self.lambda_inf, dtype=lam.dtype))
        decay = xp.logaddexp(-2 * (lam + scale), xp.zeros_like(lam)) / 2
        return xp.interp(decay, table, labels)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / d label, d sigma / d label, theta from the interval below it."""
        xp, (t,) = as_float(t)
        _, table = self._labels(t, xp)
        i = xp.clip(xp.ceil(t).astype(int) - 1, 0, table.shape[0] - 2)
        theta = table[i + 1] - table[i]
        alpha = self.alpha(t)
        unit = xp.asarray(self.lambda_inf, dtype=t.dtype)
        with quiet():  # sigma starts as a square root
            return -theta * alpha, unit**2 * theta * alpha**2 / self.sigma(t)

    def model_time(self, t: ArrayLike) -> Array:
        """The label; a plan between labels hands the network a fractional one."""
        _, (t,) = as_float(t)
        return t


def _schedule(name: str, steps: int) -> np.ndarray:
    """Reversion speed at the labels 1..T, up to a factor."""
    label = np.arange(1, steps + 1)
    if name == "constant":
        return np.ones(steps)
    if name == "linear":
        return 1e-4 + (2e-2 - 1e-4) * label / steps
    # 1 - cos^2, the published reading of the cosine schedule
    u = (np.append(label + 1, 0) / (steps + 2) + _OFFSET) / (1 + _OFFSET)
    kept = np.cos(u * math.pi / 2) ** 2
    return 1 - kept[:-1] / kept[-1]


@checked
def mean_reverting(
    schedule: Literal["cosine", "constant", "linear"] | ArrayLike = "cosine",
    *,
    train_steps: int = 100,
    lambda_inf: float = 50 / 255,
    end_alpha: float = 0.005,
) -> MeanReverting:
    """Mean-reverting path (IR-SDE): from x_0 to the degraded mu plus noise.

    x_t = e^{-Theta} x_0 + (1 - e^{-Theta}) mu + lambda_inf sqrt(1 - e^{-2 Theta}) eps

    Args:
        schedule: theta(t): 'cosine' (published default), 'constant', 'linear', or
            T values theta_1..theta_T > 0. Only their ratios count.
        train_steps: T, the number of labels; ignored where values are given.
        lambda_inf: stationary standard deviation, in units of the data. The published
            50/255 (10/255 for deraining) is for images in [0, 1].
        end_alpha: alpha at the last label, the published eps: theta is scaled by
            dt = -log(eps) / sum theta.

    Returns:
        A process with `beta` and `centre` = 1; its clock is the label, 0..T.

    Raises:
        ValueError: an unknown schedule, a theta that is not positive and finite,
            fewer than one label, lambda_inf <= 0, or end_alpha outside (0, 1).

    Example:
        >>> process = mean_reverting()
        >>> [round(float(v), 4) for v in (process.alpha(100), process.sigma(100))]
        [0.005, 0.1961]

    Reference: Luo et al. 2023 (2301.11699), eqs 2-6 and appendix.
    """
    positive(lambda_inf=lambda_inf)
    if not 0 < end_alpha < 1:
        raise must("end_alpha", "in (0, 1)", end_alpha)
    if isinstance(schedule, str):
        if train_steps < 1:
            raise must("train_steps", ">= 1", train_steps)
        theta = _schedule(schedule, train_steps)
    else:
        theta = np.asarray(schedule, np.float64)
    if theta.ndim != 1 or theta.size < 1:
        raise ValueError(f"schedule must be theta of shape (T,), got {theta.shape}.")
    if not ((theta > 0) & np.isfinite(theta)).all():
        bad = theta[~((theta > 0) & np.isfinite(theta))][0]
        raise ValueError(f"theta must be > 0 and finite, got {bad:g} in schedule.")
    decay = np.append(0.0, np.cumsum(theta))
    return MeanReverting(decay * (-math.log(end_alpha) / decay[-1]), lambda_inf)
