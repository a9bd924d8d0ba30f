"""init and step: the state before the first row, and one row."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..numerics import mix, scale
from ..plan import Plan, Row
from ..plan.core import convert, move
from ..typing import Array, Context, Denoiser, Key, PyTree
from .noise import START, keys_of, needed, normal
from .state import Info, State

__all__ = ["floating", "init", "level_of", "like_state", "step"]


def floating(x: PyTree) -> PyTree:
    """X as arrays in float32 or wider."""

    def leaf(path: Any, value: Any) -> Array:
        value = jnp.asarray(value)
        if not jnp.issubdtype(value.dtype, jnp.inexact):
            raise ValueError(
                f"x{jax.tree_util.keystr(path)} must be floating, got {value.dtype}. "
                "Cast it, e.g. x.astype('float32')."
            )
        narrow = jnp.finfo(value.dtype).bits < 32
        return value.astype(jnp.float32) if narrow else value

    return jax.tree_util.tree_map_with_path(leaf, x)


def init(
    plan: Plan,
    x: PyTree,
    key: Key | None = None,
    *,
    carry: PyTree = None,
    noise: PyTree = None,
) -> State:
    """The state before the first row.

    Args:
        plan: the plan.
        x: start, at the level of the plan's first row; leaves (B, ...) or one sample.
        key: needed if the plan draws noise and none is injected.
        carry: the denoiser's initial carry.
        noise: z of the start move, a tree like x, instead of drawing it.

    Raises:
        ValueError: a stochastic plan without key or noise, or x not floating.
    """
    x = floating(x)
    keys = None if key is None else keys_of(key, x)
    start = plan.start
    anchor = point = x
    register = jax.tree.map(jnp.zeros_like, x) if plan.rows.register else None
    history = jax.tree.map(lambda v: jnp.zeros((plan.slots, *v.shape), v.dtype), x)
    if start is not None:
        drawn = (start.anchor_noise, start.point_noise, start.register_noise)
        if any(w is not None for w in drawn) and noise is None:
            noise = normal(needed(keys), START, x)
        anchor = mix(
            [(start.anchor, x), (start.anchor_noise, noise)],
            start.anchor_bias,
            plan.matrix,
        )
        point = mix(
            [(start.point, x), (start.point_noise, noise)],
            start.point_bias,
            plan.matrix,
        )
        if start.register_noise is not None and register is not None:
            register = scale(start.register_noise, noise, plan.matrix)
        if start.history is not None:
            slots = [
                scale(jax.tree.map(lambda w, k=k: w[k], start.history), x, plan.matrix)
                for k in range(plan.slots)
            ]
            history = jax.tree.map(lambda *h: jnp.stack(h), *slots)
    return State(anchor, point, history, register, keys, carry)


def _evaluate(
    denoiser: Denoiser, point: PyTree, context: Context, carry: PyTree, count: int
) -> tuple[tuple, PyTree]:
    """The denoiser's predictions as a tuple, checked and in the state's dtype."""
    out = denoiser(point, context, carry)
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(
            "denoiser must return (prediction, carry), got "
            f"{type(out).__name__}. Wrap a plain network with models.denoiser(...)."
        )
    found, carry = out
    several = found if count > 1 else (found,)
    if not isinstance(several, tuple) or len(several) != count:
        raise ValueError(
            f"this plan integrates {count} predictions; the denoiser must return a "
            f"tuple of {count} trees, got {type(found).__name__}."
        )
    return tuple(like_state(point, prediction) for prediction in several), carry


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
        return found.astype(value.dtype)

    return jax.tree_util.tree_map_with_path(leaf, x, prediction)


def level_of(row: Row, x: PyTree) -> Row:
    """The row's level in the state's real dtype."""
    dtype = max((v.real.dtype for v in jax.tree.leaves(x)), key=lambda d: d.itemsize)
    cast = jax.tree.map(lambda v: jnp.asarray(v, dtype), row.level)
    return row._replace(level=cast)


def step(
    state: State,
    row: Row,
    denoiser: Denoiser,
    *,
    noise: PyTree = None,
    matrix: bool = False,
) -> tuple[State, Info]:
    """One row: evaluate, convert, advance, push, predict.

    Args:
        state: what the row before left, or `init(...)`.
        row: one row of the table: `jax.tree.map(lambda w: w[i], plan.rows)`.
        denoiser: (x, context, carry) -> (prediction, carry).
        noise: this row's z, a tree like x, instead of drawing it.
        matrix: the plan's `matrix` flag.

    Returns:
        The next state, and what happened.
    """
    row = level_of(row, state.point)
    stepped = partial(_step, denoiser=denoiser, noise=noise, matrix=matrix)
    if row.active is None:
        return stepped(state, row)
    empty = jax.eval_shape(stepped, state, row)[1]

    def skip(state: State, row: Row) -> tuple[State, Info]:
        info = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), empty)
        info = info._replace(
            index=row.index, point=state.point, anchor=state.anchor, sample=state.point
        )
        return state, info

    # The model is not run on padding. Under vmap both sides are computed and selected.
    return jax.lax.cond(row.active, stepped, skip, state, row)


def _step(
    state: State, row: Row, denoiser: Denoiser, noise: PyTree, matrix: bool
) -> tuple[State, Info]:
    level = row.level
    count = jax.tree.leaves(row.convert.prediction)[0].shape[0]
    context = Context(row.index, *level, row.controls)
    predictions, carry = _evaluate(denoiser, state.point, context, state.carry, count)
    evaluations = convert(row, state.point, predictions, matrix)
    noisy = (row.advance.noise, row.predict.noise, row.register)
    z = noise
    if z is None and any(w is not None for w in noisy):
        z = normal(needed(state.key), row.index, state.point)
    anchor, point, history, register = move(
        row,
        state.anchor,
        state.point,
        state.history,
        state.register,
        evaluations,
        z,
        matrix,
    )
    info = Info(
        jnp.asarray(row.index),
        *level,
        anchor=state.anchor,
        point=state.point,
        denoised=predictions[0],
        predictions=predictions,
        evaluations=evaluations,
        noise=z,
        sample=anchor,
    )
    return State(anchor, point, history, register, state.key, carry), info
