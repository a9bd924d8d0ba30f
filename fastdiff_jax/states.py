"""States: trees of arrays whose leaves share a leading axis of samples, or one sample.

A level, a weight or a control aligns with a leaf's last axes (`align`), a number per
sample with its first (`per_sample`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .guards import must
from .typing import Array, PyTree

__all__ = [
    "align",
    "arrays",
    "batch_of",
    "floating",
    "like_state",
    "mix",
    "nan_where",
    "norm",
    "per_batch",
    "per_sample",
    "real_dtype",
    "scale",
    "shaped",
    "some_arrays",
    "spread",
]


def arrays(name: str, tree: PyTree) -> PyTree:
    """A tree of numbers as it is.

    Raises:
        ValueError: no leaves, a mask, or a leaf that is no number and no array of them.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise must(name, "an array or a tree of arrays", tree)
    for path, leaf in leaves:
        at = name + jax.tree_util.keystr(path)
        if isinstance(leaf, np.ma.MaskedArray):
            fix = "Fill it first: x.filled(...)."
            raise must(at, "an array without a mask", leaf, fix)
        dtype = getattr(leaf, "dtype", None)
        plain = isinstance(leaf, bool | int | float | complex)
        kinds = (np.number, np.bool_)
        if not plain and (
            dtype is None or not any(jnp.issubdtype(dtype, k) for k in kinds)
        ):
            raise must(at, "an array of numbers", leaf)
    return tree


def shaped(name: str, tree: PyTree) -> PyTree:
    """A tree whose leaves have shapes and floating dtypes, as it is.

    Raises:
        ValueError: no leaves, or one without.
    """
    rule = "floating arrays, or ShapeDtypeStructs"
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if not leaves:
        raise must(name, rule, tree)
    for path, leaf in leaves:
        dtype, shape = getattr(leaf, "dtype", None), getattr(leaf, "shape", None)
        if not (
            isinstance(shape, tuple)
            and isinstance(dtype, np.dtype)
            and jnp.issubdtype(dtype, jnp.inexact)
        ):
            raise must(name + jax.tree_util.keystr(path), rule, leaf)
    return tree


def floating(x: PyTree) -> PyTree:
    """X as arrays in float32 or wider.

    Raises:
        ValueError: no arrays, or a leaf of whole numbers or truth values.
    """
    some_arrays(x)
    arrays("x", x)

    def leaf(path: Any, value: Any) -> Array:
        try:
            value = jnp.asarray(value)
        except (TypeError, ValueError):
            name = f"x{jax.tree_util.keystr(path)}"
            raise must(name, "an array of numbers", value) from None
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            raise ValueError(
                f"x{jax.tree_util.keystr(path)} must be floating, got {value.dtype}. "
                "Cast it, e.g. x.astype('float32')."
            )
        narrow = jnp.finfo(value.dtype).bits < 32
        return value.astype(jnp.float32) if narrow else value

    return jax.tree_util.tree_map_with_path(leaf, x)


def some_arrays(x: PyTree, name: str = "x") -> None:
    """A state holds arrays; a list of numbers would be a tree of single numbers.

    Raises:
        ValueError: nothing, or numbers in lists.
    """
    leaves = jax.tree.leaves(x)
    if not leaves:
        raise must(name, "an array, or a tree that holds arrays", x)
    one = jax.tree_util.treedef_is_leaf(jax.tree.structure(x)) or isinstance(x, dict)
    if not one and not any(hasattr(v, "shape") for v in leaves):
        raise must(name, "an array, or a tree of arrays", x, "Make it one: np.asarray.")


def batch_of(x: PyTree) -> int | None:
    """Size of the leading axis that all leaves share, None if they do not."""
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(x)}
    return sizes.pop() if len(sizes) == 1 else None


