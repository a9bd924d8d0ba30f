"""init and step: the state before the first row, and one row."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..guards import checked, must
from ..hooks import answer
from ..noise.streams import START, keys_of, needed, normal
from ..numerics import Level
from ..plan import Plan, Row
from ..plan.core import advance, begin, line
from ..plan.validity import check_row, valid
from ..states import floating, like_state, real_dtype
from ..typing import Array, Context, Denoiser, Key, PyTree
from .state import Info, State

__all__ = ["init", "level_of", "noise_like", "step"]


@checked
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
        noise: z of the start, a tree like x, instead of drawing it.

    Raises:
        ValueError: a plan that fails `plan.validate`, a stochastic one without key or
            noise, x not floating, or a plan that goes on from the registers of other
            rows.
    """
    valid(plan)
    x = floating(x)
    keys = None if key is None else keys_of(key, x)
    start = plan.start
    if start is None:
        raise ValueError(
            "this plan goes on from what other rows left in its registers: x alone "
            "does not start it. Run the rows before it, and go on with "
            "fd.run(plan, denoiser, state)."
        )
    if noise is not None:
        noise = noise_like(noise, x)
    if start.noise is not None and noise is None and plan.rows.active is None:
        noise = normal(needed(keys), START, x)
    elif start.noise is not None and noise is None:
        noise = _asked(start.noise, x, lambda: normal(needed(keys), START, x))

    return State(begin(start, x, noise, plan.matrix), keys, carry)


def noise_like(noise: PyTree, x: PyTree, lead: tuple[int, ...] = ()) -> PyTree:
    """Given noise as arrays of x's shapes, real where x is, with leading axes."""
    if jax.tree.structure(noise) != jax.tree.structure(x):
        raise ValueError(
            f"noise must be a tree like x, {jax.tree.structure(x)}; got "
            f"{jax.tree.structure(noise)}."
        )

    def leaf(path: Any, z: Any, like: Array) -> Array:
        z, want = jnp.asarray(z), (*lead, *like.shape)
        real = jnp.iscomplexobj(like) or not jnp.iscomplexobj(z)
        if z.shape != want or not real or z.dtype.kind not in "fcV":
            raise must(
                f"noise{jax.tree_util.keystr(path)}",
                f"{'one draw per row, ' if lead else ''}{like.dtype} of shape {want}",
                z,
            )
        return z.astype(like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, noise, x)


def _asked(weights: PyTree, x: PyTree, draw: Any) -> PyTree:
    """A draw that is skipped where all of its weights are 0, in a padded plan."""
    used = [jnp.any(jnp.asarray(w) != 0) for w in jax.tree.leaves(weights)]
    zero = partial(jax.tree.map, jnp.zeros_like, x)
    return jax.lax.cond(jnp.stack(used).any(), lambda: _placed(draw(), x), zero)


def _placed(z: PyTree, x: PyTree) -> PyTree:
    """The draw, placed on a mesh as x is."""
    return jax.tree.map(lambda a, b: a + 0 * b, z, x)


def _evaluate(
    denoiser: Denoiser, point: PyTree, context: Context, carry: PyTree, count: int
) -> tuple[tuple, PyTree]:
    """The denoiser's predictions as a tuple, checked and in the state's dtype."""
    found, carry = answer(denoiser, point, context, carry)
    several = found if count > 1 else (found,)
    if not isinstance(several, tuple) or len(several) != count:
        raise ValueError(
            f"this plan integrates {count} predictions; the denoiser must return a "
            f"tuple of {count} trees, got {type(found).__name__}."
        )
    return tuple(like_state(point, prediction) for prediction in several), carry


def level_of(level: Level, x: PyTree) -> Level:
    """A level in the state's real dtype."""
    dtype = real_dtype(x)
    return Level(*jax.tree.map(lambda v: jnp.asarray(v, dtype), level))


@checked
def step(
    state: State,
    row: Row,
    denoiser: Denoiser,
    *,
    noise: PyTree = None,
    matrix: bool = False,
) -> tuple[State, Info]:
    """One row: ask the network at register 0, and write the registers.

    Args:
        state: what the row before left, or `init(...)`.
        row: one row of the table: `jax.tree.map(lambda w: w[i], plan.rows)`.
        denoiser: (x, context, carry) -> (prediction, carry).
        noise: this row's z, a tree like x, instead of drawing it.
        matrix: the plan's `matrix` flag.

    Returns:
        The next state, and what happened.

    Raises:
        ValueError: whole rows, or a row of another plan than the state.
    """
    check_row(row, state.registers)
    if noise is not None:
        noise = noise_like(noise, state.point)
    row = row._replace(level=level_of(row.level, state.point))
    stepped = partial(_step, denoiser=denoiser, noise=noise, matrix=matrix)
    if row.active is None:
        return stepped(state, row)

    def skip(state: State, row: Row) -> tuple[State, Info]:
        zero = jax.tree.map(jnp.zeros_like, state.point)
        count = jax.tree.leaves(row.predictions)[0].shape[1]
        info = Info(
            jnp.asarray(row.index),
            *row.level,
            point=state.point,
            denoised=zero,
            predictions=(zero,) * count,
            noise=None if row.noise is None and noise is None else zero,
            sample=state.point,
        )
        return state, info

    # The model is not run on padding. Under vmap both sides are computed and selected.
    return jax.lax.cond(row.active, stepped, skip, state, row)


def _drawn(state: State, row: Row, noise: PyTree) -> PyTree:
    """This row's z: given, drawn, or None where the plan has no noise."""
    if noise is not None or row.noise is None:
        return noise
    draw = lambda: normal(needed(state.key), row.index, state.point)  # noqa: E731
    return draw() if row.active is None else _asked(row.noise, state.point, draw)


def _step(
    state: State, row: Row, denoiser: Denoiser, noise: PyTree, matrix: bool
) -> tuple[State, Info]:
    count = jax.tree.leaves(row.predictions)[0].shape[1]
    context = Context(row.index, *row.level, row.controls)
    found, carry = _evaluate(denoiser, state.point, context, state.carry, count)
    z = _drawn(state, row, noise)
    registers = advance(row, state.registers, found, z, matrix)
    info = Info(
        jnp.asarray(row.index),
        *row.level,
        point=state.point,
        denoised=found[0],
        predictions=found,
        noise=z,
        sample=line(row, -1, state.registers, found, z, matrix),
    )
    return State(registers, state.key, carry), info
