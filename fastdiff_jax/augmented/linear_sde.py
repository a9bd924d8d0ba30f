"""Linear SDEs with several channels, du = F(t) u dt + G(t) dw, in float64 on the host.

With Psi(t, s) the transition and Sigma_t the covariance of the noise,

    u_t = Psi(t, 0) u_0 + R_t eps,    R R^T = Sigma,    R' = F R + 1/2 G G^T R^{-T}

gDDIM (Zhang, Tao & Chen 2022, 2206.05564, eqs 17-19): with this R the probability-flow
ODE moves eps not at all when the data are one point. Write R = L Q with L the Cholesky
factor: Q turns by a skew matrix, so the ODE solved here is one of rotations only.
"""

import dataclasses
from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from ..guards import checked
from ..starts import unit_noise
from ..typing import Array, ArrayLike, Key

__all__ = ["LinearSDE", "linear_sde", "prior", "transposed"]

_PANELS, _NODES = 4, 32
_PIECES = 8
_FLAT = 1e-13  # correlations whose smallest eigenvalue is below say nothing in float64


def transposed(m: np.ndarray) -> np.ndarray:
    """The matrices' transposes."""
    return np.swapaxes(m, -1, -2)


@dataclasses.dataclass(frozen=True, eq=False)
class LinearSDE:
    """du = F u dt + G dw over k channels; made by `linear_sde`, `cld`, `fractional`.

    Attributes:
        drift: times (n,) -> F, (n, k, k).
        diffusion: times (n,) -> G, (n, k, r).
        initial: covariance of the noise at t = 0, (k, k); often singular.
        flow: (t, s), (n,) each -> Psi(t, s), (n, k, k); None: integrated numerically.
        start, end: default first and last time of a grid.
        domain: lowest and highest legal time.
        anchor: the time at which R is the lower Cholesky factor.
    """

    drift: Callable[[np.ndarray], np.ndarray]
    diffusion: Callable[[np.ndarray], np.ndarray]
    initial: np.ndarray
    flow: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    start: float = 1.0
    end: float = 1e-3
    domain: tuple[float, float] = (0.0, 1.0)
    anchor: float = 1e-3
    clean: float = 0.0

    @property
    def channels(self) -> int:
        """Number of channels k."""
        return self.initial.shape[0]

    @cached_property
    def _pieces(self) -> tuple[np.ndarray, list, np.ndarray]:
        """Edges of panels, Psi(t, edge) inside each, and Psi(edge j, edge i).

        One fundamental solution over the whole domain would be inverted where a
        channel has long decayed; panels are inverted one by one.
        """
        k, edges = self.channels, np.linspace(*self.domain, _PIECES + 1)

        def rate(t: float, y: np.ndarray) -> np.ndarray:
            return (self.drift(np.array([t]))[0] @ y.reshape(k, k)).ravel()

        eye = np.eye(k)
        inside = [
            _solve(rate, span, eye.ravel())
            for span in zip(edges[:-1], edges[1:], strict=True)
        ]
        across = [
            f(np.array([b])).reshape(k, k)
            for f, b in zip(inside, edges[1:], strict=True)
        ]
        between = np.broadcast_to(eye, (_PIECES, _PIECES, k, k)).copy()
        for i in range(_PIECES):
            for j in range(i + 1, _PIECES):
                between[j, i] = across[j - 1] @ between[j - 1, i]
                between[i, j] = between[i, j - 1] @ np.linalg.inv(across[j - 1])
        return edges, inside, between

    def _numeric(self, t: np.ndarray, s: np.ndarray) -> np.ndarray:
        edges, inside, between = self._pieces
        where, local = [], []
        for times in (t, s):
            piece = np.clip(np.searchsorted(edges, times, "right") - 1, 0, _PIECES - 1)
            part = np.empty((times.size, self.channels, self.channels))
            for j in np.unique(piece):
                pick = piece == j
                part[pick] = inside[j](times[pick]).T.reshape(part[pick].shape)
            where.append(piece)
            local.append(part)
        return local[0] @ between[tuple(where)] @ np.linalg.inv(local[1])

    def transition(self, t: Any, s: Any) -> np.ndarray:
        """Psi(t, s), shape (..., k, k), for times of any shape."""
        t, s = np.broadcast_arrays(np.float64(t), np.float64(s))
        k = self.channels
        flow = self._numeric if self.flow is None else self.flow
        return flow(t.ravel(), s.ravel()).reshape(*t.shape, k, k)

    def covariance(self, t: Any) -> np.ndarray:
        """Sigma_t, (..., k, k): a sum of positive terms, so nothing cancels."""
        t = np.asarray(t, np.float64)
        x, w = np.polynomial.legendre.leggauss(_NODES)
        part = ((np.arange(_PANELS)[:, None] + (x + 1) / 2) / _PANELS).ravel()
        mass = np.tile(w / (2 * _PANELS), _PANELS)
        u = t[..., None] * part
        g = self.diffusion(u.ravel()).reshape(*u.shape, self.channels, -1)
        pushed = self.transition(t[..., None], u) @ g
        pushed = pushed * np.sqrt(t[..., None] * mass)[..., None, None]
        wide = np.moveaxis(pushed, -3, -2).reshape(*t.shape, self.channels, -1)
        grown = wide @ transposed(wide)
        first = self.transition(t, np.zeros_like(t))
        return first @ self.initial @ transposed(first) + grown

    def cholesky(self, t: Any, name: str = "ts") -> np.ndarray:
        """Lower triangular L with L L^T = Sigma_t.

        Raises:
            ValueError: Sigma_t is not positive definite.
        """
        t = np.asarray(t, np.float64)
        sigma = self.covariance(t)
        size = np.sqrt(np.einsum("...ii->...i", sigma))
        safe = np.where(size > 0, size, 1.0)
        scaled = sigma / (safe[..., :, None] * safe[..., None, :])
        low = np.linalg.eigvalsh(scaled)[..., 0]
        if not (low > _FLAT).all():
            at = np.unravel_index(np.argmin(low), low.shape)
            least = np.linalg.eigvalsh(sigma[at])[0]
            raise ValueError(
                f"the covariance is not positive definite at {name}={t[at]:.6g}: its "
                f"smallest eigenvalue is {least:.3g} ({low[at]:.3g} for the "
                "correlations). Keep the grid away from that time, e.g. "
                f"end={max(self.end, 2 * t[at]):g}, or give every channel noise at "
                "t = 0 (`initial`)."
            )
        return np.linalg.cholesky(scaled) * safe[..., :, None]

    def root(self, t: Any) -> np.ndarray:
        """R_t, (..., k, k); lower triangular at `anchor`."""
        t = np.asarray(t, np.float64)
        lower = self.cholesky(t)
        if self.channels == 1:
            return lower
        flat = t.ravel()
        turn = np.empty((flat.size, self.channels, self.channels))
        for above in (True, False):
            pick = (flat >= self.anchor) == above
            if not pick.any():
                continue
            solved = self._turn_up if above else self._turn(float(flat.min()))
            found = solved(np.log(flat[pick])).T.reshape(turn[pick].shape)
            left, _, right = np.linalg.svd(found)
            turn[pick] = left @ right  # the nearest rotation
        return lower @ turn.reshape(lower.shape)

    @cached_property
    def _turn_up(self) -> Any:
        return self._turn(self.domain[1])

    def _turn(self, last: float) -> Any:
        """Q from the anchor to a time, as a function of log t: Q' = K Q, K skew."""
        k = self.channels

        def rate(log_t: float, q: np.ndarray) -> np.ndarray:
            t = np.array([np.exp(log_t)])
            lower = self.cholesky(t, "t")[0]
            drift = np.linalg.solve(lower, self.drift(t)[0] @ lower)
            noise = np.linalg.solve(lower, self.diffusion(t)[0])
            below = np.tril(drift.T + noise @ noise.T / 2, -1)
            return t[0] * ((below.T - below) @ q.reshape(k, k)).ravel()

        span = (float(np.log(self.anchor)), float(np.log(last)))
        return _solve(rate, span, np.eye(k).ravel())


