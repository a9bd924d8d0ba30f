"""Gaussian paths x_t = alpha(t) x_0 + sigma(t) eps, one class per published schedule.

Every process gives alpha, sigma, lambda = log(alpha / sigma) and its inverse, for
arrays of any shape, NumPy (float64 out) or JAX. Formulas avoid cancellation: sigma
comes from `expm1`, never from 1 - alpha^2, so both ends are exact. A process is a
frozen dataclass whose constants are pytree leaves: new constants do not recompile.

Papers: DDPM (Ho et al. 2020), improved DDPM (Nichol & Dhariwal 2021, eq 17),
score-SDE (Song et al. 2021, eqs 29-33), EDM (Karras et al. 2022, table 1),
flow matching and rectified flow (Lipman et al. 2023; Liu et al. 2023).
"""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from ._discrete import tabulated, vp_discrete
from .numerics import as_float
from .typing import Array, ArrayLike

__all__ = [
    "edm",
    "flow",
    "sub_vp",
    "tabulated",
    "ve",
    "vp_cosine",
    "vp_discrete",
    "vp_linear",
]


def _register(*constants: str) -> Any:
    """Frozen dataclass, registered as a pytree with `constants` as its leaves."""

    def wrap(cls: type) -> type:
        cls = dataclasses.dataclass(frozen=True)(cls)
        static = [f.name for f in dataclasses.fields(cls) if f.name not in constants]
        return jax.tree_util.register_dataclass(
            cls, data_fields=list(constants), meta_fields=static
        )

    return wrap


def _quiet() -> np.errstate:
    """log(0) at an exact end is the right answer, -inf, not a warning."""
    return np.errstate(divide="ignore")


def _label(t: Any, train_steps: int | None) -> Any:
    """Network time: t itself, or the integer label t N - 1 of an N-step network."""
    return t if train_steps is None else t * train_steps - 1


# --------------------------------------------------------------------- linear beta


def _linear_log_alpha(process: Any, t: Any) -> Any:
    low, high = process.beta_min, process.beta_max
    return -t * (t * (high - low) / 4 + low / 2)


def _linear_time(process: Any, decay: Any, xp: Any) -> Any:
    """The t with -log alpha(t) = decay, without cancellation near 0."""
    low, high = process.beta_min, process.beta_max
    root = xp.sqrt(low**2 + 4 * (high - low) * decay)
    finite = xp.where(xp.isinf(root), 0.0, decay)
    return xp.where(xp.isinf(root), math.inf, 4 * finite / (low + root))


@_register("beta_min", "beta_max")
class VPLinear:
    """Variance preserving with beta(t) = beta_min + t (beta_max - beta_min)."""

    beta_min: Any
    beta_max: Any
    train_steps: int | None = None
    start = 1.0
    end = 1e-3
    clean = 0.0
    domain = (0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Array:
        """exp(-(beta_max - beta_min) t^2 / 4 - beta_min t / 2)."""
        xp, (t,) = as_float(t)
        return xp.exp(_linear_log_alpha(self, t))

    def sigma(self, t: ArrayLike) -> Array:
        """sqrt(1 - alpha^2)."""
        xp, (t,) = as_float(t)
        return xp.sqrt(-xp.expm1(2 * _linear_log_alpha(self, t)))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        log_alpha = _linear_log_alpha(self, t)
        with _quiet():
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

    def model_time(self, t: ArrayLike) -> Array:
        """t, or the label t N - 1 where `train_steps` = N is set."""
        _, (t,) = as_float(t)
        return _label(t, self.train_steps)


@_register("beta_min", "beta_max")
class SubVP:
    """sub-VP: alpha as in VP-linear, sigma = 1 - alpha^2."""

    beta_min: Any
    beta_max: Any
    train_steps: int | None = None
    start = 1.0
    end = 1e-3
    clean = 0.0
    domain = (0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Array:
        """exp(-(beta_max - beta_min) t^2 / 4 - beta_min t / 2)."""
        xp, (t,) = as_float(t)
        return xp.exp(_linear_log_alpha(self, t))

    def sigma(self, t: ArrayLike) -> Array:
        """1 - alpha^2."""
        xp, (t,) = as_float(t)
        return -xp.expm1(2 * _linear_log_alpha(self, t))

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        with _quiet():
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

    def model_time(self, t: ArrayLike) -> Array:
        """t, or the label t N - 1 where `train_steps` = N is set."""
        _, (t,) = as_float(t)
        return _label(t, self.train_steps)


# -------------------------------------------------------------------------- cosine


@_register("offset")
class VPCosine:
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

    def half_log_snr(self, t: ArrayLike) -> Array:
        """log(alpha / sigma)."""
        xp, (t,) = as_float(t)
        with _quiet():
            return xp.log(self.alpha(t)) - xp.log(self.sigma(t))

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
        return _label(t, self.train_steps)


# --------------------------------------------------------------- variance exploding


@_register("sigma_min", "sigma_max")
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


@_register("sigma_min", "sigma_max")
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
        with _quiet():
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


# ---------------------------------------------------------------------------- flow


@_register("time_scale")
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
        with _quiet():
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


# ------------------------------------------------------------------------- builders


def _positive(**values: float) -> None:
    for name, value in values.items():
        if isinstance(value, int | float | np.generic) and not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}.")


def _ordered(**values: float) -> None:
    _positive(**values)
    (low, a), (high, b) = values.items()
    if all(isinstance(v, int | float | np.generic) for v in (a, b)) and not a < b:
        raise ValueError(f"{low} must be below {high}, got {low}={a}, {high}={b}.")


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
    _ordered(beta_min=beta_min, beta_max=beta_max)
    return VPLinear(beta_min, beta_max, train_steps)


def sub_vp(
    beta_min: float = 0.1, beta_max: float = 20.0, *, train_steps: int | None = None
) -> SubVP:
    """sub-VP path, sigma = 1 - alpha^2. Song et al. 2021 (2011.13456), eq 29."""
    _ordered(beta_min=beta_min, beta_max=beta_max)
    return SubVP(beta_min, beta_max, train_steps)


def vp_cosine(offset: float = 0.008, *, train_steps: int | None = None) -> VPCosine:
    """Cosine path; default grids start at t = 0.9946. Nichol & Dhariwal 2021, eq 17."""
    _positive(offset=offset)
    return VPCosine(offset, train_steps)


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> VE:
    """Variance-exploding path, sigma geometric in t. Song et al. 2021, eqs 30-31."""
    _ordered(sigma_min=sigma_min, sigma_max=sigma_max)
    return VE(sigma_min, sigma_max)


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> EDM:
    """EDM's path, time is sigma; the bounds are where default grids start and end.

    Reference: Karras et al. 2022 (2206.00364), table 1.
    """
    _ordered(sigma_min=sigma_min, sigma_max=sigma_max)
    return EDM(sigma_min, sigma_max)


def flow(time_scale: float = 1.0) -> Flow:
    """Rectified-flow path, t = 1 is noise; the network gets t * time_scale.

    Reference: Liu et al. 2023 (2209.03003); Lipman et al. 2023 (2210.02747).
    """
    _positive(time_scale=time_scale)
    return Flow(time_scale)
