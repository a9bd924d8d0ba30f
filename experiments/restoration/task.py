"""The restoration task: blurred, noisy 8 x 8 digits, their process and their network.

y = blur(x_0) + 0.3 noise, and a mean-reverting path from x_0 to y. The network sees
the state and y. With r^2 = alpha^2 s^2 + sigma^2 (s the spread of x_0 - y) and theta
the angle between alpha s and sigma it predicts F, and

    D = y + s (c w / r + s' F),   w = x - y,  c = alpha s / r,  s' = sigma / r,

so that both the input and the target have unit variance at every time.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import fastdiff_jax as fd
from fastdiff_jax.models import _digits_net as dn

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "restoration.safetensors"
# Pixels are in [-1, 1]: twice the published 50/255 for images in [0, 1].
PROCESS = fd.processes.mean_reverting(lambda_inf=100 / 255)
NOISE = 0.3
SPREAD = 0.54  # of x_0 - y over the training images and their noise


def _blur_matrix() -> np.ndarray:
    """(1, 4, 6, 4, 1) / 16 along one axis of 8 pixels, edges repeated."""
    taps, matrix = np.array([1, 4, 6, 4, 1]) / 16, np.zeros((8, 8))
    for i in range(8):
        for j, tap in enumerate(taps):
            matrix[i, min(max(i + j - 2, 0), 7)] += tap
    return matrix.astype(np.float32)


BLUR = _blur_matrix()


def degrade(x: jax.Array, z: jax.Array) -> jax.Array:
    """blur(x) + NOISE z, for images (B, 8, 8, 1)."""
    return jnp.einsum("ij,bjkc,lk->bilc", BLUR, x, BLUR) + NOISE * z


class RestoreNet(nnx.Module):
    """The embedded digits network's blocks on the patches of the state and of y."""

    def __init__(
        self, *, rngs: nnx.Rngs, dim: int = 48, depth: int = 3, d_cond: int = 64
    ):
        self.embed = dn.Dense(8, dim, rngs=rngs)
        pos = jax.random.normal(rngs.params(), (4, 4, dim), jnp.float32)
        self.pos = nnx.Param(0.5 * pos)
        self.theta1 = dn.Dense(18, d_cond, rngs=rngs)
        self.theta2 = dn.Dense(d_cond, d_cond, rngs=rngs)
        self.blocks = nnx.List([dn.Block(dim, d_cond, rngs=rngs) for _ in range(depth)])
        self.film = dn.Dense(d_cond, 2 * dim, rngs=rngs, gain=0.0)
        self.head = dn.Dense(dim, 4, rngs=rngs, gain=0.0)

    def __call__(
        self,
        u: jax.Array,
        y: jax.Array,
        theta: jax.Array,
        *,
        dropout: float = 0.0,
        key: jax.Array | None = None,
    ) -> jax.Array:
        """F(u, y, theta) for u, y (B, 8, 8, 1) and theta (B,)."""
        features = dn._theta_features(theta)
        cond = jax.nn.silu(self.theta2(jax.nn.silu(self.theta1(features))))
        seen = [dn._to_patches(u), dn._to_patches((y - dn.DATA_MEAN) / dn.DATA_STD)]
        h = self.embed(jnp.concatenate(seen, axis=-1))
        h = h + self.pos[...][:, :, None, :]
        for i, block in enumerate(self.blocks):
            sub = None if key is None else jax.random.fold_in(key, i)
            h = block(h, cond, dropout, sub)
        scale, shift = jnp.split(self.film(cond)[None, None], 2, axis=-1)
        return dn._from_patches(self.head(dn._film(h, scale, shift)))


def angles(t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """r, c, s' at the labels t, each of shape (B, 1, 1, 1)."""
    t = t.reshape(-1, 1, 1, 1)
    signal, noise = PROCESS.alpha(t) * SPREAD, PROCESS.sigma(t)
    r = jnp.sqrt(signal**2 + noise**2)
    return r, signal / r, noise / r


def predict(
    params: Any, x: jax.Array, y: jax.Array, t: jax.Array, *, graph: Any
) -> jax.Array:
    """The data prediction, for t of shape (B,)."""
    r, c, s = angles(t)
    u = (x - y) / r
    theta = jnp.arctan2(s, c).reshape(-1)
    f = nnx.merge(graph, params)(u, y, theta)
    return y + SPREAD * (c * u + s * f)


def load() -> tuple[Any, Any]:
    """Graph and parameters of the trained network, checked against its card."""
    from safetensors.numpy import load as parse

    data = WEIGHTS.read_bytes()
    want = json.loads(WEIGHTS.with_suffix(".json").read_text())["sha256"]
    got = hashlib.sha256(data).hexdigest()
    if got != want:
        raise ValueError(
            f"{WEIGHTS.name} is damaged: SHA-256 {got[:12]}... is not the recorded "
            f"{want[:12]}.... Run scripts/train_restoration."
        )
    graph, params = nnx.split(RestoreNet(rngs=nnx.Rngs(0)))
    loaded = dn.from_flat(parse(data))
    one, two = (
        {k: v.shape for k, v in dn.to_flat(p).items()} for p in (loaded, params)
    )
    if one != two:
        raise ValueError(f"{WEIGHTS.name} is of another network. Train it again.")
    return graph, loaded
