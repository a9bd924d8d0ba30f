"""Plans in which every element (frame, modality, pixel) has a time of its own.

Each element runs the plan of its own distinct times, and waits where its time repeats:

    moving   its own step's weights, at its own slots of the history
    waiting  anchor, history and register stay; the point is the one it waits at

Vectorised time: Chen et al. 2024 (2407.01392), Liu et al. 2024 (2410.03160), Sun et al.
2025 (2503.07418); per modality: Bao et al. 2023 (2303.06555).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ..numerics import levels
from ..typing import Process, PyTree
from .checks import validate
from .core import Level, Plan, Push, Row
from .waiting import Table, steps_of, with_waits

__all__ = ["per_element"]


class _Grid(NamedTuple):
    """The distinct columns of the times, and how the elements map to them."""

    times: np.ndarray  # (R + 1, U)
    moves: np.ndarray  # (R, U) bool
    of: list[np.ndarray]  # per leaf of ts, the column of each element, shape (...)
    structure: Any


def per_element(
    solver: Callable[..., Plan], process: Process, ts: PyTree, **options: Any
) -> Plan:
    """Per-element plan: each element is solved on its own distinct times.

    An element whose time repeats from one row to the next waits there: it does not
    move, draws no noise, stores nothing, and keeps its order when it goes on. So the
    order of a multistep method does not suffer from elements that run at different
    paces, as it does when the same `ts` is given to the solver itself. The denoiser
    sees the times of all elements, `context.time` of shape (...), and is evaluated at
    waiting elements too (their context may matter); what it says of those is unused.

    Args:
        solver: a function (process, ts, **options) -> Plan with one evaluation per
            step, such as `fd.solvers.dpmpp_2m` or `unipc`.
        process: the path.
        ts: times, shape (M + 1, ...), non-increasing along the first axis; the other
            axes broadcast against the state's last ones (see `fd.grids.align`). Or a
            dict of such arrays for a state that is a dict with these keys.
        **options: of the solver. It sees each element's distinct times: rules such as
            "order 1 at the last step below 15 steps" go by the element's own count.

    Returns:
        A plan of at most M rows: a row in which no element moves is left out. Weights
        that all elements share stay numbers, so equal columns give the solver's own
        plan.

    Note:
        x holds each element at its own first time: alpha(ts[0]) x_0 + sigma(ts[0]) z,
        so known values for an element that stays at the clean time. What the denoiser
        says of a waiting element is multiplied by 0 and must be finite. Where elements
        depend on one another, one that starts or stops bends the others' predictions:
        orders above 2 then tend to 2, unless only one moves at a time.

    Raises:
        ValueError: times that increase, differ in length or are traced; no element
            moves; a solver with several evaluations per step, a start move or controls.

    Example:
        Three frames, each two steps behind the one before; the first is known.

        >>> import jax, jax.numpy as jnp, fastdiff_jax as fd
        >>> process = fd.processes.flow()
        >>> base = fd.grids.uniform(process, 6, end=0.0)
        >>> ts = fd.grids.block_lagged(process, base, blocks=2, lag=2)
        >>> ts = fd.grids.known_prefix(process, ts, 1)
        >>> plan = fd.plan.per_element(fd.solvers.dpmpp_2m, process, ts)
        >>> plan.nfe, plan.rows.level.time.shape
        (8, (8, 3))
        >>> x = fd.prior(process, jax.random.key(0), (5, 3))
        >>> x = x.at[:, 0].set(0.7)  # known values enter through x
        >>> out = fd.sample(plan, fd.models.gaussian(1.0, 0.1), x)
        >>> bool(jnp.all(out[:, 0] == x[:, 0]))
        True
    """
    grid = _columns(process, ts)
    plans: dict[bytes, Plan] = {}
    keys = []  # of each column's plan
    for u in range(grid.times.shape[1]):
        times = grid.times[np.append(grid.moves[:, u], True), u]
        keys.append(times.tobytes())
        if len(times) > 1 and keys[-1] not in plans:
            plans[keys[-1]] = _checked(solver, process, times, options)
    slots = max(plan.slots for plan in plans.values())
    full = {key: with_waits(plan, slots) for key, plan in plans.items()}
    other = next(iter(full.values()))  # an element that never moves waits in any plan

    tables = []
    for u, key in enumerate(keys):
        table, moves = full.get(key, other), grid.moves[:, u]
        taken = np.cumsum(moves) - moves  # steps before each row
        at = np.where(moves, taken, steps_of(table) + taken)
        tables.append(jax.tree.map(lambda w, at=at: w[at], table))
        _check_waits(tables[-1], taken, solver)
    own = [plans.get(key) for key in keys]
    joined = jax.tree.map(lambda *w: np.stack(w, axis=-1), *tables)
    made = _plan(joined, _levels(process, grid, own), grid, list(plans.values()))
    validate(made)
    return made


# --------------------------------------------------------------- times to columns


def _columns(process: Process, ts: PyTree) -> _Grid:
    """Checked times as distinct columns, without the rows in which nothing moves."""
    if isinstance(ts, dict):
        named, structure = jax.tree_util.tree_flatten_with_path(ts)
    else:
        named, structure = [((), ts)], None
    leaves = []
    for path, leaf in named:
        name = f"ts{jax.tree_util.keystr(path)}"
        if isinstance(leaf, jax.core.Tracer):
            raise ValueError(
                f"per_element needs {name} as numbers: which element waits where "
                "shapes the plan. Build it outside jit, and pass it in."
            )
        leaves.append(np.asarray(leaf, np.float64))
        if leaves[-1].size:
            levels(process, leaves[-1], name)  # checks them
    shapes = [leaf.shape for leaf in leaves]
    if len({shape[:1] for shape in shapes}) != 1 or not all(v.size for v in leaves):
        raise ValueError(
            "ts must hold at least one element, and all its arrays the same number of "
            f"times; got shapes {shapes}. Repeat the last time of the shorter ones."
        )
    flat = np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
    times, of = np.unique(flat, axis=1, return_inverse=True)
    moves = times[1:] < times[:-1]
    live = moves.any(axis=1)
    if not live.any():
        raise ValueError(
            "ts must decrease somewhere: no element moves in any of its "
            f"{len(moves)} rows. Nothing is left to sample."
        )
    parts = np.split(of.reshape(-1), np.cumsum([leaf[0].size for leaf in leaves])[:-1])
    of = [p.reshape(v.shape[1:]) for p, v in zip(parts, leaves, strict=True)]
    return _Grid(times[np.append(live, True)], moves[live], of, structure)


def _checked(solver: Any, process: Process, times: np.ndarray, options: dict) -> Plan:
    """The solver's plan of one element, refused where it cannot wait between steps."""
    plan, name = solver(process, times, **options), _name(solver)
    if any(isinstance(w, jax.core.Tracer) for w in jax.tree.leaves(plan)):
        raise ValueError(
            f"per_element needs {name}'s options as numbers, got traced ones. Build "
            "the plan outside jit, and pass it in."
        )
    plan = jax.tree.map(np.asarray, plan)
    level = plan.rows.level.time
    if plan.length != len(times) - 1 or not np.array_equal(level, times[:-1]):
        raise ValueError(
            "per_element needs one evaluation per step, at the step's own time; "
            f"{name} makes {plan.length} rows for {len(times) - 1} steps. Use a "
            "multistep solver, such as dpmpp_2m, unipc or sa_solver."
        )
    extras = {
        "a start move": plan.start is not None,
        "controls": plan.rows.controls is not None,
        "padding": plan.rows.active is not None,
        "matrix weights": plan.matrix,
    }
    found = [what for what, there in extras.items() if there]
    if found:
        raise ValueError(
            f"per_element does not join plans with {' and '.join(found)}, as {name} "
            "makes. Leave those options out, or add controls to the joined plan."
        )
    return plan


