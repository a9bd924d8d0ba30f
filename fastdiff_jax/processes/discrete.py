"""Processes known at discrete levels: integer training steps, or a list of levels."""

import dataclasses
import math
from typing import Any, Literal, cast

import numpy as np

from ..guards import checked, must
from ..numerics import as_float
from ..trees import pytree
from ..typing import Array, ArrayLike

__all__ = ["tabulated", "vp_discrete"]

Interpolation = Literal["log_alpha", "rho"]
Named = Literal["linear", "scaled_linear", "squared_cosine"]


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class VPDiscrete:
    """Variance preserving, known at labels 0..N-1; label -1 is the clean data.

    `table` holds, at labels -1..N-1, what is interpolated linearly in the label:
    -log alpha (zero at label -1) or rho = sigma / alpha. With zero terminal SNR the
    last entry is infinite and alpha itself is linear in the last interval.
    """

    table: Any
    interpolation: Interpolation = dataclasses.field(metadata={"static": True})
    zero_terminal: bool = dataclasses.field(metadata={"static": True})
    clean = -1.0

    @property
    def start(self) -> float:
        """The last label, N - 1."""
        return self.table.shape[0] - 2.0

    @property
    def end(self) -> float:
        """Label 0."""
        return 0.0

    @property
    def domain(self) -> tuple[float, float]:
        """(-1, N - 1)."""
        return -1.0, self.start

    def _value(self, t: Any, xp: Any) -> Any:
        """The interpolated quantity; +inf at a zero-SNR end."""
        labels = xp.arange(-1, self.table.shape[0] - 1, dtype=t.dtype)
        table = xp.asarray(self.table, dtype=t.dtype)
        if not self.zero_terminal:
            return xp.interp(t, labels, table)
        inner = xp.interp(t, labels[:-1], table[:-1])
        left = labels[-1] - t  # 1 at label N-2, 0 at label N-1
        last = self._alpha_of(table[-2], xp) * xp.where(left < 1, left, 1.0)
        with np.errstate(divide="ignore"):
            return xp.where(left < 1, self._from_alpha(last, xp), inner)

    def _alpha_of(self, value: Any, xp: Any) -> Any:
        if self.interpolation == "log_alpha":
            return xp.exp(-value)
        return 1 / xp.sqrt(1 + value**2)

    def _from_alpha(self, alpha: Any, xp: Any) -> Any:
        if self.interpolation == "log_alpha":
            return -xp.log(alpha)
        return xp.sqrt((1 - alpha) * (1 + alpha)) / alpha

    def alpha(self, t: ArrayLike) -> Array:
        """Signal scale at a label, fractional labels interpolated."""
        xp, (t,) = as_float(t)
        return self._alpha_of(self._value(t, xp), xp)

    def sigma(self, t: ArrayLike) -> Array:
        """sqrt(1 - alpha^2)."""
        xp, (t,) = as_float(t)
        value = self._value(t, xp)
        if self.interpolation == "log_alpha":
            return xp.sqrt(-xp.expm1(-2 * value))
        safe = xp.where(xp.isinf(value), 1.0, value)
        return xp.where(xp.isinf(value), 1.0, safe / xp.sqrt(1 + safe**2))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        value = self._value(t, xp)
        with np.errstate(divide="ignore"):
            if self.interpolation == "log_alpha":
                return -value - xp.log(-xp.expm1(-2 * value)) / 2
            return -xp.log(value)

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The (fractional) label with the given lambda; exact inverse."""
        xp, (lam,) = as_float(half_log_snr)
        if self.interpolation == "log_alpha":
            value = xp.logaddexp(-2 * lam, xp.zeros_like(lam)) / 2
        else:
            value = xp.exp(-lam)
        labels = xp.arange(-1, self.table.shape[0] - 1, dtype=lam.dtype)
        table = xp.asarray(self.table, dtype=lam.dtype)
        if not self.zero_terminal:
            return xp.interp(value, table, labels)
        inner = xp.interp(value, table[:-1], labels[:-1])
        alpha = xp.exp(-xp.logaddexp(-2 * lam, xp.zeros_like(lam)) / 2)
        late = labels[-1] - alpha / self._alpha_of(table[-2], xp)
        return xp.where(value > table[-2], late, inner)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """D alpha / d label, d sigma / d label, from the interval below the label."""
        xp, (t,) = as_float(t)
        table = xp.asarray(self.table, dtype=t.dtype)
        last = table.shape[0] - 2
        i = xp.clip(xp.ceil(t).astype(int), 0, last)
        alpha, sigma = self.alpha(t), self.sigma(t)
        slope = table[i + 1] - table[i]
        if self.interpolation == "log_alpha":
            d_alpha = -alpha * slope
        else:
            d_alpha = -alpha * alpha * sigma * slope
        if self.zero_terminal:
            d_alpha = xp.where(i == last, -self._alpha_of(table[-2], xp), d_alpha)
        return d_alpha, -alpha * d_alpha / sigma

    def model_time(self, t: ArrayLike) -> Array:
        """The label; a plan between labels hands the network a fractional one."""
        _, (t,) = as_float(t)
        return t


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Tabulated:
    """A path known at a list of levels only; time counts them, 0 = the last one."""

    alphas: Any
    sigmas: Any

    @property
    def start(self) -> float:
        """Time of the first level."""
        return self.alphas.shape[0] - 1.0

    @property
    def end(self) -> float:
        """Time of the last level."""
        return 0.0

    @property
    def clean(self) -> float:
        """Time of the last level (where sigma may be 0)."""
        return 0.0

    @property
    def domain(self) -> tuple[float, float]:
        """(0, number of levels - 1)."""
        return 0.0, self.start

    def _at(self, values: Any, t: ArrayLike) -> Array:
        xp, (t,) = as_float(t)
        if xp is np and (t != np.round(t)).any():
            raise ValueError(
                "a tabulated process is known at whole times only, got "
                f"{float(t[t != np.round(t)].ravel()[0])}. Use a continuous process."
            )
        index = values.shape[0] - 1 - t.astype(int)
        return xp.asarray(values, dtype=t.dtype)[index]

    def alpha(self, t: ArrayLike) -> Array:
        """Signal scale of a level."""
        return self._at(self.alphas, t)

    def sigma(self, t: ArrayLike) -> Array:
        """Noise scale of a level."""
        return self._at(self.sigmas, t)

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        with np.errstate(divide="ignore"):
            return xp.log(self.alpha(t)) - xp.log(self.sigma(t))

    def half_log_snr_inverse(self, half_log_snr: ArrayLike) -> Array:
        """The nearest level: a table has no times in between."""
        xp, (lam,) = as_float(half_log_snr)
        own = self.half_log_snr(xp.arange(self.alphas.shape[0], dtype=lam.dtype))
        gap = xp.where(lam[..., None] == own, 0.0, xp.abs(lam[..., None] - own))
        return xp.argmin(gap, axis=-1).astype(lam.dtype)

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """Not defined for a table."""
        del t
        raise ValueError(
            "a tabulated process has no time derivative; use a solver in half "
            "log-SNR or sigma (ddim, dpmpp_2m, unipc, adams), or a continuous process."
        )

    def model_time(self, t: ArrayLike) -> Array:
        """The level's time."""
        _, (t,) = as_float(t)
        return t


