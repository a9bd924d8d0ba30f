"""Linear mixing of trees by scalar, array, tree or matrix weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..typing import PyTree
from .arrays import namespace

__all__ = ["history_terms", "mix", "scale"]


def _fit(weight: Any, value: Any, lead: int = 0) -> Any:
    """Cast a weight to the value's dtype and align its trailing axes."""
    xp = namespace(weight, value)
    dtype = value.dtype if xp is jnp else np.float64
    weight = xp.asarray(weight, dtype=dtype)
    gap = value.ndim - (weight.ndim - lead)
    shape = weight.shape[:lead] + (1,) * gap + weight.shape[lead:]
    return weight.reshape(shape)


def _times(weight: Any, value: Any, matrix: bool) -> Any:
    if matrix and weight.ndim >= 2:  # (k, k) acts on the channel axis after the batch
        weight = jnp.asarray(weight, dtype=value.dtype)
        # full precision: accelerators would round float32 factors
        exact = jax.lax.Precision.HIGHEST
        return jnp.einsum("ij,bj...->bi...", weight, value, precision=exact)
    return _fit(weight, value) * value


def scale(weight: PyTree, x: PyTree, matrix: bool = False) -> PyTree:
    """Weight * x, where the weight is one array for all leaves or a tree like x."""
    if jax.tree.structure(weight) == jax.tree.structure(0):
        return jax.tree.map(lambda v: _times(weight, v, matrix), x)
    return jax.tree.map(lambda v, w: _times(w, v, matrix), x, weight)


def mix(
    terms: list[tuple[PyTree, PyTree]], bias: PyTree = None, matrix: bool = False
) -> PyTree:
    """Sum of weight * tree over the terms whose weight is not None, plus a bias."""
    parts = [scale(w, x, matrix) for w, x in terms if w is not None]
    if bias is not None:
        like = terms[0][1]
        one = jax.tree.structure(bias) == jax.tree.structure(0)
        spread = jax.tree.map(lambda _: bias, like) if one else bias
        parts.append(jax.tree.map(lambda v, b: _fit(b, v), like, spread))
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)


def history_terms(weights: PyTree, history: PyTree) -> list[tuple[PyTree, PyTree]]:
    """One (weight, slot) term per slot; both have the slots as their leading axis."""
    count = jax.tree.leaves(history)[0].shape[0]

    def slot(tree: PyTree, k: int) -> PyTree:
        return jax.tree.map(lambda w: w[k], tree)

    return [(slot(weights, k), slot(history, k)) for k in range(count)]
