"""run and sample: all rows of a plan in one scan, compiled."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..guards import checked, must
from ..hooks import accepts, carry_of, check_reads
from ..noise.streams import needed
from ..plan import Level, Plan, Row
from ..plan.validity import same_registers, valid
from ..programs import compiled
from ..states import floating, some_arrays
from ..trees import as_tree, concrete
from ..typing import Array, Denoiser, Key, NoiseSource, PyTree, check_controls
from .state import Info, State
from .step import init, level_of, noise_like, step

__all__ = ["Move", "run", "sample"]

Move = Callable[[State, Info, Row, Level], State]
"""What happens after each row: (state, info, row, level reached) -> state."""


def _rows_noise(noise: PyTree, plan: Plan, x: PyTree) -> tuple[PyTree, PyTree]:
    """Recorded noise as (start's z, rows' z); the former only if the plan draws it."""
    lengths = {np.shape(v)[:1] for v in jax.tree.leaves(noise)}
    extra = int(plan.start is not None and plan.start.noise is not None)
    if extra and plan.rows.active is not None and lengths == {(plan.length,)}:
        extra = 0  # a padded plan may have a start that only could draw
    if lengths != {(plan.length + extra,)}:
        raise ValueError(
            f"noise must have a leading axis of {plan.length + extra} (one draw per "
            f"row{', the start first' if extra else ''}), got "
            f"{sorted(map(str, lengths))}."
        )
    noise = noise_like(noise, x, (plan.length + extra,))
    if not extra:
        return jax.tree.map(lambda v: jnp.zeros_like(v[0]), noise), noise
    return (
        jax.tree.map(lambda v: v[0], noise),
        jax.tree.map(lambda v: v[1:], noise),
    )


@checked
def run(
    plan: Plan,
    denoiser: Denoiser,
    state: State,
    *,
    noise: NoiseSource | None = None,
    collect: Callable[[State, Info], PyTree] | None = None,
    move: Move | None = None,
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
        move: (state after the row, info, row, level it reached) -> state: what happens
            after each row, such as setting known pixels or a Langevin step. It may
            draw noise with `fd.noise.side_noise`.
        checkpoint: recompute the rows in reverse mode instead of storing them.
        progress: called on the host as (rows done, rows), in order.
        preview: called on the host as (rows done, rows, denoised), in order.

    Returns:
        The last state, and what was collected, stacked over rows (or None).

    Raises:
        ValueError: a plan that fails `plan.validate`, a state of another plan, a
            denoiser that does not give what the plan reads, or that changes its carry's
            type.
    """
    same_registers(valid(plan).registers, state.registers)
    check_reads(denoiser, plan.reads)
    # a plan that continues another still counts its own rows
    first, total = plan.rows.index[0], plan.length

    def body(state: State, each: tuple[Row, PyTree, PyTree]) -> tuple[State, PyTree]:
        row, reached, z = each
        if callable(noise):
            z = noise_like(noise(row.index, state.point), state.point)
        after, info = step(state, row, denoiser, noise=z, matrix=plan.matrix)
        _check_carry(state.carry, after.carry)
        if move is not None and row.active is None:
            after = _moved(move, after, info, row, reached)
        elif move is not None:  # padding is the identity
            moved = partial(_moved, move, after, info, row, reached)
            after = jax.lax.cond(row.active, moved, lambda: after)
        if progress is not None:
            _tell("progress", progress, total, row.index - first)
        if preview is not None:
            _tell("preview", preview, total, row.index - first, info.denoised)
        return after, None if collect is None else collect(after, info)

    if checkpoint:
        body = jax.checkpoint(body)
    recorded = None
    if noise is not None and not callable(noise):
        recorded = noise_like(noise, state.point, (plan.length,))
    reached = None if move is None else _reached(plan, state.point)
    return jax.lax.scan(body, state, (plan.rows, reached, recorded))


def _reached(plan: Plan, x: PyTree) -> Level:
    """Where each row's point stands: the level of the row after it."""

    def shifted(level: Any, end: Any) -> Any:
        return jnp.concatenate([jnp.asarray(level)[1:], jnp.asarray(end)[None]])

    return level_of(Level(*jax.tree.map(shifted, plan.rows.level, plan.end)), x)


_failed: dict[Callable, tuple[str, Exception]] = {}
"""What functions on the host raised first, until the run that calls them is back."""


def _tell(name: str, function: Callable, total: int, row: Array, *v: PyTree) -> None:
    def tell(i: Any, *values: PyTree) -> None:
        try:
            function(int(i) + 1, total, *values)
        except Exception as error:  # raised in a thread of jax' it would be lost
            _failed.setdefault(function, (name, error))

    jax.debug.callback(tell, row, *v, ordered=True)


def _raise_failed(told: tuple) -> None:
    """Raise what one of a run's own functions on the host raised."""
    jax.effects_barrier()
    for name, error in filter(None, [_failed.pop(f, None) for f in told]):
        raise ValueError(
            f"{name} must not raise, it raised {type(error).__name__}: {error}"
        ) from error


