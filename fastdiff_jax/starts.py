"""Where x comes from: the prior, a degraded input, or a jump over the noisy part.

`prior` and `first_state` draw the state that a plan starts from. Gaussian teleportation
(`teleport`, `jump`) solves the noisy part of the path in closed form, without a network
call: for data N(mu, U diag(l) U^T) the probability-flow ODE from s to t is

    x_t = alpha_t mu + [U diag(c) U^T + (sigma_t / sigma_s) (I - U U^T)] g
    g = x_s - alpha_s mu
    c = sqrt((alpha_t^2 l + sigma_t^2) / (alpha_s^2 l + sigma_s^2))

and at high noise a trained network is close to it. Wang & Vastola 2024 (2412.09726).
The jump is a dense operator on a whole sample, which weights that broadcast cannot
hold: it is applied to x before `sample`, not a row of the plan. A multistep plan starts
afresh after it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import plan
from .guards import checked, in_domain, must
from .noise.streams import PRIOR, keys_of, normal
from .states import align, arrays, floating, shaped, spread
from .trees import concrete, pytree
from .typing import Array, ArrayLike, DType, Key, Process, PyTree

__all__ = [
    "Gaussian",
    "centre_of",
    "degraded",
    "first_state",
    "fit_gaussian",
    "jump",
    "prior",
    "spread_over",
    "teleport",
    "unit_noise",
]


@checked
def unit_noise(key: Key, shape: Any, dtype: DType | None = None) -> PyTree:
    """Standard normal noise to start from, one key per sample.

    Args:
        key: a key, or one per sample of shape (B,).
        shape: shape (B, ...) of the state, or a tree of arrays or ShapeDtypeStructs.
        dtype: of the result, None for float32 (float64 under x64).
    """
    kind = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    sizes = isinstance(shape, tuple | list)
    if sizes and all(isinstance(n, int | np.integer) for n in shape):
        if any(n < 0 for n in shape):
            raise must("shape", "sizes >= 0", shape)
        shape = jax.ShapeDtypeStruct(tuple(shape), kind)
    shaped("shape", shape)
    return normal(keys_of(key, shape), PRIOR, shape)


@checked
def prior(
    process: Process,
    key: Key,
    shape: Any,
    *,
    start: float | None = None,
    dtype: DType | None = None,
) -> PyTree:
    """Noise to start from: sigma(start) z, one key per sample.

    Args:
        process: the path.
        key: a key, or one per sample of shape (B,).
        shape: shape (B, ...) of the state, or a tree of arrays or ShapeDtypeStructs.
        start: the plan's first time, None for the process' own.
        dtype: of the result, None for float32 (float64 under x64).

    Returns:
        A sample per key; sample i does not depend on the batch size.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> x = fd.prior(fd.processes.edm(), jax.random.key(0), (2, 3))
        >>> x.shape
        (2, 3)
    """
    in_domain(process, start=start)
    start = process.start if start is None else start
    z = unit_noise(key, shape, dtype)
    return jax.tree.map(lambda v: jnp.asarray(process.sigma(start), v.dtype) * v, z)


# ------------------------------------------------------- around a degraded input


@checked
def centre_of(process: Process) -> Any:
    """The k with beta = k (1 - alpha), of a path between clean and degraded.

    Raises:
        ValueError: the process has none.
    """
    k = getattr(process, "centre", None)
    if k is None:
        raise ValueError(
            f"{type(process).__name__} has no centre: its weight of y is not "
            "k (1 - alpha), so x - k y is no Gaussian path. Use a process with one, "
            "e.g. processes.mean_reverting(), or a two-endpoint plan of first order."
        )
    return k


@checked
def spread_over(y: PyTree, x: PyTree, k: float = 1.0) -> PyTree:
    """K y with the shapes and dtypes of x: leaves of y broadcast against those of x."""
    shaped("x", x)
    y = spread(arrays("y", y), x, "y")
    if isinstance(k, float) and k == 1.0:
        return y
    return jax.tree.map(lambda v: v * align(k, v), y)


@checked
def degraded(y: PyTree) -> PyTree:
    """A degraded input as floating arrays, float32 at least.

    Raises:
        ValueError: whole numbers.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays("y", y)):
        dtype = jnp.asarray(leaf).dtype
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(
                f"y{jax.tree_util.keystr(path)} must be floating, got {dtype}. Scale "
                "it as the network's data, e.g. y / 255."
            )
    return floating(y)


@checked
def first_state(
    process: Process, y: PyTree, key: Key, *, start: float | None = None
) -> PyTree:
    """The state that restoration starts from: x_T = k y + sigma_T z.

    What the true x_T adds, alpha_T (x_0 - k y), is not known; it is small or zero at
    the start of every published path but OUVE's.

    Args:
        process: a path with two endpoints and a centre k.
        y: the degraded input, leaves (B, ...).
        key: a key, or one per sample.
        start: the plan's first time, None for the process' own.

    Returns:
        A tree like y. Complex y gets complex noise of total variance 1.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> y = jax.numpy.ones((4000, 1))
        >>> x = first_state(fd.processes.resfusion(), y, jax.random.key(0))
        >>> abs(float(x.mean()) - 0.5) < 0.05, abs(float(x.std()) - 0.75**0.5) < 0.05
        (True, True)
    """
    y = degraded(y)
    z = prior(process, key, y, start=start)
    shift = spread_over(y, z, centre_of(process))
    return jax.tree.map(jnp.add, z, shift)


# ---------------------------------------------------------------- teleportation