def _check_waits(table: Table, taken: np.ndarray, solver: Any) -> None:
    if table.lost.any():
        raise ValueError(
            f"per_element cannot wait after step {taken[np.argmax(table.lost)] - 1} of "
            f"{_name(solver)}: the noise it moved the point by is not kept. Use a "
            "solver that draws it when it advances, such as sde_dpmpp_2m."
        )


def _levels(process: Process, grid: _Grid, own: list[Plan | None]) -> Level:
    """Time, alpha, sigma of every row and of the end, (R + 1, U)."""
    columns = []
    for u, plan in enumerate(own):
        taken = np.append(0, np.cumsum(grid.moves[:, u]))
        if plan is None:
            lv = levels(process, grid.times[:, u])
            columns.append(Level(lv.time, lv.alpha, lv.sigma))
            continue
        columns.append(
            jax.tree.map(
                lambda w, end, at=taken: np.append(w, end)[at],
                plan.rows.level,
                plan.end,
            )
        )
    return jax.tree.map(lambda *w: np.stack(w, axis=-1), *columns)


def _name(solver: Any) -> str:
    return getattr(solver, "__name__", str(solver))


# ------------------------------------------------------------------- all elements


def _plan(table: Table, level: Level, grid: _Grid, plans: list[Plan]) -> Plan:
    """The table of all columns, (R, ..., U), as a plan of elements."""
    rows = len(table.written)
    slot = _writes(table.written.any(axis=-1))
    at = (np.arange(rows)[:, None], slot)

    def spread(w: np.ndarray, always: bool = False) -> PyTree:
        if not always and (w == w[..., :1]).all():
            return w[..., 0]
        parts = []
        for of in grid.of:
            found = w[..., of]
            same = (w[..., of.ravel()] == w[..., of.ravel()[:1]]).all()
            parts.append(w[..., of.flat[0]] if same and not always else found)
        return parts[0] if grid.structure is None else grid.structure.unflatten(parts)

    def weights(found: Any, name: str) -> Any:
        """Spread, without what no plan has."""
        each = [getattr(plan.rows, name) for plan in plans]
        out = {}
        for field, w in found._asdict().items():
            absent = all(e is None or getattr(e, field) is None for e in each)
            out[field] = None if absent and not w.any() else spread(w)
        return type(found)(**out)

    register = None
    if any(plan.rows.register is not None for plan in plans):
        register = weights(table.register, "register")
    row = Row(
        index=np.arange(rows, dtype=np.int32),
        level=Level(*(spread(w[:-1], always=True) for w in level)),
        convert=weights(table.convert, "convert"),
        advance=weights(table.advance, "advance"),
        push=Push(slot, spread(table.evaluation[at]), spread(table.history[at])),
        predict=weights(table.predict, "predict"),
        register=register,
    )
    return Plan(row, Level(*(spread(w[-1], always=True) for w in level)))


def _writes(written: np.ndarray) -> np.ndarray:
    """The slots that each row writes, (R, W); short of W, others: they keep theirs."""
    count = int(written.sum(axis=1).max(initial=0))
    return np.argsort(~written, axis=1, kind="stable")[:, :count].astype(np.int32)