def named_betas(name: Named, steps: int, low: float, high: float) -> np.ndarray:
    """The published beta schedules by name."""
    if name == "linear":
        return np.linspace(low, high, steps)
    if name == "scaled_linear":
        return np.linspace(math.sqrt(low), math.sqrt(high), steps) ** 2
    f = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


@checked
def vp_discrete(
    betas: Named | ArrayLike = "scaled_linear",
    *,
    steps: int = 1000,
    beta_min: float | None = None,
    beta_max: float | None = None,
    zero_terminal_snr: bool = False,
    interpolation: Interpolation = "log_alpha",
) -> VPDiscrete:
    """Variance-preserving path of a network trained on integer steps.

    alpha_n^2 = prod_{m <= n} (1 - beta_m). Time is the label n, noise at N - 1; label
    -1 is the clean end (alpha = 1, sigma = 0). DPM-Solver's t is (n + 1) / N.

    Args:
        betas: an array in (0, 1), or 'linear' (1e-4..0.02), 'scaled_linear'
            (0.00085..0.012, linear in the square root), 'squared_cosine'.
        steps: N, for named betas.
        beta_min, beta_max: ends of the named schedules, None for those above.
        zero_terminal_snr: rescale so that alpha is exactly 0 at the last label
            (Lin et al. 2023, algorithm 1).
        interpolation: between labels, 'log_alpha' (DPM-Solver's code) or 'rho'
            (sigma / alpha, diffusers).

    Raises:
        ValueError: a beta outside (0, 1), or an unknown name.

    Example:
        >>> float(vp_discrete("linear").sigma(-1))
        0.0
    """
    if isinstance(betas, str):
        low, high = (1e-4, 0.02) if betas == "linear" else (0.00085, 0.012)
        low = low if beta_min is None else beta_min
        high = high if beta_max is None else beta_max
        if steps < 2:
            raise must("steps", ">= 2", steps)
        for name, value in (("beta_min", low), ("beta_max", high)):
            if not 0 < value < 1:
                raise must(name, "in (0, 1)", value)
        betas = named_betas(cast(Named, betas), steps, low, high)
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or not ((betas > 0) & (betas < 1)).all():
        bad = betas[~((betas > 0) & (betas < 1))]
        raise ValueError(
            "betas must be at least two numbers in (0, 1), got shape "
            f"{betas.shape}{f' with {bad.ravel()[0]}' if bad.size else ''}."
        )
    decay = -np.cumsum(np.log1p(-betas)) / 2  # -log alpha
    if zero_terminal_snr:
        alpha = np.exp(-decay)
        alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
        with np.errstate(divide="ignore"):
            decay = -np.log(alpha)
    if interpolation == "log_alpha":
        table = decay
    else:
        with np.errstate(over="ignore"):
            table = np.sqrt(np.expm1(2 * decay))
    return VPDiscrete(np.append(0.0, table), interpolation, zero_terminal_snr)


@checked
def tabulated(alpha: ArrayLike, sigma: ArrayLike) -> Tabulated:
    """A path known at a list of levels, e.g. copied from another library.

    Times count the levels down: N, N-1, ..., 0 for N + 1 levels.

    Args:
        alpha, sigma: scales from the noise end to the data end, shape (N + 1,).

    Raises:
        ValueError: shapes differ, a negative or NaN scale, or both scales 0.

    Example:
        >>> path = tabulated([0.0, 0.6, 1.0], [1.0, 0.8, 0.0])
        >>> float(path.alpha(1))
        0.6
    """
    a, s = np.asarray(alpha, np.float64), np.asarray(sigma, np.float64)
    if a.ndim != 1 or a.shape != s.shape or len(a) < 2:
        raise ValueError(
            "alpha and sigma must be 1-D of one length >= 2, got shapes "
            f"{a.shape} and {s.shape}."
        )
    if not ((a >= 0) & (s >= 0) & (a + s > 0)).all():
        i = int(np.argmax(~((a >= 0) & (s >= 0) & (a + s > 0))))
        raise ValueError(
            f"alpha and sigma must be >= 0 and not both 0; at {i}: {a[i]}, {s[i]}."
        )
    return Tabulated(a, s)
