"""Denoisers for states with several channels, (B, k, ...): D = E[u_0 | u].

The context of a `gddim` plan holds Psi(t, 0) as alpha and a root R of Sigma_t as sigma,
both (k, k), so u = alpha u_0 + sigma eps reads as on a scalar path.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked
from ..hooks import carry_of
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, Denoiser, Process, PyTree

__all__ = ["Gaussian", "Lifted", "Network", "denoiser", "gaussian", "lift"]

_KINDS = ("data", "noise", "score")


_EXACT = jax.lax.Precision.HIGHEST  # accelerators round products to 10 bits otherwise


def _mix(weight: Any, u: Array) -> Array:
    weight = jnp.asarray(weight, u.dtype)
    return jnp.einsum("ij,bj...->bi...", weight, u, precision=_EXACT)


@pytree
class Network:
    """A network of all channels; made by `denoiser`."""

    params: PyTree
    fn: Callable = dataclasses.field(metadata={"static": True})
    prediction: str = dataclasses.field(metadata={"static": True})

    def __call__(
        self, u: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """E[u_0 | u]."""
        args = [] if self.params is None else [self.params]
        out = self.fn(*args, u, jnp.asarray(context.time))
        if self.prediction == "data":
            return out, carry
        psi, root = (jnp.asarray(v) for v in (context.alpha, context.sigma))
        noise = root
        if self.prediction == "score":
            noise = -jnp.matmul(root, root.T, precision=_EXACT)
        back = jnp.linalg.inv(psi)
        return jax.tree.map(lambda v, e: _mix(back, v - _mix(noise, e)), u, out), carry


@checked
def denoiser(fn: Callable, *, prediction: str, params: PyTree = None) -> Network:
    """A network of an augmented state as a denoiser.

    Args:
        fn: fn([params,] u, t) -> prediction, a tree like u with leaves (B, k, ...).
        prediction: 'score', all k channels of grad log p(u); 'noise', the eps of
            u = Psi u_0 + R eps with the plan's own R (gDDIM's: `process.root(t)`, lower
            triangular at `process.anchor`); or 'data', E[u_0 | u].
        params: parameters, a pytree.

    Returns:
        A denoiser for the plans of `fd.augmented.gddim`.

    Raises:
        ValueError: an unknown prediction.

    Example:
        >>> model = denoiser(lambda u, t: -u, prediction="score")

    Reference: Tweedie's formula; 2206.05564, eq 17.
    """
    if prediction not in _KINDS:
        raise ValueError(
            f"prediction must be one of {', '.join(_KINDS)}; got {prediction!r}."
        )
    return Network(params, fn, prediction)


@pytree
class Gaussian:
    """Exact for Gaussian data; made by `gaussian`."""

    mean: Any
    covariance: Any

    def __call__(self, u: Array, context: Context, carry: PyTree) -> tuple[Array, Any]:
        """E[u_0 | u] = m + C Psi^T (Psi C Psi^T + R R^T)^{-1} (u - Psi m)."""
        w = lambda v: jnp.asarray(v, u.dtype)  # noqa: E731
        psi, root, c = w(context.alpha), w(context.sigma), w(self.covariance)
        dot = lambda a, b: jnp.matmul(a, b, precision=_EXACT)  # noqa: E731
        total = dot(dot(psi, c), psi.T) + dot(root, root.T)
        gain = jnp.linalg.solve(total, dot(psi, c)).T
        fit = lambda m: m.reshape((1, -1) + (1,) * (u.ndim - 2))  # noqa: E731
        mean = w(self.mean)
        return fit(mean) + _mix(gain, u - fit(dot(psi, mean))), carry


@checked
def gaussian(mean: ArrayLike, covariance: ArrayLike) -> Gaussian:
    """The exact denoiser of Gaussian u_0, every position with the same law.

    Args:
        mean: (k,), over the channels.
        covariance: (k, k), positive semi-definite; 0 where a channel is always known,
            such as CLD's velocity, whose start counts as noise.

    Raises:
        ValueError: shapes that disagree, or no covariance.

    Example:
        >>> model = gaussian([1.0, 0.0], [[0.25, 0.0], [0.0, 0.0]])
    """
    m, c = np.asarray(mean, np.float64), np.asarray(covariance, np.float64)
    if m.ndim != 1 or c.shape != (m.size, m.size):
        raise ValueError(
            f"mean must be (k,) and covariance (k, k), got {m.shape} and {c.shape}."
        )
    if not np.allclose(c, c.T) or np.linalg.eigvalsh(c)[0] < -1e-12:
        raise ValueError("covariance must be symmetric, without negative eigenvalue.")
    return Gaussian(m, c)


@pytree
class Lifted:
    """A denoiser of a scalar path, used on channel 0; made by `lift`."""

    inner: Any
    process: Any

    def __call__(self, u: PyTree, context: Context, carry: PyTree) -> tuple[Any, Any]:
        """(E[x_0 | u], 0, ..., 0)."""
        pool, spread = (context.control(k) for k in ("pool", "spread"))
        if pool is None or spread is None:
            raise ValueError(
                "a lifted denoiser reads the controls 'pool' and 'spread' of a gddim "
                "plan; they are missing. Keep them when you pass controls=..., e.g. "
                "{**plan.rows.controls, 'mine': values}."
            )
        pool, spread, controls = (
            jnp.asarray(pool),
            jnp.asarray(spread),
            context.controls,
        )
        alpha, sigma, time = jnp.ones_like(spread), spread, spread
        if self.process is not None:
            time = self.process.half_log_snr_inverse(-jnp.log(spread))
            alpha, sigma = self.process.alpha(time), self.process.sigma(time)
        there = Context(context.index, time, alpha, sigma, controls, context.condition)

        def pooled(v: Array) -> Array:
            weight = (alpha * pool).astype(v.dtype)
            return jnp.einsum("j,bj...->b...", weight, v, precision=_EXACT)

        found, carry = self.inner(jax.tree.map(pooled, u), there, carry)

        def spread_out(v: Array, d: Array) -> Array:
            d = jnp.asarray(d, v.dtype)[:, None]
            return jnp.concatenate([d, jnp.zeros_like(v[:, 1:])], axis=1)

        return jax.tree.map(spread_out, u, found), carry

    def initial_carry(self, u: PyTree) -> PyTree:
        """The inner denoiser's, for the data's own shape."""
        return carry_of(self.inner, jax.tree.map(lambda v: v[:, 0], u))


@checked
def lift(inner: Denoiser, process: Process | None = None) -> Lifted:
    """Any denoiser of x_0 in Gaussian noise, on an SDE with more channels.

    Where the data sit in channel 0 alone, all that u says of x_0 is one number,

        x^ = psi^T Sigma^{-1} u / (psi^T Sigma^{-1} psi) = x_0 + spread * noise,

    psi the first column of Psi(t, 0): the generalised least squares estimate, or the
    residual x - c^T Y over alpha for fractional noise. So E[x_0 | u] = E[x_0 | x^] is
    what a network of an ordinary path gives. Its weights come with the plan.

    Args:
        inner: a denoiser of states (B, ...), without the channel axis.
        process: the path that it was trained on; it is called at the time of the same
            sigma / alpha. None: it is given alpha = 1 and time = sigma, as `edm`.

    Returns:
        A denoiser for the plans of `fd.augmented.gddim`, states (B, k, ...).

    Example:
        >>> import fastdiff_jax as fd
        >>> model = lift(fd.models.gaussian(1.0, 0.25))

    Reference: 2310.17638, section 4 (the residual of fractional noise).
    """
    return Lifted(inner, process)
