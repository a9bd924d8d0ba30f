"""Random numbers: a function of (sample key, row)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..guards import bounded, checked
from ..states import batch_of, shaped
from ..trees import concrete
from ..typing import Array, Key, PyTree

__all__ = ["PATH", "PRIOR", "START", "keys_of", "needed", "normal", "side_noise"]

# row numbers that no plan reaches: noise streams of their own
PRIOR, START, _SIDE, PATH = 2**32 - 1, 2**32 - 2, 2**32 - 3, 2**32 - 4


@checked
def keys_of(key: Key, x: PyTree) -> Key:
    """One key per sample: given, or sample i's is fold_in(key, i)."""
    batch = batch_of(shaped("x", x))
    if key.ndim == 0:
        if batch is None:
            return key
        return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch))
    if key.shape != (batch,):
        raise ValueError(
            f"key must be one key, or one per sample of shape ({batch},); got shape "
            f"{key.shape}. Use jax.random.split(key, {batch})."
        )
    return key


def _counted(name: str, value: Any) -> None:
    """A number from 0 on, where it is known."""
    if concrete(value):
        bounded(name, value, 0, 2**32 - 1)


@checked
def normal(key: Key, row: Any, like: PyTree) -> PyTree:
    """Standard normal noise of a row, a function of (sample key, row) alone.

    Args:
        key: keys, shape (B,) for leaves of shape (B, ...), or one key.
        row: the row's index.
        like: a tree whose shapes and dtypes the noise takes.
    """
    leaves, structure = jax.tree.flatten(shaped("like", like))
    _counted("row", row)

    def draw(key: Key, number: int, shape: tuple, dtype: Any) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, row), number)
        return jax.random.normal(key, shape, dtype)

    def leaf(number: int, value: Any) -> Array:
        if key.ndim == 0:
            return draw(key, number, value.shape, value.dtype)
        return jax.vmap(lambda k: draw(k, number, value.shape[1:], value.dtype))(key)

    return structure.unflatten([leaf(i, v) for i, v in enumerate(leaves)])


@checked
def side_noise(key: Key | None, row: Any, like: PyTree, stream: int = 0) -> PyTree:
    """Standard normal noise beside a row's own z, for moves after the row.

    Args:
        key: the state's key.
        row: the row's index.
        like: a tree whose shapes and dtypes the noise takes.
        stream: one number per use in a row.
    """
    key, _ = needed(key), _counted("stream", stream)
    for number in (_SIDE, stream):
        fold = partial(jax.random.fold_in, data=number)
        key = fold(key) if key.ndim == 0 else jax.vmap(fold)(key)
    return normal(key, row, like)


def needed(key: Key | None) -> Key:
    """The key, or the error that a stochastic plan needs one."""
    if key is None:
        raise ValueError(
            "this plan draws noise; pass key=jax.random.key(0), or noise=... to "
            "inject your own."
        )
    return key
