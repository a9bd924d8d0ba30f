"""Critically damped Langevin diffusion: data x with a velocity v, noise on v only."""

import numpy as np
from scipy.linalg import expm

from ..guards import checked, must
from .linear_sde import LinearSDE

__all__ = ["cld", "vp"]


@checked
def cld(
    *,
    beta: float = 4.0,
    m_inv: float = 4.0,
    damping: float | None = None,
    gamma: float = 0.04,
    end: float = 1e-3,
) -> LinearSDE:
    """CLD: dx = beta v / M dt, dv = -beta (x + Gamma v / M) dt + sqrt(2 Gamma beta) dw.

    With B = beta t and a = 2 / sqrt(M), critically damped,

        Psi = e^{-aB/2} [[1 + aB/2, a^2 B/4], [-B, 1 - aB/2]].

    Args:
        beta: rate, per unit time.
        m_inv: 1 / M, the inverse mass.
        damping: Gamma; None: critical, 2 / sqrt(m_inv).
        gamma: the initial velocity has variance gamma M; it counts as noise.
        end: last time of a default grid.

    Returns:
        A process of two channels, (x, v); the stationary law is N(0, diag(1, M)).

    Raises:
        ValueError: a constant that is not positive (gamma may be 0).

    Example:
        >>> cld().covariance(1.0).diagonal().round(2).tolist()  # near (1, M)
        [1.0, 0.25]

    Reference: Dockhorn et al. 2021 (2112.07068); defaults as in gDDIM (2206.05564).
    """
    if damping is None:  # nan: m_inv is refused below
        damping = float(2 / np.sqrt(m_inv)) if m_inv > 0 else np.nan
    for name, value in {"beta": beta, "m_inv": m_inv, "damping": damping}.items():
        if not value > 0:
            raise must(name, "> 0", value)
    if not gamma >= 0:
        raise must("gamma", ">= 0", gamma)
    if not 0 < end < 1:
        raise must("end", "in (0, 1), the clock's", end)
    f = beta * np.array([[0.0, m_inv], [-1.0, -damping * m_inv]])
    g = np.array([[0.0], [np.sqrt(2 * damping * beta)]])
    half = damping * m_inv * beta / 2  # decay where critical
    nil = f + half * np.eye(2)
    critical = np.isclose(damping**2 * m_inv, 4.0, rtol=1e-12)

    def flow(t: np.ndarray, s: np.ndarray) -> np.ndarray:
        span = (t - s)[:, None, None]
        if critical:  # nil squares to zero
            return np.exp(-half * span) * (np.eye(2) + span * nil)
        return expm(f * span)

    initial = np.diag([0.0, gamma / m_inv])
    return LinearSDE(_constant(f), _constant(g), initial, flow, end=end, anchor=end)


def _constant(m: np.ndarray):
    return lambda t: np.broadcast_to(m, (len(t), *m.shape))


@checked
def vp(
    beta_min: float = 0.1, beta_max: float = 20.0, *, end: float = 1e-3
) -> LinearSDE:
    """The scalar variance-preserving SDE as a linear SDE of one channel.

    du = -beta(t) u / 2 dt + sqrt(beta(t)) dw, with linear beta: what `gddim` gives on
    it is DEIS on `fd.processes.vp_linear`.

    Args:
        beta_min, beta_max: beta(0) and beta(1), per unit time.
        end: last time of a default grid.

    Example:
        >>> vp().channels
        1
    """
    if not 0 < beta_min <= beta_max:
        raise must("beta_min", "> 0 and at most beta_max", beta_min)
    if not 0 < end < 1:
        raise must("end", "in (0, 1), the clock's", end)

    def beta(t: np.ndarray) -> np.ndarray:
        return (beta_min + t * (beta_max - beta_min))[:, None, None]

    def flow(t: np.ndarray, s: np.ndarray) -> np.ndarray:
        # int_s^t beta, by the trapezoid rule that is exact for it
        mean = beta_min + (t + s) / 2 * (beta_max - beta_min)
        return np.exp(-(t - s) * mean / 2)[:, None, None]

    return LinearSDE(
        lambda t: -beta(t) / 2,
        lambda t: np.sqrt(beta(t)),
        np.zeros((1, 1)),
        flow,
        end=end,
        anchor=end,
    )
