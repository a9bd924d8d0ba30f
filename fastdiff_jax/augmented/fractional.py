"""Diffusion driven by approximate fractional noise: x with K Ornstein-Uhlenbeck paths.

    B^H ~ sum_k omega_k Y_k,    dY_k = -gamma_k Y_k dt + dB,    Y_k(0) = 0

The weights are the least-squares fit to the type II fractional Brownian motion
B^H_t = int_0^t (t - u)^{H - 1/2} dB_u / Gamma(H + 1/2) over [0, T]: A omega = b with
A_ij = int_0^T E[Y_i Y_j] dt and b_k = int_0^T E[B^H Y_k] dt, both in closed form. All
paths share one B, so (x, Y_1, ..., Y_K) is a linear SDE.

Daems et al. 2023 (2310.12975); Nobis et al. 2023 (2310.17638).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gamma as gamma_function
from scipy.special import gammainc

from ..guards import checked, must
from .linear_sde import LinearSDE

__all__ = ["MarkovApproximation", "fractional", "markov_approximation"]

_NODES = 32


class MarkovApproximation(NamedTuple):
    """B^H ~ sum_k weights_k Y_k.

    Attributes:
        hurst: H.
        rates: gamma_k, (K,).
        weights: omega_k, (K,).
    """

    hurst: float
    rates: np.ndarray
    weights: np.ndarray

    def variance(self, t: np.ndarray) -> np.ndarray:
        """Of the approximation at times t."""
        both = self.rates[:, None] + self.rates
        t = np.asarray(t, np.float64)[..., None, None]
        cov = -np.expm1(-both * t) / both
        return np.einsum("i,...ij,j->...", self.weights, cov, self.weights)

    def target_variance(self, t: np.ndarray) -> np.ndarray:
        """Of the type II motion: t^{2H} / (2H Gamma(H + 1/2)^2)."""
        h = self.hurst
        return np.asarray(t, np.float64) ** (2 * h) / (
            2 * h * gamma_function(h + 0.5) ** 2
        )

    def error(self, t: np.ndarray) -> np.ndarray:
        """E[(B^H - approximation)^2] at times t, driven by the same B."""
        h, t = self.hurst, np.asarray(t, np.float64)[..., None]
        cross = self.rates ** (-h - 0.5) * gammainc(h + 0.5, self.rates * t)
        return (
            self.target_variance(t[..., 0])
            - 2 * cross @ self.weights
            + self.variance(t[..., 0])
        )


@checked
def markov_approximation(
    hurst: float, paths: int = 5, *, gamma_max: float = 20.0, horizon: float = 1.0
) -> MarkovApproximation:
    """The best K Ornstein-Uhlenbeck paths for a fractional Brownian motion.

    Args:
        hurst: H in (0, 1); 0.5 is Brownian motion.
        paths: K >= 1; their rates run geometrically from 1 / gamma_max to gamma_max.
        gamma_max: largest rate, > 1, per unit time.
        horizon: T, the fit is over [0, T].

    Raises:
        ValueError: a constant out of range.

    Example:
        >>> found = markov_approximation(0.7)
        >>> bool(found.error(1.0) < 1e-3 * found.target_variance(1.0))
        True

    Reference: Daems et al. 2023 (2310.12975), section 3.
    """
    if not 0 < hurst < 1:
        raise must("hurst", "in (0, 1)", hurst)
    if paths < 1:
        raise must("paths", ">= 1", paths)
    if not gamma_max > 1:
        raise must("gamma_max", "> 1", gamma_max)
    if not horizon > 0:
        raise must("horizon", "> 0", horizon)
    place = np.linspace(-1, 1, paths) if paths > 1 else np.zeros(1)
    g, t, a = gamma_max**place, horizon, hurst + 0.5
    both = g[:, None] + g
    matrix = (t + np.expm1(-both * t) / both) / both
    vector = t * g**-a * gammainc(a, g * t) - a * g ** (-a - 1) * gammainc(a + 1, g * t)
    return MarkovApproximation(float(hurst), g, np.linalg.solve(matrix, vector))


@checked
def fractional(
    hurst: float = 0.7,
    paths: int = 5,
    *,
    gamma_max: float = 20.0,
    initial: float = 1e-4,
    beta_min: float = 0.1,
    beta_max: float = 20.0,
    end: float = 1e-3,
) -> LinearSDE:
    """Variance-preserving drift driven by approximate fractional noise.

    dx = -beta(t) x / 2 dt + sqrt(beta(t)) dB^H, beta linear in t, B^H by `paths`
    Ornstein-Uhlenbeck paths: a linear SDE of 1 + paths channels, the data in channel 0.
    Sample it with `fd.augmented.gddim(..., order=1, tau2=1.0, root="cholesky")`; one
    score of a scalar path is enough, see `fd.augmented.lift`.

    Near t = 0 all paths are the same Brownian motion: with Y_k(0) = 0 the covariance of
    more than two is singular in float64, which `gddim` refuses. So Y_k(0) gets a small
    variance of its own, which counts as noise, like the velocity's in `cld`.

    Args:
        hurst: H in (0, 1): above 0.5 smooth noise, below rough noise.
        paths: number of Ornstein-Uhlenbeck paths K.
        gamma_max: their largest rate.
        initial: variance of Y_k(0), >= 0; 0 is the published process. Smaller values
            cost digits: in float32, 50 steps were within 2e-3 of float64 with 1e-4.
        beta_min, beta_max: beta(0) and beta(1), per unit time.
        end: last time of a default grid.

    Raises:
        ValueError: a constant out of range.

    Example:
        >>> fractional(0.7, 5).channels
        6

    Reference: Nobis et al. 2023 (2310.17638), section 3.
    """
    fit = markov_approximation(hurst, paths, gamma_max=gamma_max)
    if not 0 < beta_min <= beta_max:
        raise ValueError(
            f"need 0 < beta_min <= beta_max, got beta_min={beta_min}, "
            f"beta_max={beta_max}."
        )
    if not initial >= 0:
        raise must("initial", ">= 0", initial)
    if not 0 < end < 1:
        raise must("end", "in (0, 1), the clock's", end)
    k, slope = 1 + paths, beta_max - beta_min
    pull, push = fit.weights * fit.rates, fit.weights.sum()

    def beta(t: np.ndarray) -> np.ndarray:
        return beta_min + t * slope

    def drift(t: np.ndarray) -> np.ndarray:
        out = np.zeros((len(t), k, k))
        out[:, 0, 0] = -beta(t) / 2
        out[:, 0, 1:] = -np.sqrt(beta(t))[:, None] * pull
        out[:, 1:, 1:] = -np.diag(fit.rates)
        return out

    def diffusion(t: np.ndarray) -> np.ndarray:
        out = np.ones((len(t), k, 1))
        out[:, 0, 0] = np.sqrt(beta(t)) * push
        return out

    def decay(t: np.ndarray, s: np.ndarray) -> np.ndarray:
        return np.exp(-(t - s) * (beta_min + (t + s) / 2 * slope) / 2)

    def flow(t: np.ndarray, s: np.ndarray) -> np.ndarray:
        out = np.zeros((len(t), k, k))
        out[:, 0, 0] = decay(t, s)
        span = (t - s)[:, None]
        out[:, range(1, k), range(1, k)] = np.exp(-span * fit.rates)
        x, w = np.polynomial.legendre.leggauss(_NODES)
        u = s[:, None] + span * (x + 1) / 2
        felt = decay(t[:, None], u) * np.sqrt(beta(u)) * w / 2 * span
        left = np.exp(-(u - s[:, None])[..., None] * fit.rates)
        out[:, 0, 1:] = -pull * np.einsum("nq,nqk->nk", felt, left)
        return out

    first = np.diag([0.0] + [initial] * paths)
    return LinearSDE(drift, diffusion, first, flow, end=end, anchor=end)
