"""The compiled inner work of `statistics.estimate`: all nodes for one batch of data."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .hooks import carry_of
from .typing import Array, Context, Denoiser, Key, Process, PyTree

__all__ = ["Run", "slope_over_nodes"]


def slope_over_nodes(table: np.ndarray, lam: np.ndarray, smooth: int) -> np.ndarray:
    """Slope over nodes: central differences, then a mean over +- `smooth` nodes."""
    slope = np.gradient(table, lam, axis=0, edge_order=2)
    n = len(lam)
    total = np.concatenate([np.zeros_like(slope[:1]), np.cumsum(slope, axis=0)])
    first = np.maximum(np.arange(n) - smooth, 0)
    last = np.minimum(np.arange(n) + smooth + 1, n)
    width = (last - first).reshape((-1,) + (1,) * (table.ndim - 1))
    return (total[last] - total[first]) / width


class Run:
    """The compiled inner work: all nodes for one batch of data."""

    def __init__(
        self,
        denoiser: Denoiser,
        process: Process,
        data: np.ndarray,
        lam: np.ndarray,
        key: Key,
        batch: int,
        controls: PyTree,
    ):
        if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            key = jax.random.wrap_key_data(key)
        self.denoiser, self.data, self.lam = denoiser, data, lam
        self.key, self.batch, self.controls = key, batch, controls
        dtype = np.promote_types(data.dtype, np.float32)
        self.dtype = jax.dtypes.canonicalize_dtype(dtype)
        time = process.half_log_snr_inverse(lam)
        alpha, sigma = process.alpha(time), process.sigma(time)
        d_alpha, d_sigma = process.rates(time)
        clock = 1 / (d_alpha / alpha - d_sigma / sigma)  # dt / d lambda
        rates = (clock, d_alpha * clock, d_sigma * clock)
        self.levels = tuple(
            jnp.asarray(np.stack(v, axis=1), self.dtype)
            for v in ((time, alpha, sigma), rates)
        )
        # a denoiser that is a pytree is an argument, not a constant of the program
        self.argument = not jax.tree_util.all_leaves([denoiser])
        self.compiled = jax.jit(self._slope), jax.jit(self._moments)

    def fingerprint(self, smooth: int) -> str:
        """What a file of an unfinished run must agree on."""
        digest = hashlib.sha256()
        leaves = jax.tree.leaves(
            (self.denoiser if self.argument else None, self.controls)
        )
        for leaf in (self.data, self.lam, jax.random.key_data(self.key), *leaves):
            array = np.asarray(leaf)
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
        return f"{digest.hexdigest()} batch={self.batch} smooth={smooth}"

    def slope(self, number: int) -> tuple[int, np.ndarray]:
        """(samples, mean of 1 - l over them)."""
        size, arguments = self._batch(number)
        return size, np.asarray(self.compiled[0](*arguments), np.float64)

    def moments(
        self, number: int, gain: np.ndarray, rate: np.ndarray
    ) -> tuple[int, dict[str, np.ndarray]]:
        """(samples, moments of f and f' over them)."""
        size, arguments = self._batch(number)
        tables = (jnp.asarray(gain, self.dtype), jnp.asarray(rate, self.dtype))
        found = self.compiled[1](*arguments, *tables)
        return size, {k: np.asarray(v, np.float64) for k, v in found.items()}

    def _batch(self, number: int) -> tuple[int, tuple]:
        """(samples, (denoiser, samples, their numbers, their weights)).

        The last batch is filled up with weight 0, so that one program serves all.
        """
        count = len(self.data)
        index = np.arange(number * self.batch, (number + 1) * self.batch)
        size = int((index < count).sum())
        weight = jnp.asarray((index < count) / size, self.dtype)
        index = np.minimum(index, count - 1)
        x0 = jnp.asarray(self.data[index], self.dtype)
        denoiser = self.denoiser if self.argument else None
        return size, (denoiser, x0, index, weight)

    def _noise(self, index: Array, x0: Array) -> tuple[Array, Array]:
        """Standard normal z and random signs v, one stream per sample."""

        def draw(i: Array) -> tuple[Array, Array]:
            z_key, v_key = jax.random.split(jax.random.fold_in(self.key, i))
            shape = x0.shape[1:]
            signs = jax.random.rademacher(v_key, shape, self.dtype)
            return jax.random.normal(z_key, shape, self.dtype), signs

        return jax.vmap(draw)(index)

    def _predict(self, denoiser: Any, x: Array, level: Array) -> Array:
        denoiser = self.denoiser if denoiser is None else denoiser
        context = Context(jnp.int32(0), level[0], level[1], level[2], self.controls)
        found, _ = denoiser(x, context, carry_of(denoiser, x))
        return found.astype(x.dtype)

    def _slope(self, denoiser: Any, x0: Array, index: Array, weight: Array) -> Array:
        z, v = self._noise(index, x0)

        def node(level: Array) -> Array:
            x = level[1] * x0 + level[2] * z
            predict = lambda x: self._predict(denoiser, x, level)  # noqa: E731
            _, tangent = jax.jvp(predict, (x,), (v,))
            return level[1] * jnp.tensordot(weight, tangent * v, 1)

        return jax.lax.map(node, self.levels[0])

    def _moments(
        self,
        denoiser: Any,
        x0: Array,
        index: Array,
        weight: Array,
        gain: Array,
        rate: Array,
    ) -> dict[str, Array]:
        z, _ = self._noise(index, x0)
        mean = lambda value: jnp.tensordot(weight, value, 1)  # noqa: E731

        def node(each: tuple[Array, Array, Array, Array]) -> dict[str, Array]:
            level, d_level, gain, rate = *each[:2], each[2][None], each[3][None]
            alpha, sigma = level[1], level[2]
            x = alpha * x0 + sigma * z
            found, derivative = jax.linearize(
                lambda x, level: self._predict(denoiser, x, level), x, level
            )
            u = x / alpha
            flow = found - u  # du / d lambda
            d_found = derivative(d_level[1] * u + alpha * flow, d_level)
            f = gain * u - found
            df = gain * flow - rate * u - d_found
            mean_f, mean_df = mean(f), mean(df)
            return {
                "f": mean_f,
                "df": mean_df,
                "var": mean((f - mean_f[None]) ** 2),
                "cov": mean((f - mean_f[None]) * (df - mean_df[None])),
                # what rounding alone would leave of the variance
                "floor": mean(found**2 + (gain * u) ** 2)
                * (64 * jnp.finfo(self.dtype).eps) ** 2,
            }

        return jax.lax.map(node, (*self.levels, gain, rate))
