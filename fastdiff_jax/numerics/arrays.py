"""NumPy in, float64 NumPy out; JAX in, traced and differentiable out."""

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import must
from ..typing import Array

__all__ = ["along_last", "as_float", "namespace"]


def namespace(*values: Any) -> Any:
    """`jax.numpy` if any value is a JAX array or tracer, else `numpy`."""
    return jnp if any(isinstance(v, jax.Array) for v in values) else np


def as_float(*values: Any) -> tuple[Any, tuple[Array, ...]]:
    """The namespace of the values, and the values as floating arrays of it."""
    xp = namespace(*values)
    if xp is np:
        return xp, tuple(map(_double, values))
    found = (jnp.asarray(v) for v in values)
    whole = jnp.result_type(float)
    return xp, tuple(
        v if jnp.issubdtype(v.dtype, jnp.inexact) else v.astype(whole) for v in found
    )


def _double(value: Any) -> np.ndarray:
    """Real numbers as float64; NumPy would take None for NaN, and drop imaginary parts.

    Raises:
        ValueError: anything else.
    """
    if value is not None and not np.iscomplexobj(value):
        with contextlib.suppress(TypeError, ValueError):
            return np.asarray(value, np.float64)
    raise must("a time or a level", "a real number, or an array of them", value)


def along_last(values: np.ndarray, like: Array) -> Array:
    """Constants on a new last axis of `like`, in its dtype: shape (1, ..., Q)."""
    xp = namespace(like)
    return xp.asarray(values, dtype=like.dtype).reshape((1,) * like.ndim + (-1,))
