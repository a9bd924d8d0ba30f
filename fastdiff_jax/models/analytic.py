"""Exact denoisers: the posterior mean of Gaussian and Gaussian-mixture data.

Data N(m, S), x = alpha x_0 + sigma eps, V = alpha^2 S + sigma^2 I:

    E[x_0 | x] = m + alpha S V^{-1} (x - alpha m)

For a mixture, the same per component, averaged with the posterior weights
r_k proportional to w_k N(x; alpha m_k, V_k), taken in log space.
"""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import broadcasts, checked, must
from ..states import align
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, Finite, PyTree

__all__ = ["Mixture", "gaussian", "gaussian_mixture"]

# accelerators would round float32 factors of a product to 10 or 7 bits
_turn = partial(jnp.einsum, precision="highest")


@pytree
class Mixture:
    """K Gaussians over events of shape (D...), diagonal or in eigenvectors.

    Attributes:
        log_weights: (K,).
        means: (K, D...).
        spectrum: variances (K, D...), or eigenvalues (K, d) of full covariances.
        vectors: eigenvectors (K, d, d) by column for full covariances, else None.
    """

    log_weights: Any
    means: Any
    spectrum: Any
    vectors: Any = None
    gives: ClassVar[tuple[str, ...]] = ("data",)

    def __call__(
        self, x: Array, context: Context, carry: PyTree
    ) -> tuple[Array, PyTree]:
        """E[x_0 | x]."""
        return self.posterior_mean(x, context.alpha, context.sigma), carry

    def posterior_mean(self, x: Array, alpha: ArrayLike, sigma: ArrayLike) -> Array:
        """E[x_0 | x] at the level (alpha, sigma), scalars or arrays like x."""
        event = self.means.ndim - 1
        axes = tuple(range(-event, 0))
        cast = lambda w: self._lead(jnp.asarray(w, x.dtype), x)  # noqa: E731
        alpha, sigma = align(alpha, x)[None], align(sigma, x)[None]
        means, spectrum = cast(self.means), cast(self.spectrum)
        gap = x[None] - alpha * means  # (K, B, D...)
        if self.vectors is not None:
            vectors = jnp.asarray(self.vectors, x.dtype)
            gap = _turn("kij,k...i->k...j", vectors, gap)
        total = alpha**2 * spectrum + sigma**2
        shift = alpha * spectrum / total * gap
        if self.vectors is not None:
            shift = _turn("kij,k...j->k...i", vectors, shift)
        found = means + shift
        if self.means.shape[0] == 1:
            return found[0]
        energy = (jnp.log(total) + gap**2 / total).sum(axes, keepdims=True) / 2
        logits = jnp.asarray(self.log_weights, x.dtype)
        logits = logits.reshape((-1,) + (1,) * x.ndim) - energy
        return (jax.nn.softmax(logits, axis=0) * found).sum(0)

    def _lead(self, w: Array, x: Array) -> Array:
        """(K, D...) to (K, 1..., D...) with x's axes after K."""
        return w.reshape(w.shape[:1] + (1,) * (x.ndim - w.ndim + 1) + w.shape[1:])


@checked
def gaussian_mixture(
    weights: Finite,
    means: Finite,
    variances: Finite | None = None,
    *,
    covariances: Finite | None = None,
) -> Mixture:
    """The exact denoiser of a Gaussian mixture.

    Args:
        weights: (K,), positive; normalised here.
        means: (K, D...); a state is (B, D...).
        variances: diagonal, broadcastable to (K, D...).
        covariances: full, (K, d, d), for means of shape (K, d).

    Returns:
        A denoiser for `fd.sample`; at sigma = 0 it returns x / alpha.

    Raises:
        ValueError: shapes that disagree, weights or variances that are not positive.

    Example:
        >>> model = gaussian_mixture([0.5, 0.5], [[-1.0], [1.0]], 0.01)
    """
    w, m = np.asarray(weights, np.float64), np.asarray(means, np.float64)
    if w.ndim != 1 or m.ndim < 1 or m.shape[0] != w.shape[0]:
        raise ValueError(
            f"weights must be (K,) and means (K, ...), got {w.shape} and {m.shape}."
        )
    if not (w.size and (w > 0).all()):
        raise ValueError(f"weights must be > 0, got {w.tolist()}.")
    if (variances is None) == (covariances is None):
        raise ValueError("give either variances or covariances.")
    vectors = None
    if covariances is None:
        spectrum = np.asarray(variances, np.float64)
        if not broadcasts(spectrum, m.shape):
            raise must("variances", f"to broadcast to the means' {m.shape}", variances)
        spectrum = np.broadcast_to(spectrum, m.shape).copy()
    else:
        full = np.asarray(covariances, np.float64)
        if m.ndim != 2 or full.shape != (*m.shape, m.shape[1]):
            raise ValueError(
                f"covariances must be (K, d, d) for means (K, d), got {full.shape} "
                f"and {m.shape}."
            )
        if not np.allclose(full, np.swapaxes(full, 1, 2)):
            raise ValueError("covariances must be symmetric.")
        spectrum, vectors = np.linalg.eigh(full)
    if not (spectrum > 0).all():
        raise ValueError(
            f"variances (or eigenvalues) must be > 0, got {spectrum.min()}."
        )
    return Mixture(np.log(w / w.sum()), m, spectrum, vectors)


@checked
def gaussian(
    mean: Finite = 0.0,
    variance: Finite | None = None,
    *,
    covariance: Finite | None = None,
) -> Mixture:
    """The exact denoiser of Gaussian data N(mean, variance or covariance).

    Args:
        mean: scalar for every element alike, or (D...).
        variance: scalar or (D...); None and no covariance: 1.
        covariance: full, (d, d), for a mean of shape (d,).
    """
    if covariance is not None:
        if variance is not None:
            raise ValueError("give either variance or covariance.")
        covariance = np.asarray(covariance, np.float64)
        mean = np.broadcast_to(np.asarray(mean, np.float64), covariance.shape[:1])
        return gaussian_mixture([1.0], mean[None], covariances=covariance[None])
    variance = 1.0 if variance is None else variance
    m, v = np.broadcast_arrays(*(np.asarray(w, np.float64) for w in (mean, variance)))
    return gaussian_mixture([1.0], m[None], v[None])
