"""Raw network of the embedded digits model and its preconditioning.

The model does not know the diffusion process.  With the data mean ``m`` and
standard deviation ``s_d`` (scalars), a point ``x = alpha * x0 + sigma * eps``
is rotated onto the unit circle,

    r = sqrt(alpha^2 s_d^2 + sigma^2),   y = (x - alpha m) / r = c z + s eps,
    c = alpha s_d / r = cos(theta),      s = sigma / r = sin(theta),

where ``z = (x0 - m) / s_d`` has unit variance.  The network sees ``(y, theta)``
only, so one set of weights serves every Gaussian path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..typing import Array

DATA_MEAN = -0.388  # mean of the training pixels, scaled to [-1, 1]
DATA_STD = 0.753  # their standard deviation
NUM_CLASSES = 10
NULL_LABEL = 10  # the label of the unconditional model

_GRID = 4  # patches per side
_PATCH = 2  # pixels per patch side
_FREQS = 8

NetApply = Callable[[Array, Array, Array], Array]


class Dense(nnx.Module):
    """``x W + b`` with the parameters cast to the dtype of ``x``."""

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs, gain: float = 1.0):
        """Draw ``W ~ gain * N(0, 1 / d_in)``; a gain of 0 gives a zero layer."""
        w = jax.random.normal(rngs.params(), (d_in, d_out), jnp.float32)
        self.kernel = nnx.Param(w * np.float32(gain / np.sqrt(d_in)))
        self.bias = nnx.Param(jnp.zeros((d_out,), jnp.float32))

    def __call__(self, x: Array) -> Array:
        """Apply the layer to the last axis."""
        # One flat matrix product: on CPU its gradient is several times faster
        # than that of a contraction over the last of many axes.
        y = x.reshape(-1, x.shape[-1]) @ self.kernel[...].astype(x.dtype)
        y = y + self.bias[...].astype(x.dtype)[None, :]
        return y.reshape(*x.shape[:-1], -1)


class Conv3x3(nnx.Module):
    """Zero-padded 3 x 3 convolution of ``x`` (H, W, B, d) as one matrix product.

    Space leads and the batch follows, so a shift is a plain slice.  XLA's own
    convolution is very slow inside loops on CPU.
    """

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs):
        """Create the dense layer from the nine shifted inputs."""
        self.dense = Dense(9 * d_in, d_out, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Return the convolution, shape (H, W, B, d_out)."""
        h, w = x.shape[:2]
        pad = jnp.pad(x, ((1, 1), (1, 1), (0, 0), (0, 0)))
        shifts = [pad[i : i + h, j : j + w] for i in range(3) for j in range(3)]
        return self.dense(jnp.concatenate(shifts, axis=-1))


def _film(x: Array, scale: Array, shift: Array) -> Array:
    """``norm(x) * (1 + scale) + shift``, layer norm over the last axis."""
    x = x - x.mean(-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)
    return x * (1 + scale) + shift


def _drop_channels(x: Array, rate: float, key: Array | None) -> Array:
    """Inverted dropout of whole channels of ``x`` (H, W, B, d); needs a key."""
    if key is None or rate == 0.0:
        return x
    keep = jax.random.bernoulli(key, 1.0 - rate, (1, 1, *x.shape[2:]))
    return jnp.where(keep, x / (1.0 - rate), jnp.zeros_like(x))


class Block(nnx.Module):
    """Residual block: two 3 x 3 convolutions, each after FiLM and SiLU."""

    def __init__(self, dim: int, d_cond: int, *, rngs: nnx.Rngs):
        """Create the layers; the zero gate makes the block start as identity."""
        self.film = Dense(d_cond, 5 * dim, rngs=rngs, gain=0.0)
        self.conv1 = Conv3x3(dim, dim, rngs=rngs)
        self.conv2 = Conv3x3(dim, dim, rngs=rngs)

    def __call__(
        self, x: Array, cond: Array, rate: float = 0.0, key: Array | None = None
    ) -> Array:
        """Map ``x`` (H, W, B, dim) under the condition ``cond`` (B, d_cond)."""
        film = self.film(cond)[None, None]
        scale1, shift1, scale2, shift2, gate = jnp.split(film, 5, axis=-1)
        h = self.conv1(jax.nn.silu(_film(x, scale1, shift1)))
        h = jax.nn.silu(_film(h, scale2, shift2))
        return x + gate * self.conv2(_drop_channels(h, rate, key))