@pytree
class Gaussian:
    """N(mean, U diag(spectrum) U^T) over events of shape (D...), flattened to d.

    Attributes:
        mean: (D...).
        vectors: U, orthonormal columns, (d, r).
        spectrum: variances along them, (r,), >= 0; 0 in every other direction.
    """

    mean: Any
    vectors: Any
    spectrum: Any


@checked
def fit_gaussian(data: ArrayLike, rank: int | None = None) -> Gaussian:
    """Mean and covariance of a data set, by a singular value decomposition.

    Args:
        data: samples, (n, D...), n >= 2. Computed in float64 on the host.
        rank: how many leading directions to keep, None for all that the data span.

    Returns:
        A Gaussian of rank min(rank, n - 1, d).

    Raises:
        ValueError: fewer than two samples, values that are not finite, or rank < 1.

    Example:
        >>> import numpy as np
        >>> fit_gaussian(np.eye(3), rank=2).vectors.shape
        (3, 2)
    """
    data = np.asarray(data, np.float64)
    if data.ndim < 2 or data.shape[0] < 2 or not np.isfinite(data).all():
        raise ValueError(
            f"data must be finite samples (n, ...) with n >= 2, got {data.shape}."
        )
    if rank is not None and rank < 1:
        raise ValueError(f"rank must be >= 1 or None, got {rank}.")
    mean = data.mean(0)
    flat = (data - mean).reshape(len(data), -1)
    _, singular, vectors = np.linalg.svd(flat, full_matrices=False)
    most = min(len(data) - 1, flat.shape[1])
    rank = most if rank is None else min(rank, most)
    spectrum = singular[:rank] ** 2 / (len(data) - 1)
    return Gaussian(mean, vectors[:rank].T, spectrum)


@checked
def teleport(
    x: Array,
    process: Process,
    t_from: float,
    t_to: float,
    gaussian: Gaussian,
) -> Array:
    """Exact probability-flow solution for Gaussian data, from one time to another.

    Pure JAX: jit, vmap and grad pass through it.

    Args:
        x: states at t_from, (B, D...).
        process: the path.
        t_from, t_to: times, scalars, in either direction; sigma > 0 at t_from.
        gaussian: from `fit_gaussian`.

    Returns:
        States at t_to, (B, D...).

    Raises:
        ValueError: x of another event shape.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.edm()
        >>> data = fit_gaussian(jax.random.normal(jax.random.key(1), (50, 4)))
        >>> x = fd.prior(process, jax.random.key(0), (8, 4))
        >>> teleport(x, process, 80.0, 5.0, data).shape
        (8, 4)
    """
    x = jnp.asarray(x)
    in_domain(process, t_from=t_from, t_to=t_to)
    if concrete(t_from) and not process.sigma(np.float64(t_from)) > 0:
        raise must("t_from", "a time with sigma > 0", t_from)
    start, end = jnp.asarray(t_from, x.dtype), jnp.asarray(t_to, x.dtype)
    return _move(
        x,
        (process.alpha(start), process.sigma(start)),
        (process.alpha(end), process.sigma(end)),
        gaussian,
    )


@checked
def jump(
    known: plan.Plan,
    x: Array,
    process: Process,
    gaussian: Gaussian,
    *,
    start: float | None = None,
) -> Array:
    """Teleport x from the noise end to where a plan begins: its prefix.

    Make the plan on the later part of a grid, and sample from what this returns:

        ts = grids.karras(process, 18)
        plan = solvers.unipc(process, ts[5:])        # 5 calls saved
        y = sample(plan, model, jump(plan, x, process, gaussian))

    Args:
        known: the plan of the rest of the path.
        x: noise at `start`, (B, D...), e.g. `fd.prior(process, key, shape)`.
        process: the path.
        gaussian: of the data, from `fit_gaussian`.
        start: the time of x, None for the process' own.

    Raises:
        ValueError: x of another event shape, or a plan with a level per element.
    """
    level = known.rows.level
    if np.ndim(level.sigma) != 1:
        raise ValueError(
            f"jump needs one level per row, got sigma of shape {np.shape(level.sigma)}."
        )
    x = jnp.asarray(x)
    in_domain(process, start=start)
    start = process.start if start is None else start
    if concrete(start) and not process.sigma(np.float64(start)) > 0:
        raise must("start", "a time with sigma > 0", start)
    t = jnp.asarray(start, x.dtype)
    there = tuple(jnp.asarray(v[0], x.dtype) for v in (level.alpha, level.sigma))
    return _move(x, (process.alpha(t), process.sigma(t)), there, gaussian)


def _move(x: Array, start: tuple, end: tuple, gaussian: Gaussian) -> Array:
    mean = jnp.asarray(gaussian.mean, x.dtype)
    if x.shape[1:] != mean.shape:
        raise ValueError(
            f"x must be (B, ...) with events of shape {mean.shape}, as the Gaussian "
            f"has; got {x.shape}."
        )
    vectors = jnp.asarray(gaussian.vectors, x.dtype)
    spectrum = jnp.asarray(gaussian.spectrum, x.dtype)
    (a0, s0), (a1, s1) = start, end
    gap = (x - (a0 * mean)[None]).reshape(x.shape[0], -1)
    turn = partial(jnp.matmul, precision="highest")
    along = turn(gap, vectors)
    rest = s1 / s0
    # hypot: alpha^2 l + sigma^2 without overflow or loss at either end
    size = lambda a, s: jnp.hypot(a * jnp.sqrt(spectrum), s)  # noqa: E731
    factor = size(a1, s1) / size(a0, s0) - rest
    moved = rest * gap + turn(along * factor[None], vectors.T)
    return (a1 * mean)[None] + moved.reshape(x.shape)
