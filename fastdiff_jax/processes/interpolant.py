"""Stochastic interpolants: a bridge with noise between two laws.

    x_t = a(t) x_0 + b(t) x_1 + gamma(t) z

The data x_0 stand at t = 0, as in every process here; x_1, at t = 1, is whatever the
bridge starts from: another data set, a degraded input, noise. Each end may come with
any coupling. One-sided paths have b = 0 and gamma = 1 - a: Gaussian noise at t = 1.

Albergo, Boffi & Vanden-Eijnden 2023 (2303.08797); there the time of x_0 and x_1 is the
same and sampling runs from x_0 to x_1. `fd.solvers.interpolant` runs either way.
"""

import math
from typing import Any, Literal

from ..guards import checked
from ..numerics import as_float
from ..typing import Array, ArrayLike
from .common import positive, register

__all__ = ["interpolant"]

Path = Literal["linear", "trigonometric", "one_sided"]
Gamma = Literal["sqrt", "parabola", "sin2", "zero"]


@register("scale")
class Interpolant:
    """x_t = a x_0 + b x_1 + gamma z; made by `interpolant`."""

    scale: Any
    path: str
    noise: str
    start = 1.0
    end = 0.0
    clean = 0.0
    domain = (0.0, 1.0)

    def alpha(self, t: ArrayLike) -> Array:
        """a: weight of the data x_0, 1 at t = 0."""
        xp, (t,) = as_float(t)
        if self.path == "trigonometric":
            return xp.sin(math.pi / 2 * (1 - t))  # exactly 0 at t = 1
        return 1 - t

    def beta(self, t: ArrayLike) -> Array:
        """b: weight of the other end x_1."""
        xp, (t,) = as_float(t)
        if self.path == "one_sided":
            return xp.zeros_like(t)
        return xp.sin(math.pi / 2 * t) if self.path == "trigonometric" else t

    def sigma(self, t: ArrayLike) -> Array:
        """Gamma: scale of the noise, exactly 0 at the ends of a two-sided path."""
        xp, (t,) = as_float(t)
        if self.path == "one_sided":
            return t
        if self.noise == "zero":
            return xp.zeros_like(t)
        if self.noise == "sin2":
            return self.scale * xp.sin(math.pi * xp.minimum(t, 1 - t)) ** 2
        inside = t * (1 - t)
        if self.noise == "parabola":
            return self.scale * inside
        safe = xp.where(inside > 0, inside, 1.0)
        return xp.where(inside > 0, xp.sqrt(self.scale * safe), 0.0)

    def rates(self, t: ArrayLike) -> tuple[Array, Array, Array]:
        """da/dt, db/dt, d gamma/dt.

        The square root's own rate is infinite where gamma = 0. It only ever multiplies
        E[z | x], which is 0 there, and is given as 0.
        """
        xp, (t,) = as_float(t)
        one = xp.ones_like(t)
        if self.path == "one_sided":
            return -one, xp.zeros_like(t), one
        d_a, d_b = -one, one
        if self.path == "trigonometric":
            d_a = -math.pi / 2 * xp.sin(math.pi / 2 * t)
            d_b = math.pi / 2 * xp.sin(math.pi / 2 * (1 - t))
        if self.noise == "zero":
            return d_a, d_b, xp.zeros_like(t)
        if self.noise == "sin2":
            return d_a, d_b, self.scale * math.pi * xp.sin(2 * math.pi * t)
        if self.noise == "parabola":
            return d_a, d_b, self.scale * (1 - 2 * t)
        gamma = self.sigma(t)
        safe = xp.where(gamma > 0, gamma, 1.0)
        return d_a, d_b, xp.where(gamma > 0, self.scale * (1 - 2 * t) / (2 * safe), 0.0)

    def model_time(self, t: ArrayLike) -> Array:
        """T: what a network is told."""
        _, (t,) = as_float(t)
        return t


@checked
def interpolant(
    path: Path = "linear", gamma: Gamma = "sqrt", *, scale: float = 1.0
) -> Interpolant:
    """A stochastic interpolant between the data x_0 (t = 0) and x_1 (t = 1).

    Args:
        path: 'linear', a = 1 - t, b = t; 'trigonometric', a = cos(pi t / 2),
            b = sin(pi t / 2); 'one_sided', a = 1 - t, b = 0, gamma = t: the flow path,
            whose x_1 is its noise.
        gamma: 'sqrt', sqrt(scale t (1 - t)), a Brownian bridge of variance `scale`;
            'parabola', scale t (1 - t); 'sin2', scale sin^2(pi t); 'zero', none (the
            rectified flow between two laws). A one-sided path ignores it.
        scale: size of gamma, > 0.

    Raises:
        ValueError: an unknown path or gamma, or scale <= 0.

    Example:
        >>> process = interpolant(scale=0.5)
        >>> process.sigma([0.0, 0.5, 1.0]).round(4).tolist()
        [0.0, 0.3536, 0.0]

    Reference: Albergo et al. 2023 (2303.08797), section 4.
    """
    positive(scale=scale)
    return Interpolant(scale, path, gamma)
