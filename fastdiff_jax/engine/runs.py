"""run and sample: all rows of a plan in one scan, compiled."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..hooks import carry_of, check_inner
from ..plan import Level, Plan, Row
from ..typing import Context, Denoiser, Key, NoiseSource, PyTree
from .noise import needed
from .rows import floating, init, level_of, step
from .state import Info, State

__all__ = ["Post", "run", "sample"]

Post = Callable[[State, Info, Row, Level], State]
"""A move after each row: (state, info, row, level reached) -> state."""


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
    post: Post | None = None,
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
        post: (state after the row, info, row, level it reached) -> state: a move after
            each row, such as setting known pixels or a Langevin step. It may draw
            noise with `engine.side_noise`.
        checkpoint: recompute the rows in reverse mode instead of storing them.
        progress: called on the host as (rows done, rows), in order.
        preview: called on the host as (rows done, rows, denoised), in order.

    Returns:
        The last state, and what was collected, stacked over rows (or None).
    """
    _check_carry(denoiser, state, plan)
    # a plan that continues another still counts its own rows
    first, total = plan.rows.index[0], plan.length

    def body(state: State, each: tuple[Row, Level, PyTree]) -> tuple[State, PyTree]:
        row, reached, z = each
        if callable(noise):
            z = noise(row.index, state.point)
        after, info = step(state, row, denoiser, noise=z, matrix=plan.matrix)
        if post is not None and row.active is None:
            after = post(after, info, row, reached)
        elif post is not None:  # padding is the identity
            moved = partial(post, after, info, row, reached)
            after = jax.lax.cond(row.active, moved, lambda: after)
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
    reached = None if post is None else _reached(plan, state.point)
    return jax.lax.scan(body, state, (plan.rows, reached, recorded))


def _reached(plan: Plan, x: PyTree) -> Level:
    """Where each row's point stands: the level of the row after it."""

    def shifted(level: Any, end: Any) -> Any:
        return jnp.concatenate([jnp.asarray(level)[1:], jnp.asarray(end)[None]])

    after = jax.tree.map(shifted, plan.rows.level, plan.end)
    return level_of(plan.rows._replace(level=after), x).level


def _tell(function: Callable, *values: Any) -> None:
    jax.debug.callback(lambda *v: function(*v), *values, ordered=True)


def _check_carry(denoiser: Denoiser, state: State, plan: Plan) -> None:
    """Fail with our words, not scan's, where the denoiser changes its carry's type."""
    if state.carry is None and getattr(denoiser, "initial_carry", None) is None:
        return
    row = level_of(jax.tree.map(lambda w: w[0], plan.rows), state.point)
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
    post: Any,
    options: "_Options",
) -> PyTree:
    denoiser = options.denoiser if denoiser is None else denoiser
    noise = options.noise if noise is None else noise
    post = options.post if post is None else post
    first = None
    if noise is not None and not callable(noise):
        noise = jax.tree.map(jnp.asarray, noise)
        first, noise = _rows_noise(noise, plan)
    elif callable(noise) and plan.start is not None:
        first = noise(jnp.asarray(-1), floating(x))
    if noise is None and plan.stochastic:
        needed(key)
    carry = carry_of(denoiser, floating(x))
    state = init(plan, x, key, carry=carry, noise=first)
    state, kept = run(
        plan,
        denoiser,
        state,
        noise=noise,
        collect=options.collect,
        post=post,
        checkpoint=options.checkpoint,
        progress=options.progress,
        preview=options.preview,
    )
    return state.point if options.collect is None else (state.point, kept)


class _Options(NamedTuple):
    """What is static in a compiled run."""

    denoiser: Any = None  # a plain function; one that is a pytree is an argument
    noise: Any = None  # likewise
    post: Any = None  # likewise
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
    post: Post | None = None,
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
            (row index, tree like x) -> z, instead of drawing it; see `fd.brownian`.
        controls: per-row values for the denoiser, a tree with the rows' leading axis;
            replaces the plan's own.
        collect: (state, info) -> what to keep of each row.
        post: (state, info, row, level reached) -> state, a move after each row, see
            `run`.
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
        >>> x = fd.prior(process, jax.random.key(0), (4000, 1))
        >>> bool(abs(fd.sample(plan, model, x).mean() - 2.0) < 0.05)
        True
    """
    if controls is not None:
        _check_controls(controls, plan)
        plan = _with_controls(plan, controls)
    for part in (denoiser, noise, post):
        check_inner(part, plan)
    parts, options = {}, {}
    for name, part in {"denoiser": denoiser, "noise": noise, "post": post}.items():
        # a function is compiled in; a pytree, callable or not, is an argument
        function = callable(part) and jax.tree_util.all_leaves([part])
        parts[name] = None if function else part
        options[name] = part if function else None
    static = _Options(
        **options,
        collect=collect,
        checkpoint=checkpoint,
        progress=progress,
        preview=preview,
    )
    try:
        hash(static)
    except TypeError:  # an unhashable callable cannot key the cache
        return _sample(plan, x=x, key=key, options=static, **parts)
    return _compiled(plan, x=x, key=key, options=static, **parts)


def _with_controls(plan: Plan, controls: PyTree) -> Plan:
    return dataclasses.replace(plan, rows=plan.rows._replace(controls=controls))


def _check_controls(controls: PyTree, plan: Plan) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(controls):
        if np.shape(leaf)[:1] != (plan.length,):
            raise ValueError(
                f"controls{jax.tree_util.keystr(path)} must have {plan.length} rows, "
                f"got shape {np.shape(leaf)}. One value per evaluation."
            )