class DigitsNet(nnx.Module):
    """A residual network on the 4 x 4 grid of 2 x 2 patches of an image."""

    def __init__(
        self, *, rngs: nnx.Rngs, dim: int = 64, depth: int = 4, d_cond: int = 96
    ):
        """Create the layers; the output layer starts at zero."""
        self.embed = Dense(_PATCH * _PATCH, dim, rngs=rngs)
        pos = jax.random.normal(rngs.params(), (_GRID, _GRID, dim), jnp.float32)
        self.pos = nnx.Param(0.5 * pos)
        table = jax.random.normal(rngs.params(), (NUM_CLASSES + 1, d_cond), jnp.float32)
        self.labels = nnx.Param(table)
        self.theta1 = Dense(2 * _FREQS + 2, d_cond, rngs=rngs)
        self.theta2 = Dense(d_cond, d_cond, rngs=rngs)
        self.blocks = nnx.List([Block(dim, d_cond, rngs=rngs) for _ in range(depth)])
        self.film = Dense(d_cond, 2 * dim, rngs=rngs, gain=0.0)
        self.head = Dense(dim, _PATCH * _PATCH, rngs=rngs, gain=0.0)

    def __call__(
        self,
        x: Array,
        theta: Array,
        label: Array,
        *,
        dropout: float = 0.0,
        key: Array | None = None,
    ) -> Array:
        """Return ``F(x, theta, label)``, all computed in the dtype of ``x``.

        Args:
            x: Rotated images ``y``, shape (B, 8, 8, 1).
            theta: Noise angles in [0, pi / 2], shape (B,).
            label: Integers 0..9, or 10 for no condition, shape (B,).
            dropout: Dropout rate in the blocks, used with ``key`` only.
            key: Random key; given in training only.

        Returns:
            The estimate of ``s z - c eps``, shape (B, 8, 8, 1).
        """
        cond = self._condition(theta.astype(x.dtype), label)
        h = self.embed(_to_patches(x))
        h = h + self.pos[...].astype(x.dtype)[:, :, None, :]
        for i, block in enumerate(self.blocks):
            sub = None if key is None else jax.random.fold_in(key, i)
            h = block(h, cond, dropout, sub)
        scale, shift = jnp.split(self.film(cond)[None, None], 2, axis=-1)
        return _from_patches(self.head(_film(h, scale, shift)))

    def _condition(self, theta: Array, label: Array) -> Array:
        """Embed the noise angle and the label, shape (B, d_cond)."""
        h = self.theta2(jax.nn.silu(self.theta1(_theta_features(theta))))
        return jax.nn.silu(h + self.labels[...].astype(theta.dtype)[label])


def _theta_features(theta: Array) -> Array:
    """Cosines of ``log tan(theta)``, clipped, with ``cos`` and ``sin`` of theta.

    The cosine series resolves small noise; cos and sin stay informative where
    the logarithm is clipped (no noise, and ``alpha = 0``).
    """
    # The floor bounds the logarithm by +-6.9 and keeps its derivative finite.
    floor = jnp.asarray(1e-3, theta.dtype)
    cos, sin = jnp.cos(theta), jnp.sin(theta)
    u = jnp.log(jnp.maximum(sin, floor)) - jnp.log(jnp.maximum(cos, floor))
    k = jnp.arange(1, _FREQS + 1, dtype=theta.dtype)[None, :]
    phase = k * (np.pi / 14.0) * (u[:, None] + 7.0)
    both = jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], axis=-1)
    return jnp.concatenate([both, cos[:, None], sin[:, None]], axis=-1)


def _to_patches(x: Array) -> Array:
    """(B, 8, 8, 1) -> (4, 4, B, 4)."""
    x = x.reshape(-1, _GRID, _PATCH, _GRID, _PATCH)
    return x.transpose(1, 3, 0, 2, 4).reshape(_GRID, _GRID, -1, _PATCH * _PATCH)


def _from_patches(x: Array) -> Array:
    """(4, 4, B, 4) -> (B, 8, 8, 1)."""
    x = x.reshape(_GRID, _GRID, -1, _PATCH, _PATCH)
    return x.transpose(2, 0, 3, 1, 4).reshape(-1, 8, 8, 1)


def _broadcast(v: float | Array, x: Array) -> Array:
    """Give ``v`` (scalar, (B,) or rank of ``x``) shape (B, 1, 1, 1) or (1, ...)."""
    v = jnp.asarray(v, x.dtype)
    if v.ndim == x.ndim:
        return v
    return v.reshape((-1,) + (1,) * (x.ndim - 1))


def data_prediction(
    net_apply: NetApply,
    x: Array,
    alpha: float | Array,
    sigma: float | Array,
    label: Array,
) -> Array:
    """Denoise ``x = alpha x0 + sigma eps`` with ``F = net_apply(y, theta, label)``.

        D(x; alpha, sigma, label) = m + s_d (c y + s F(y, theta, label)),

    which is ``(alpha s_d^2 x + sigma^2 m) / r^2 + (sigma s_d / r) F`` in the
    module's symbols: finite at ``alpha = 0`` and ``x / alpha`` at ``sigma = 0``.

    Args:
        net_apply: The network, ``(y, theta (B,), label (B,)) -> F``.
        x: Noisy images, shape (B, 8, 8, 1).
        alpha: Signal scale; scalar, (B,) or (B, 1, 1, 1).
        sigma: Noise scale; scalar, (B,) or (B, 1, 1, 1).
        label: Integers 0..10, shape (B,).

    Returns:
        The estimate of ``E[x0 | x]``, shape and dtype of ``x``.
    """
    alpha, sigma = _broadcast(alpha, x), _broadcast(sigma, x)
    signal = alpha * DATA_STD
    r = jnp.sqrt(jnp.square(signal) + jnp.square(sigma))
    y = (x - alpha * DATA_MEAN) / r
    theta = jnp.broadcast_to(jnp.arctan2(sigma, signal).reshape(-1), x.shape[:1])
    f = net_apply(y, theta, label)
    return DATA_MEAN + DATA_STD * (signal / r * y + sigma / r * f)


def to_flat(state: nnx.State) -> dict[str, np.ndarray]:
    """Name every array of ``nnx.state(net)`` by its path, joined with dots."""
    return {
        ".".join(map(str, path)): np.asarray(leaf[...])
        for path, leaf in nnx.to_flat_state(state)
    }


def from_flat(flat: Mapping[str, np.ndarray]) -> nnx.State:
    """Invert :func:`to_flat`: float32 parameters for ``nnx.update(net, ...)``."""
    return nnx.from_flat_state(
        [
            (
                tuple(int(p) if p.isdigit() else p for p in name.split(".")),
                nnx.Param(jnp.asarray(value, jnp.float32)),
            )
            for name, value in flat.items()
        ]
    )