def _check_carry(before: PyTree, after: PyTree) -> None:
    """Fail with our words, not scan's, where the denoiser changes its carry's type."""
    kind = lambda tree: jax.tree.map(jax.typeof, tree)  # noqa: E731
    same = jax.tree.structure(after) == jax.tree.structure(before) and all(
        (jnp.shape(a), jnp.result_type(a)) == (jnp.shape(b), jnp.result_type(b))
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    )
    if not same:
        raise ValueError(
            f"denoiser must return a carry like the one it gets: got {kind(after)} for "
            f"{kind(before)}. One that keeps a state defines initial_carry(x)."
        )


def _moved(move: Move, *args: Any) -> State:
    """The state after a move, checked."""
    state = move(*args)
    if not isinstance(state, State):
        raise must("move", "a function that returns the next state", state)
    return state


class _Options(NamedTuple):
    """What is static in a compiled run."""

    collect: Any = None
    checkpoint: bool = False


class _Told(NamedTuple):
    """Functions on the host, static too."""

    progress: Any = None
    preview: Any = None


class _Parts(NamedTuple):
    """What a run is made of, each an argument: functions are constants in it."""

    denoiser: Any
    noise: Any = None
    move: Any = None


def _sample(
    plan: Plan,
    parts: _Parts,
    x: PyTree,
    key: Key | None,
    options: _Options,
    told: _Told,
) -> PyTree:
    noise, first, x = parts.noise, None, floating(x)
    if noise is not None and not callable(noise):
        first, noise = _rows_noise(noise, plan, x)
    elif noise is not None and plan.start is not None and plan.start.noise is not None:
        first = noise_like(noise(jnp.asarray(-1), x), x)
    if noise is None and plan.stochastic:
        needed(key)
    state = init(plan, x, key, carry=carry_of(parts.denoiser, x), noise=first)
    state, kept = run(
        plan,
        parts.denoiser,
        state,
        noise=noise,
        move=parts.move,
        **options._asdict(),
        **told._asdict(),
    )
    return state.point if options.collect is None else (state.point, kept)


_compiled = compiled(_sample, static=("options", "told"), host=("told",))


@checked
def sample(
    plan: Plan,
    denoiser: Denoiser,
    x: PyTree,
    *,
    key: Key | None = None,
    noise: NoiseSource | None = None,
    controls: PyTree = None,
    collect: Callable[[State, Info], PyTree] | None = None,
    move: Move | None = None,
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
            (row index, tree like x) -> z, instead of drawing it; see `fd.noise`.
        controls: per-row values for the denoiser, a tree with the rows' leading axis;
            replaces the plan's own. Names as in `fd.typing.CONTROLS`.
        collect: (state, info) -> what to keep of each row.
        move: (state, info, row, level reached) -> state, after each row, see `run` and
            `fd.moves`.
        checkpoint: in reverse mode, recompute rows instead of storing them.
        progress: host function (rows done, rows), called in order.
        preview: host function (rows done, rows, denoised), called in order.

    Returns:
        The sample, a tree like x (float32 at least); with `collect` the pair
        (sample, what was collected, stacked over rows).

    Raises:
        ValueError: a plan that fails `plan.validate`, a stochastic one without key, a
            denoiser of another shape or that gives something else than the plan reads,
            unknown controls, or controls whose leading axis is not the number of rows.

    Example:
        >>> import jax, fastdiff_jax as fd
        >>> process = fd.processes.vp_linear()
        >>> plan = fd.solvers.unipc(process, fd.grids.log_snr(process, 8), order=3)
        >>> model = fd.models.gaussian(mean=2.0, variance=0.25)
        >>> x = fd.prior(process, jax.random.key(0), (4000, 1))
        >>> bool(abs(fd.sample(plan, model, x).mean() - 2.0) < 0.05)
        True
    """
    valid(plan)
    some_arrays(x)
    if controls is not None:
        check_rows(controls, plan.length)
        plan = dataclasses.replace(plan, rows=plan.rows._replace(controls=controls))
    check_controls(plan.rows.controls)
    check_reads(denoiser, plan.reads)
    for part in (denoiser, noise, move):
        accepts(part, plan)
    parts = _Parts(*(as_tree(part) for part in (denoiser, noise, move)))
    options, told = _Options(collect, checkpoint), _Told(progress, preview)
    out = _compiled(plan, parts, x, key, options=options, told=told)
    if told != _Told() and concrete(out):
        _raise_failed(told)
    return out


def check_rows(controls: PyTree, count: int) -> None:
    """Controls have one value per row.

    Raises:
        ValueError: another leading axis.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(controls):
        if np.shape(leaf)[:1] != (count,):
            raise ValueError(
                f"controls{jax.tree_util.keystr(path)} must have {count} rows, "
                f"got shape {np.shape(leaf)}. One value per evaluation."
            )