def per_batch(name: str, value: PyTree, x: PyTree) -> None:
    """What is given per sample has the leading axis that x has.

    Raises:
        ValueError: another, or none.
    """
    count = batch_of(x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        if count is not None and np.shape(leaf)[:1] != (count,):
            place = name + jax.tree_util.keystr(path)
            raise must(place, f"one entry per sample, ({count}, ...)", leaf)


def nan_where(wrong: Any, x: PyTree) -> PyTree:
    """NaN where something is wrong: meant, whatever `jax_debug_nans` says of it."""
    with jax.debug_nans(False):
        return jax.tree.map(lambda v: jnp.where(wrong, jnp.nan, v), x)


def real_dtype(x: PyTree) -> Any:
    """The widest real dtype among the leaves."""
    return max((v.real.dtype for v in jax.tree.leaves(x)), key=lambda d: d.itemsize)


_VARIANCE = "Does the net also predict a variance? Keep its first half."


def like_state(x: PyTree, prediction: PyTree, hint: str = _VARIANCE) -> PyTree:
    """A prediction in the state's dtypes.

    Raises:
        ValueError: another structure or shape than the state's, with the hint.
    """
    want, got = jax.tree.structure(x), jax.tree.structure(prediction)
    if want != got:
        raise ValueError(
            f"denoiser returned a tree {got} for x of {want}. Return one prediction "
            "per leaf of x."
        )

    def leaf(path: Any, value: Any, found: Any) -> Array:
        found = jnp.asarray(found)
        if found.shape != value.shape:
            raise ValueError(
                f"denoiser returned shape {found.shape} for x"
                f"{jax.tree_util.keystr(path)} of shape {value.shape}. {hint}"
            )
        complexed = jnp.iscomplexobj(found) and not jnp.iscomplexobj(value)
        if complexed or not jnp.issubdtype(found.dtype, jnp.inexact):
            raise ValueError(
                f"denoiser returned {found.dtype} for x{jax.tree_util.keystr(path)} of "
                f"{value.dtype}. Return {'its real part' if complexed else 'floats'}."
            )
        return found.astype(value.dtype)

    return jax.tree_util.tree_map_with_path(leaf, x, prediction)


def align(value: Any, like: Array, real: bool = False) -> Array:
    """A number or array in the dtype of `like`, its axes against the last of them."""
    xp = jnp if isinstance(like, jax.Array) else np
    value = xp.asarray(value, real_dtype(like) if real else like.dtype)
    return value.reshape((1,) * (like.ndim - value.ndim) + value.shape)


def per_sample(value: Any, like: Array) -> Array:
    """One number, or one per sample, with trailing axes to multiply `like`."""
    value = jnp.asarray(value).astype(real_dtype(like))
    return value.reshape(value.shape + (1,) * (like.ndim - value.ndim))


def spread(value: PyTree, x: PyTree, name: str) -> PyTree:
    """One array, or a tree like x, in the dtypes and shapes of x.

    Raises:
        ValueError: it does not broadcast.
    """
    one = jax.tree.structure(0)
    if jax.tree.structure(value) == one and jax.tree.structure(x) != one:
        value = jax.tree.map(lambda _: value, x)
    if jax.tree.structure(value) != jax.tree.structure(x):
        raise ValueError(
            f"{name} must be one array or a tree like the state, "
            f"{jax.tree.structure(x)}; got {jax.tree.structure(value)}."
        )

    def leaf(v: Any, like: Array) -> Array:
        if jnp.iscomplexobj(v) and not jnp.iscomplexobj(like):
            raise must(name, f"real, as the state's {like.dtype}", v)
        v = jnp.asarray(v, like.dtype)
        shape = (1,) * (like.ndim - v.ndim) + v.shape
        if len(shape) != like.ndim or any(
            n not in (1, m) for n, m in zip(shape, like.shape, strict=True)
        ):
            raise ValueError(
                f"{name} of shape {v.shape} does not broadcast to the state's "
                f"{like.shape}. Give one image, or one per sample."
            )
        return jnp.broadcast_to(v.reshape(shape), like.shape)

    return jax.tree.map(leaf, value, x)


def norm(x: PyTree) -> Array:
    """Euclidean norm over all leaves, one per sample, shape (B,), or one number."""
    batch = batch_of(x)
    lead = () if batch is None else (batch,)
    parts = [
        jnp.sum(jnp.abs(v.reshape(*lead, -1)) ** 2, axis=-1) for v in jax.tree.leaves(x)
    ]
    return jnp.sqrt(sum(parts[1:], parts[0]))


def _times(weight: Any, value: Array, matrix: bool) -> Array:
    if matrix and weight.ndim >= 2:  # (k, k) acts on the channel axis after the batch
        if not isinstance(value, jax.Array):
            return np.einsum("ij,bj...->bi...", weight, value)
        weight = jnp.asarray(weight, dtype=value.dtype)
        # full precision: accelerators would round float32 factors
        exact = jax.lax.Precision.HIGHEST
        return jnp.einsum("ij,bj...->bi...", weight, value, precision=exact)
    return align(weight, value) * value


def scale(weight: PyTree, x: PyTree, matrix: bool = False) -> PyTree:
    """Weight * x, where the weight is one array for all leaves or a tree like x."""
    if jax.tree.structure(weight) == jax.tree.structure(0):
        return jax.tree.map(lambda v: _times(weight, v, matrix), x)
    return jax.tree.map(lambda v, w: _times(w, v, matrix), x, weight)


def mix(
    terms: list[tuple[PyTree, PyTree]], bias: PyTree = None, matrix: bool = False
) -> PyTree:
    """Sum of weight * tree over the terms, plus a bias.

    Example:
        >>> float(mix([(2.0, jnp.float32(3.0)), (1.0, jnp.float32(1.0))], bias=0.5))
        7.5
    """
    parts = [scale(w, x, matrix) for w, x in terms]
    if bias is not None:
        like = terms[0][1]
        one = jax.tree.structure(bias) == jax.tree.structure(0)
        spread = jax.tree.map(lambda _: bias, like) if one else bias
        parts.append(jax.tree.map(lambda v, b: align(b, v), like, spread))
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)
