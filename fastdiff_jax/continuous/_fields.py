"""Vector fields of the diffusion terms, and the variables they run over."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, in_domain
from ..hooks import answer, carry_of
from ..numerics import check_times
from ..plan import Level
from ..states import like_state, real_dtype
from ..typing import Array, Context, Denoiser, Process, PyTree
from ._clock import clock_of, level, level_at
from .semilinear import real_like

__all__ = [
    "VARIABLES",
    "Denoised",
    "Kick",
    "PathClock",
    "Velocity",
    "interval",
    "known",
]

VARIABLES = ("half_log_snr", "asinh_snr", "time")


class PathClock(eqx.Module):
    """The state's scale as a clock (`SemilinearTerm`) in one of the variables.

    s is the variable itself; m is alpha in half log-SNR and sqrt(alpha^2 + sigma^2) in
    asinh(alpha / sigma).
    """

    process: Process
    variable: str = eqx.field(static=True)

    def forward(self, t: float | Array) -> Array:
        """The variable."""
        return jnp.asarray(t)

    def inverse(self, s: float | Array) -> Array:
        """The same."""
        return jnp.asarray(s)

    def scale(self, t: float | Array) -> Array:
        """What x is measured in."""
        at = self.level(t)
        if self.variable == "half_log_snr":
            return at.alpha
        return jnp.hypot(at.alpha, at.sigma)

    def rates(self, t: float | Array) -> tuple[Array, Array]:
        """1, and the logarithmic rate of the scale per unit of the variable."""
        at = self.level(t)
        up, down = self.process.rates(at.time)
        one = jnp.ones_like(at.alpha)
        if self.variable == "half_log_snr":
            # dlambda/dt = up / alpha - down / sigma, times alpha sigma
            speed = up * at.sigma - at.alpha * down
            return one, up * at.sigma / speed
        r = jnp.hypot(at.alpha, at.sigma)
        speed = (up * at.sigma - at.alpha * down) / (at.sigma * r)
        return one, (at.alpha * up + at.sigma * down) / r**2 / speed

    def level(self, t: float | Array) -> Level:
        """Time, alpha and sigma where the variable is t."""
        t = jnp.asarray(t)
        if self.variable == "time":
            return Level(*level(self.process, t))
        if self.variable == "asinh_snr":
            return level_at(self.process, t, self.process.domain)
        return Level(*level(self.process, self.process.half_log_snr_inverse(t)))


class Denoised(eqx.Module):
    """gain D(x) as a vector field (t, x, args), for t one of the variables."""

    path: PathClock
    denoiser: Denoiser
    gain: float | Array = 1.0
    condition: PyTree = None
    controls: PyTree = None

    def __call__(self, t: float | Array, x: PyTree, args: Any) -> PyTree:
        """N: the data prediction, in v with the rest of the linear part."""
        del args
        at = self.path.level(t)
        found = self.at(at, x)
        if self.path.variable != "asinh_snr":
            return jax.tree.map(lambda d: real_like(self.gain, d) * d, found)
        # dy/dv = -y + [D + (1 - tanh v) y], y = x / r
        r = jnp.hypot(at.alpha, at.sigma)
        rest = (1 - at.alpha / r) / r
        return jax.tree.map(lambda d, v: d + real_like(rest, v) * v, found, x)

    def at(self, at: Level, x: PyTree) -> PyTree:
        """The data prediction."""
        carry = carry_of(self.denoiser, x)
        if jax.tree.leaves(carry):
            raise ValueError(
                "diffrax needs a denoiser without a memory: it evaluates at trial "
                "points. Remove the wrapper that keeps a carry."
            )
        at = Level(*(jnp.asarray(w, real_dtype(x)) for w in at))
        context = Context(0, *at, self.controls, self.condition)
        return like_state(x, answer(self.denoiser, x, context, carry)[0])


class Velocity(eqx.Module):
    """alpha' D + sigma' (x - alpha D) / sigma."""

    denoised: Denoised

    def __call__(self, t: float | Array, x: PyTree, args: Any) -> PyTree:
        """dx/dt."""
        del args
        at = self.denoised.path.level(t)
        up, down = self.denoised.path.process.rates(at.time)
        keep, gain = down / at.sigma, up - down * at.alpha / at.sigma

        def leaf(v: Array, d: Array) -> Array:
            return real_like(keep, v) * v + real_like(gain, v) * d

        return jax.tree.map(leaf, x, self.denoised.at(at, x))


class Kick(eqx.Module):
    """tau sqrt(2) sigma as a function of half log-SNR."""

    path: PathClock
    tau2: float | Array

    def __call__(self, t: float | Array) -> Array:
        at = self.path.level(t)
        return jnp.sqrt(2 * jnp.asarray(self.tau2, at.sigma.dtype)) * at.sigma


@checked
def interval(
    process: Process,
    start: float | None = None,
    end: float | None = None,
    *,
    variable: str = "half_log_snr",
) -> tuple[float, float]:
    """The ends of an integration from noise to data, in a variable.

    Args:
        process: the path.
        start, end: times, None for the process' own.
        variable: as in `probability_flow`.

    Returns:
        (t0, t1) for `diffrax.diffeqsolve`.

    Raises:
        ValueError: an unknown variable, or one that is infinite at an end; times that
            do not fall, or leave the process' domain.

    Example:
        >>> import fastdiff_jax as fd
        >>> t0, t1 = interval(fd.processes.edm())
        >>> round(t0, 3), round(t1, 3)
        (-4.382, 6.215)
    """
    known(variable)
    in_domain(process, start=start, end=end)
    start = process.start if start is None else start
    end = process.end if end is None else end
    times = np.asarray([start, end], np.float64)
    check_times(process, times, "[start, end]", strict=True)
    if variable == "half_log_snr":
        ends = process.half_log_snr(times)
    else:
        ends = clock_of(process, times) if variable == "asinh_snr" else times
    for name, time, value in zip(("start", "end"), times, ends, strict=True):
        if not math.isfinite(value):
            fix = " (or variable='asinh_snr', for the ODE)" if name == "start" else ""
            raise ValueError(
                f"{variable} is {value} at {name}={time:g}. Move {name} inside{fix}."
            )
    return float(ends[0]), float(ends[1])


def known(variable: str) -> None:
    if variable not in VARIABLES:
        raise ValueError(
            f"variable must be one of {', '.join(VARIABLES)}; got {variable!r}."
        )
