"""The one engine: init, step, sample. A scan over a plan's rows.

All three are pure and work under jit, vmap and grad. State arithmetic runs in the
state's dtype, float32 at least; the model sees what its adapter casts to.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .numerics import mix, scale
from .plan import Plan, Row
from .plan.core import convert, move
from .typing import Array, Context, Denoiser, Key, NoiseSource, PyTree

__all__ = ["Info", "State", "init", "normal", "prior", "run", "sample", "step"]

_START, _PRIOR = 2**32 - 2, 2**32 - 1  # row numbers no plan reaches: own noise streams


class State(NamedTuple):
    """What the next row needs.

    Attributes:
        anchor: the point the current step started from, a tree like x.
        point: where the model is evaluated next; after the last row, the sample.
        history: stored evaluations, a tree like x with a leading axis of slots.
        register: composed noise, a tree like x, or None.
        key: one key per sample, or None.
        carry: the denoiser's own state.
    """

    anchor: PyTree
    point: PyTree
    history: PyTree
    register: PyTree
    key: Key | None
    carry: PyTree


class Info(NamedTuple):
    """What a row did; pass `collect` to keep some of it.

    Attributes:
        index: the row.
        time, alpha, sigma: level of the evaluation.
        anchor: the anchor before the row.
        point: where the model was evaluated.
        denoised: the data prediction there (the first, if there are several).
        predictions: all that the denoiser returned, a tuple.
        evaluations: the same in the basis the plan integrates in, a tuple.
        noise: the z that was drawn, or None.
        sample: the anchor after the row: a solution at the step's end.
    """

    index: Array
    time: Array
    alpha: Array
    sigma: Array
    anchor: PyTree
    point: PyTree
    denoised: PyTree
    predictions: tuple
    evaluations: tuple
    noise: PyTree
    sample: PyTree


# --------------------------------------------------------------------- random numbers


def _batched(x: PyTree) -> int | None:
    """Size of the leading axis that all leaves share, None if they do not."""
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in jax.tree.leaves(x)}
    return sizes.pop() if len(sizes) == 1 else None


def _keys(key: Any, x: PyTree) -> Key:
    """One key per sample: given, or sample i's is fold_in(key, i)."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    batch = _batched(x)
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


def normal(key: Key, row: Any, like: PyTree) -> PyTree:
    """Standard normal noise of a row, a function of (sample key, row) alone.

    Args:
        key: keys, shape (B,) for leaves of shape (B, ...), or one key.
        row: the row's index.
        like: a tree whose shapes and dtypes the noise takes.
    """
    leaves, structure = jax.tree.flatten(like)

    def draw(key: Key, number: int, shape: tuple, dtype: Any) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(key, row), number)
        return jax.random.normal(key, shape, dtype)

    def leaf(number: int, value: Any) -> Array:
        if key.ndim == 0:
            return draw(key, number, value.shape, value.dtype)
        return jax.vmap(lambda k: draw(k, number, value.shape[1:], value.dtype))(key)

    return structure.unflatten([leaf(i, v) for i, v in enumerate(leaves)])


def prior(
    process: Any, key: Key, shape: Any, *, start: float | None = None, dtype: Any = None
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
    if isinstance(shape, tuple | list) and all(isinstance(n, int) for n in shape):
        kind = jnp.result_type(float) if dtype is None else dtype
        shape = jax.ShapeDtypeStruct(tuple(shape), kind)
    start = process.start if start is None else start
    z = normal(_keys(key, shape), _PRIOR, shape)
    return jax.tree.map(lambda v: jnp.asarray(process.sigma(start), v.dtype) * v, z)


# -------------------------------------------------------------------------- one run


def _floating(x: PyTree) -> PyTree:
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
    x = _floating(x)
    keys = None if key is None else _keys(key, x)
    start = plan.start
    anchor = point = x
    register = jax.tree.map(jnp.zeros_like, x) if plan.rows.register else None
    history = jax.tree.map(lambda v: jnp.zeros((plan.slots, *v.shape), v.dtype), x)
    if start is not None:
        drawn = (start.anchor_noise, start.point_noise, start.register_noise)
        if any(w is not None for w in drawn) and noise is None:
            noise = normal(_needed(keys), _START, x)
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


def _needed(key: Key | None) -> Key:
    if key is None:
        raise ValueError(
            "this plan draws noise; pass key=jax.random.key(0), or noise=... to "
            "inject your own."
        )
    return key


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
    return tuple(_like(point, prediction) for prediction in several), carry


def _like(x: PyTree, prediction: PyTree) -> PyTree:
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
                f"{jax.tree_util.keystr(path)} of shape {value.shape}. Does the net "
                "also predict a variance? Keep its first half."
            )
        return found.astype(value.dtype)

    return jax.tree_util.tree_map_with_path(leaf, x, prediction)