def _solve(rate: Callable, span: tuple[float, float], first: np.ndarray) -> Any:
    if span[0] == span[1]:
        return lambda t: np.repeat(first[:, None], np.size(t), 1)
    found = solve_ivp(
        rate, span, first, method="DOP853", rtol=1e-11, atol=1e-12, dense_output=True
    )
    return found.sol


@checked
def linear_sde(
    drift: Callable[[np.ndarray], np.ndarray],
    diffusion: Callable[[np.ndarray], np.ndarray],
    *,
    initial: ArrayLike | None = None,
    flow: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    start: float = 1.0,
    end: float = 1e-3,
) -> LinearSDE:
    """A linear SDE of your own, du = F(t) u dt + G(t) dw.

    Args:
        drift: times (n,) -> F, (n, k, k); per unit time.
        diffusion: times (n,) -> G, (n, k, r).
        initial: covariance (k, k) of the noise at t = 0 around the data; None: none.
        flow: Psi(t, s) in closed form, if there is one.
        start, end: first and last time of a default grid; R is lower triangular at
            `end`.

    Returns:
        A process for `fd.augmented.gddim` and the grids in time.

    Raises:
        ValueError: shapes that do not agree, or an `initial` that is no covariance.

    Example:
        >>> import numpy as np
        >>> one = lambda t: np.ones((len(t), 1, 1))
        >>> process = linear_sde(lambda t: -one(t), one)  # Ornstein-Uhlenbeck
        >>> bool(abs(process.covariance(1.0)[0, 0] - (1 - np.exp(-2)) / 2) < 1e-12)
        True
    """
    probe = np.array([start, end])
    shape, noise = np.shape(drift(probe)), np.shape(diffusion(probe))
    k = shape[-1]
    if shape != (2, k, k) or len(noise) != 3 or noise[:2] != (2, k):
        raise ValueError(
            "for 2 times drift must give (2, k, k) and diffusion (2, k, r), got "
            f"{shape} and {noise}."
        )
    initial = np.zeros((k, k)) if initial is None else np.asarray(initial, np.float64)
    if initial.shape != (k, k) or not np.allclose(initial, initial.T):
        raise ValueError(
            f"initial must be a symmetric ({k}, {k}) matrix, got shape {initial.shape}."
        )
    if np.linalg.eigvalsh(initial)[0] < -1e-12:
        raise ValueError("initial must be a covariance; it has a negative eigenvalue.")
    if not 0 < end < start:
        raise ValueError(f"need 0 < end < start, got end={end}, start={start}.")
    domain = (0.0, float(start))
    return LinearSDE(
        drift, diffusion, initial, flow, float(start), float(end), domain, float(end)
    )


@checked
def prior(
    process: LinearSDE, key: Key, shape: tuple[int, ...], *, start: float | None = None
) -> Array:
    """Noise to start from, N(0, Sigma_start) over the channels on axis 1.

    Args:
        process: the linear SDE.
        key: a key, or one per sample of shape (B,).
        shape: (B, k, ...).
        start: the plan's first time, None for the process' own.

    Raises:
        ValueError: axis 1 is not the process' channels.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> fd.augmented.prior(fd.augmented.cld(), jax.random.key(0), (5, 2, 3)).shape
        (5, 2, 3)
    """
    if len(shape) < 2 or shape[1] != process.channels:
        raise ValueError(
            f"shape must be (B, {process.channels}, ...): the channels on axis 1; got "
            f"{tuple(shape)}."
        )
    z = unit_noise(key, shape)
    lower = process.cholesky(process.start if start is None else start, "start")
    return jax.tree.map(
        lambda v: jnp.einsum(
            "ij,bj...->bi...",
            jnp.asarray(lower, v.dtype),
            v,
            precision=jax.lax.Precision.HIGHEST,
        ),
        z,
    )
