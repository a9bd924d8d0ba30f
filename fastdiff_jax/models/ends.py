"""Denoisers of stochastic interpolants: pairs (E[x_0 | x], E[x_1 | x])."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked
from ..states import align
from ..trees import pytree
from ..typing import Array, Bridge, Context, Finite, PyTree

__all__ = ["GaussianEnds", "VelocityEnds", "from_velocity", "gaussian_ends"]


@pytree
class VelocityEnds:
    """A velocity and a noise prediction as the two ends; made by `from_velocity`."""

    gives: ClassVar[tuple[str, ...]] = ("data", "other_end")

    process: Any
    params: PyTree
    fn: Callable = dataclasses.field(metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[tuple[PyTree, PyTree], PyTree]:
        """(D_0, D_1) at x."""
        time = jnp.asarray(context.time)
        args = [] if self.params is None else [self.params]
        velocity, noise = self.fn(*args, x, self.process.model_time(time))
        a, b, gamma = (
            f(time) for f in (self.process.alpha, self.process.beta, self.process.sigma)
        )
        d_a, d_b, d_gamma = self.process.rates(time)
        det = a * d_b - b * d_a

        def ends(x: Array, v: Array, z: Array) -> tuple[Array, Array]:
            w = lambda value: jnp.asarray(value, x.dtype)  # noqa: E731
            place, speed = x - w(gamma) * z, v - w(d_gamma) * z
            return (
                w(d_b / det) * place - w(b / det) * speed,
                w(a / det) * speed - w(d_a / det) * place,
            )

        pairs = jax.tree.map(ends, x, velocity, noise)
        return jax.tree.transpose(
            jax.tree.structure(x), jax.tree.structure((0, 0)), pairs
        ), carry


@checked
def from_velocity(
    fn: Callable, process: Bridge, *, params: PyTree = None
) -> VelocityEnds:
    """The two ends from a network of the velocity and the noise.

    x = a D_0 + b D_1 + gamma eta and v = a' D_0 + b' D_1 + gamma' eta are two linear
    equations for the ends.

    Args:
        fn: fn([params,] x, t) -> (v, eta), trees like x: v = E[dx/dt | x], in the
            process' own clock (towards x_1), eta = E[z | x].
        process: a two-sided `fd.processes.interpolant`.
        params: parameters, a pytree.

    Returns:
        A denoiser for the plans of `fd.solvers.interpolant`.

    Raises:
        ValueError: a one-sided process: its velocity alone gives D_0.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.interpolant()
        >>> model = from_velocity(lambda x, t: (0 * x, 0 * x), process)

    Reference: Albergo et al. 2023 (2303.08797), section 2.
    """
    if getattr(process, "path", None) == "one_sided":
        raise ValueError(
            "a one-sided process has one end only: use processes.flow() and "
            "models.denoiser(fn, process, prediction='velocity')."
        )
    return VelocityEnds(process, params, fn)


@pytree
class GaussianEnds:
    """Exact ends of independent diagonal Gaussians; made by `gaussian_ends`."""

    gives: ClassVar[tuple[str, ...]] = ("data", "other_end")

    process: Any
    means: Any  # (2, D...)
    variances: Any  # (2, D...)

    def __call__(
        self, x: Array, context: Context, carry: PyTree
    ) -> tuple[tuple[Array, ...], PyTree]:
        """(D_0, D_1) at x."""
        time = jnp.asarray(context.time)
        w = lambda value: jnp.asarray(value, x.dtype)  # noqa: E731
        a, b, gamma = (
            w(f(time))
            for f in (self.process.alpha, self.process.beta, self.process.sigma)
        )
        lift = lambda v: align(v, x)  # noqa: E731
        (m0, m1), (v0, v1) = w(self.means), w(self.variances)
        total = a**2 * v0 + b**2 * v1 + gamma**2
        gap = x - lift(a * m0 + b * m1)
        ends = tuple(
            lift(m) + lift(s * v / total) * gap
            for m, v, s in ((m0, v0, a), (m1, v1, b))
        )
        return ends, carry


@checked
def gaussian_ends(process: Bridge, means: Finite, variances: Finite) -> GaussianEnds:
    """The exact pair of predictions for independent Gaussian ends.

    With C = a^2 C_0 + b^2 C_1 + gamma^2: D_i = m_i + (a or b) C_i C^{-1} (x - m).

    Args:
        process: `fd.processes.interpolant(...)`.
        means: of x_0 and x_1, (2, D...) or (2,).
        variances: likewise, >= 0; not both 0 where gamma is.

    Raises:
        ValueError: not two of each, or a negative variance.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.interpolant()
        >>> model = gaussian_ends(process, [2.0, -1.0], [0.5, 1.0])
    """
    m, v = np.asarray(means, np.float64), np.asarray(variances, np.float64)
    if m.shape[:1] != (2,) or v.shape[:1] != (2,):
        raise ValueError(
            f"means and variances must have a leading axis of 2 (x_0, x_1), got shapes "
            f"{m.shape} and {v.shape}."
        )
    if not (v >= 0).all():
        raise ValueError(f"variances must be >= 0, got {v.min():g}.")
    return GaussianEnds(process, *np.broadcast_arrays(m, v))