def _level(row: Row, x: PyTree) -> Row:
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
    row = _level(row, state.point)
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
        z = normal(_needed(state.key), row.index, state.point)
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


def _rows_noise(noise: NoiseSource, plan: Plan) -> tuple[PyTree, PyTree]:
    """Recorded noise as (start's z, rows' z); the former only if the plan draws it."""
    lengths = {v.shape[0] for v in jax.tree.leaves(noise)}
    start = plan.start
    extra = int(
        start is not None
        and any(
            w is not None
            for w in (start.anchor_noise, start.point_noise, start.register_noise)
        )
    )
    if lengths != {plan.length + extra}:
        raise ValueError(
            f"noise must have a leading axis of {plan.length + extra} (one draw per "
            f"row{', the start first' if extra else ''}), got {sorted(lengths)}."
        )
    if not extra:
        return None, noise
    return (
        jax.tree.map(lambda v: v[0], noise),
        jax.tree.map(lambda v: v[1:], noise),
    )


def run(
    plan: Plan,
    denoiser: Denoiser,
    state: State,
    *,
    noise: NoiseSource | None = None,
    collect: Callable[[State, Info], PyTree] | None = None,
    checkpoint: bool = False,
    progress: Callable[[int, int], None] | None = None,
    preview: Callable[[int, int, PyTree], None] | None = None,
) -> tuple[State, PyTree]:
    """All rows of a plan from a state on: one scan.

    Args:
        plan: the plan, or a slice of one.
        denoiser: (x, context, carry) -> (prediction, carry).
        state: from `init`, or from an earlier run of the rows before.
        noise: recorded noise with a leading axis of rows, or a function
            (row index, tree like x) -> z; None draws from the state's keys.
        collect: (state after the row, info) -> what to keep of each row.
        checkpoint: recompute the rows in reverse mode instead of storing them.
        progress: called on the host as (rows done, rows), in order.
        preview: called on the host as (rows done, rows, denoised), in order.

    Returns:
        The last state, and what was collected, stacked over rows (or None).
    """
    _check_carry(denoiser, state, plan)
    # a plan that continues another still counts its own rows
    first, total = plan.rows.index[0], plan.length

    def body(state: State, each: tuple[Row, PyTree]) -> tuple[State, PyTree]:
        row, z = each
        if callable(noise):
            z = noise(row.index, state.point)
        after, info = step(state, row, denoiser, noise=z, matrix=plan.matrix)
        if progress is not None:
            _tell(lambda i: progress(int(i) + 1, total), row.index - first)
        if preview is not None:
            _tell(
                lambda i, d: preview(int(i) + 1, total, d),
                row.index - first,
                info.denoised,
            )
        return after, None if collect is None else collect(after, info)

    if checkpoint:
        body = jax.checkpoint(body)
    recorded = None if callable(noise) else noise
    return jax.lax.scan(body, state, (plan.rows, recorded))


def _tell(function: Callable, *values: Any) -> None:
    jax.debug.callback(lambda *v: function(*v), *values, ordered=True)


def _check_carry(denoiser: Denoiser, state: State, plan: Plan) -> None:
    """Fail with our words, not scan's, where the denoiser changes its carry's type."""
    if state.carry is None and getattr(denoiser, "initial_carry", None) is None:
        return
    row = _level(jax.tree.map(lambda w: w[0], plan.rows), state.point)
    context = Context(row.index, *row.level, row.controls)
    after = jax.eval_shape(denoiser, state.point, context, state.carry)[1]
    before = jax.eval_shape(lambda c: c, state.carry)
    if jax.tree.structure(after) != jax.tree.structure(before) or any(
        (a.shape, a.dtype) != (b.shape, b.dtype)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    ):
        raise ValueError(
            f"denoiser must return a carry like the one it gets: got {after} for "
            f"{before}."
        )


