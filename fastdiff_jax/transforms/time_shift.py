"""Time-Shift sampler: evaluate each sample at the time its own variance speaks for.

    tau* = argmin over |tau - t| <= window / 2 of (var(x) - (a^2(tau) v_0 + s^2(tau)))^2

where a, s are alpha, sigma and v_0 is the data's variance (0 as published). Li et al.
2024 (2305.15583). Two readings of "shift" exist. The paper evaluates the
model at tau* and steps from there: x_t = alpha_t D* + sigma_t E* with D*, E* of
(x, tau*). Its code keeps the evaluation and the current level nominal, and aims the
step at tau* near the next time instead. This file is the paper's: a transform of the
denoiser. The code's reading moves the target of the update, a weight of the plan, by
sample, and is not offered.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, within
from ..hooks import Wrapped
from ..states import real_dtype
from ..trees import pytree
from ..typing import Array, ArrayLike, Context, Denoiser, Process, PyTree

__all__ = ["TimeShifted", "time_shift"]


@pytree
class TimeShifted(Wrapped):
    """A denoiser that is told, sample by sample, a time that fits the variance."""

    inner: Any
    process: Any
    window: Any
    cutoff: Any
    data_variance: Any
    candidates: int = dataclasses.field(default=33, metadata={"static": True})
    outputs: bool = dataclasses.field(default=False, metadata={"static": True})

    def __call__(
        self, x: PyTree, context: Context, carry: PyTree
    ) -> tuple[PyTree, PyTree]:
        """The prediction D* at the shifted time, or (D*, what carries its noise)."""
        time = self.times(x, context)
        told = time.reshape(time.shape + (1,) * (jax.tree.leaves(x)[0].ndim - 1))
        level = (self.process.alpha(told), self.process.sigma(told))
        shifted = context._replace(
            time=told,
            alpha=level[0],
            sigma=level[1],
            controls=self._controls(time, context),
        )
        out, carry = self.inner(x, shifted, carry)
        if not self.outputs:
            return out, carry
        own = (jnp.asarray(context.alpha), jnp.asarray(context.sigma))
        noise = jax.tree.map(lambda v, d: _same_noise(v, d, level, own), x, out)
        return (out, noise), carry

    def times(self, x: PyTree, context: Context) -> Array:
        """The time of each sample, (B,)."""
        leaves = jax.tree.leaves(x)
        batch, dtype = leaves[0].shape[0], leaves[0].real.dtype
        size = sum(v.size // batch for v in leaves)
        if size < 2 or len({v.ndim for v in leaves}) > 1 or jnp.ndim(context.time):
            raise ValueError(
                "time_shift needs samples of two elements or more, leaves (B, ...) of "
                f"one rank and one time per row; got {[v.shape for v in leaves]} at "
                f"times of shape {jnp.shape(context.time)}."
            )
        flat = [v.reshape(batch, -1).astype(dtype) for v in leaves]
        variance = jnp.concatenate(flat, axis=1).var(axis=1)
        cast = lambda v: jnp.asarray(v, dtype)  # noqa: E731
        now, process = cast(context.time), self.process
        places = np.linspace(-0.5, 0.5, self.candidates)
        places = places[np.argsort(np.abs(places), kind="stable")]  # ties: stay
        low = jnp.minimum(cast(process.end), now)
        high = jnp.maximum(cast(process.start), now)
        taus = jnp.clip(now + cast(self.window) * cast(places), low, high)
        wanted = (
            process.alpha(taus) ** 2 * cast(self.data_variance)
            + process.sigma(taus) ** 2
        )
        best = taus[jnp.argmin(jnp.abs(variance[:, None] - wanted[None]), axis=1)]
        act = (now > cast(self.cutoff)) & (jnp.asarray(context.index) > 0)
        return jnp.where(act, best, now)

    def _controls(self, time: Array, context: Context) -> PyTree:
        """The network's own clock at the shifted times, (B,), for `fd.models`."""
        controls = context.controls
        if controls is not None and not isinstance(controls, dict):
            return controls
        told = self.process.model_time(time)
        controls = {} if controls is None else controls
        if "model_time" in controls:  # the caller's clock holds where nothing moved
            stay = time == jnp.asarray(context.time, time.dtype)
            told = jnp.where(
                stay, jnp.asarray(controls["model_time"], time.dtype), told
            )
        return {**controls, "model_time": told}

    @property
    def gives(self) -> tuple[str, ...] | None:
        """With `outputs`, the prediction that tells the noise's direction as well."""
        return ("data", "direction") if self.outputs else super().gives


def _same_noise(x: Array, data: Array, there: tuple, here: tuple) -> Array:
    """The data prediction that has, at the row's own level, the noise E* found at tau*.

    E* = (x - alpha_tau D*) / sigma_tau, D' = (x - sigma_s E*) / alpha_s.
    """
    alpha, sigma = (v.astype(real_dtype(x)) for v in there)
    a, s = (v.astype(real_dtype(x)) for v in here)
    noise = (x - alpha * data) / sigma
    nowhere = a == 0  # the first row, never shifted
    return jnp.where(nowhere, data, (x - s * noise) / jnp.where(nowhere, 1.0, a))


@checked
def time_shift(
    denoiser: Denoiser,
    process: Process,
    *,
    window: float,
    cutoff: float,
    data_variance: ArrayLike = 0.0,
    candidates: int = 33,
    outputs: bool = False,
) -> TimeShifted:
    """Shift the time of each evaluation to what the sample's variance says.

    The inner denoiser sees time, alpha and sigma of shape (B, 1, ...), and
    controls["model_time"] of shape (B,); its prediction D* is handed on as it is. With
    a solver in data prediction that keeps the clean estimate; for the paper's step use
    `outputs=True` under `fd.solvers.ddim(..., second_noise=True)`, which also keeps
    the noise estimate: x_t = alpha_t D* + sigma_t E*.

    Order means nothing here. Put guidance outside: `cfg(time_shift(model, ...), ...)`.

    Args:
        denoiser: the denoiser; states (B, ...) of two elements or more each.
        process: the path, to read alpha and sigma at other times.
        window: full width, in the process' time. Published: 5 to 30 of 1000 labels.
        cutoff: only at times above it. Published: 300 to 900 of 1000 labels. The
            first row is never shifted.
        data_variance: v_0, 0 as published; a path with sigma beyond 1 needs none, a VP
            path of unit-variance data has the same variance at all times.
        candidates: how many times are compared, odd, the row's own among them.
        outputs: return (D*, D') where D' has the noise E* at the row's own level.

    Raises:
        ValueError: a window <= 0, or an even or too small number of candidates.

    Example:
        >>> import fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> model = fd.models.gaussian(0.0, 0.1)
        >>> shifted = time_shift(model, process, window=0.03, cutoff=0.3)
    """
    within("(0, inf)", window=window)
    within("[0, inf)", data_variance=data_variance)
    if candidates < 3 or candidates % 2 == 0:
        raise ValueError(f"candidates must be odd and >= 3, got {candidates}.")
    return TimeShifted(
        denoiser, process, window, cutoff, data_variance, candidates, outputs
    )