def _sample(
    plan: Plan,
    denoiser: Any,
    x: PyTree,
    key: Key | None,
    noise: Any,
    options: "_Options",
) -> PyTree:
    denoiser = options.denoiser if denoiser is None else denoiser
    noise = options.noise if options.noise is not None else noise
    first = None
    if noise is not None and not callable(noise):
        noise = jax.tree.map(jnp.asarray, noise)
        first, noise = _rows_noise(noise, plan)
    elif callable(noise) and plan.start is not None:
        first = noise(jnp.asarray(-1), _floating(x))
    if noise is None and plan.stochastic:
        _needed(key)
    start = getattr(denoiser, "initial_carry", None)
    carry = None if start is None else start(_floating(x))
    state = init(plan, x, key, carry=carry, noise=first)
    state, kept = run(
        plan,
        denoiser,
        state,
        noise=noise,
        collect=options.collect,
        checkpoint=options.checkpoint,
        progress=options.progress,
        preview=options.preview,
    )
    return state.point if options.collect is None else (state.point, kept)


class _Options(NamedTuple):
    """What is static in a compiled run."""

    denoiser: Any = None  # a plain function; one that is a pytree is an argument
    noise: Any = None  # a function; recorded noise is an argument
    collect: Any = None
    checkpoint: bool = False
    progress: Any = None
    preview: Any = None


_compiled = jax.jit(_sample, static_argnames="options")


def sample(
    plan: Plan,
    denoiser: Denoiser,
    x: PyTree,
    *,
    key: Key | None = None,
    noise: NoiseSource | None = None,
    controls: PyTree = None,
    collect: Callable[[State, Info], PyTree] | None = None,
    checkpoint: bool = False,
    progress: Callable[[int, int], None] | None = None,
    preview: Callable[[int, int, PyTree], None] | None = None,
) -> Any:
    """Draw samples: run every row of a plan, compiled.

    The compiled program is reused for any plan of equal shape (another solver, grid,
    guidance scale or process), and for any denoiser of `fd.models` with equal shapes.
    A denoiser that is a plain function is compiled once per function object.

    Args:
        plan: from `fd.solvers.NAME(process, ts)`.
        denoiser: (x, context, carry) -> (data prediction, carry), see `fd.models`.
        x: noise at the plan's first level, see `fd.prior`. A tree whose leaves share
            a leading axis is a batch along it; otherwise it is one sample.
        key: a key, or one per sample. Only stochastic plans need it. The noise is a
            function of (sample key, row): sample i is the same at any batch size.
        noise: recorded noise with a leading axis of rows, or a function
            (row index, tree like x) -> z, instead of drawing it.
        controls: per-row values for the denoiser, a tree with the rows' leading axis;
            replaces the plan's own.
        collect: (state, info) -> what to keep of each row.
        checkpoint: in reverse mode, recompute rows instead of storing them.
        progress: host function (rows done, rows), called in order.
        preview: host function (rows done, rows, denoised), called in order.

    Returns:
        The sample, a tree like x (float32 at least); with `collect` the pair
        (sample, what was collected, stacked over rows).

    Raises:
        ValueError: a stochastic plan without key, a denoiser of another shape, or
            controls whose leading axis is not the number of rows.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.unipc(process, fd.grids.log_snr(process, 8), order=3)
        >>> model = fd.models.gaussian(mean=2.0, variance=0.25)
        >>> x = fd.prior(process, jax.random.key(0), (1000, 1))
        >>> bool(abs(fd.sample(plan, model, x).mean() - 2.0) < 0.05)
        True
    """
    if controls is not None:
        _check_controls(controls, plan)
        plan = _with_controls(plan, controls)
    check_plan = getattr(denoiser, "check_plan", None)
    if check_plan is not None:
        check_plan(plan)
    as_argument = not jax.tree_util.all_leaves([denoiser])
    noise_function = noise if callable(noise) else None
    options = _Options(
        None if as_argument else denoiser,
        noise_function,
        collect,
        checkpoint,
        progress,
        preview,
    )
    try:
        hash(options)
    except TypeError:  # an unhashable callable cannot key the cache
        return _sample(plan, denoiser, x, key, noise, options)
    return _compiled(
        plan,
        denoiser if as_argument else None,
        x,
        key,
        None if noise_function else noise,
        options,
    )


def _with_controls(plan: Plan, controls: PyTree) -> Plan:
    return dataclasses.replace(plan, rows=plan.rows._replace(controls=controls))


def _check_controls(controls: PyTree, plan: Plan) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(controls):
        if np.shape(leaf)[:1] != (plan.length,):
            raise ValueError(
                f"controls{jax.tree_util.keystr(path)} must have {plan.length} rows, "
                f"got shape {np.shape(leaf)}. One value per evaluation."
            )
