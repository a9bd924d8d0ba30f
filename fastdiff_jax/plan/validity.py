"""What every plan holds: its records, shapes and dtypes, and numbers that make sense.

Shapes and dtypes are checked of any plan, traced ones too; numbers where they are NumPy
(on a device they would have to be fetched). A plan is checked when it is built or read,
and again, once per object, when it is run: 50 microseconds.
"""

import math
import weakref
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ..trees import concrete
from .core import Level, Plan, Row, Start

__all__ = ["check_row", "one_plan", "readable", "same_registers"]
__all__ += ["valid", "validate"]

MOST_ROWS = 10**6  # of a plan that is padded: its weights are made at once

_LINES = ("registers", "predictions", "noise", "bias")
_TAKE = "jax.tree.map(lambda w: w[i], {})"
_FOUND_GOOD: dict[int, weakref.ref] = {}  # by id: plans of arrays have no hash


def validate(plan: Plan) -> None:
    """Check all that a plan holds, its numbers where they are NumPy.

    Levels may go up from row to row (churn and ancestral steps raise the noise) and
    weights may be any finite numbers; alpha and sigma are at least 0 unless they are
    matrices, and both are 0 only where a path is pinned, at the largest time.

    Raises:
        ValueError: naming the field, the row, the value and the rule.
    """
    one_plan(plan)
    rows = plan.rows
    _whole(rows.index, "index", 1)
    _whole(rows.to, "to", 2)
    length, writes = rows.to.shape
    _lead(rows.index, "index", length)
    registers = predictions = 0
    for name in _LINES:
        for path, leaf in _leaves(getattr(rows, name), name, length):
            _weight(leaf, path, 3 if name in _LINES[:2] else 2)
            least = 2 if name == "noise" else writes + 1
            if not least <= leaf.shape[1] <= writes + 1:
                raise ValueError(
                    f"plan weight {path} must have {writes + 1} lines (one per write, "
                    f"then the sample), got shape {leaf.shape}."
                )
            if name == "registers":
                registers = _same(registers, leaf.shape[2], path)
            elif name == "predictions":
                predictions = _same(predictions, leaf.shape[2], path)
    if not registers or predictions != len(plan.reads):
        raise ValueError(
            "a plan needs registers, and weights on as many predictions as it reads: "
            f"{len(plan.reads)} ({', '.join(plan.reads)}); got {registers} registers "
            f"and {predictions} predictions."
        )
    _check_basis(rows, length)
    _check_start(plan.start, registers)
    _check_levels(plan)
    _check_numbering(plan, registers)
    for path, leaf in _leaves(rows.controls, "controls", length):
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSUMm":
            raise ValueError(f"plan {path} must be numbers, got {leaf.dtype}.")
        _finite(leaf, path)
    here = id(plan)
    forget = lambda _: _FOUND_GOOD.pop(here, None)  # noqa: E731
    _FOUND_GOOD[here] = weakref.ref(plan, forget)


def valid(plan: Plan) -> Plan:
    """The plan itself, validated unless this very object has been.

    Arrays that are edited in place afterwards are not looked at again: change a plan
    with `dataclasses.replace`.

    Raises:
        ValueError: as `validate`.
    """
    seen = _FOUND_GOOD.get(id(plan))
    if seen is None or seen() is not plan:
        validate(plan)
    return plan


def one_plan(plan: Any) -> None:
    """A plan of records and rows, not a stack of plans nor something else.

    Raises:
        ValueError: something else, with what to do.
    """
    if not isinstance(plan, Plan):
        raise ValueError(
            "plan must be a Plan, as fd.solvers.NAME(process, ts) makes; got "
            f"{type(plan).__name__}."
        )
    fields = (
        ("rows", plan.rows, Row),
        ("rows.level", getattr(plan.rows, "level", None), Level),
        ("end", plan.end, Level),
        ("start", plan.start, Start if plan.start is not None else type(None)),
    )
    for name, value, kind in fields:
        if not isinstance(value, kind):
            raise ValueError(
                f"plan.{name} must be a {kind.__name__}, got {type(value).__name__}."
            )
    reads = plan.reads
    named = isinstance(reads, tuple) and all(
        isinstance(name, str) and name.isidentifier() for name in reads
    )
    if not named or not reads or len(set(reads)) < len(reads):
        raise ValueError(
            "plan.reads must be a tuple of names of predictions, such as ('data',), "
            f"each once; got {reads!r}."
        )
    if not isinstance(plan.matrix, bool):
        raise ValueError(f"plan.matrix must be True or False, got {plan.matrix!r}.")
    axes = np.ndim(plan.rows.index)
    if axes == 2:
        raise ValueError(
            f"this is a stack of {np.shape(plan.rows.index)[0]} plans, which only "
            "jax.vmap runs. For one of them, take " + _TAKE.format("stack") + "."
        )
    if axes != 1 or not np.shape(plan.rows.index)[0]:
        raise ValueError(
            "plan.rows must have at least one row, on a leading axis; got index of "
            f"shape {np.shape(plan.rows.index)}."
        )


def readable(plan: Plan, what: str) -> Plan:
    """One plan of numbers, not of tracers.

    Raises:
        ValueError: a stack, something else, or a traced plan.
    """
    one_plan(plan)
    if not concrete(plan):
        raise ValueError(
            f"{what} needs a plan of numbers, got a traced one. Call it outside jit."
        )
    return plan


def check_row(row: Row, held: tuple) -> None:
    """One row, for as many registers as a state holds.

    Raises:
        ValueError: whole rows, another number of registers, or weights that are not
            finite.
    """
    if not isinstance(row, Row) or np.ndim(row.to) != 1:
        found = type(row).__name__ if not isinstance(row, Row) else "several"
        raise ValueError(
            f"row must be one Row of a plan, got {found}. Take "
            + _TAKE.format("plan.rows")
            + ", or run them all with fd.run."
        )
    weights = {n: getattr(row, n) for n in _LINES}
    for name, tree in weights.items():
        leaves = [("", tree)] if isinstance(tree, np.ndarray) else _paths(tree)
        for path, leaf in leaves:
            if name == "registers":
                same_registers(leaf.shape[1], held)
            _finite(leaf, name + path)
    if isinstance(row.to, np.ndarray):
        _check_writes(row.to[None], len(held))


def same_registers(count: int, held: tuple) -> None:
    """A state holds the registers of the plan that goes on from it.

    Raises:
        ValueError: another number of them.
    """
    if count != len(held):
        raise ValueError(
            f"the plan keeps {count} registers and the state holds {len(held)}: it is "
            "of another plan. Begin with fd.init(plan, x, key), or go on with the plan "
            "that made the state."
        )


# ------------------------------------------------------------------------------ fields


def _paths(tree: Any) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in found]


def _leaves(tree: Any, name: str, length: int) -> Iterator[tuple[str, Any]]:
    """A field's arrays by name, each with the rows' axis."""
    if tree is None:
        return
    for path, leaf in [("", tree)] if isinstance(tree, np.ndarray) else _paths(tree):
        _lead(leaf, name + path, length)
        yield name + path, leaf


def _lead(leaf: Any, name: str, length: int) -> None:
    if np.shape(leaf)[:1] != (length,):
        raise ValueError(
            f"plan weight {name} must have {length} rows, got shape {np.shape(leaf)}."
        )


def _same(count: int, found: int, name: str) -> int:
    if count not in (0, found):
        raise ValueError(
            f"plan weight {name} is of {found} registers or predictions, others of "
            f"{count}. Give all leaves of the state as many."
        )
    return found


def _whole(leaf: Any, name: str, axes: int) -> None:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or dtype.kind not in "iu" or leaf.ndim != axes:
        raise ValueError(
            f"plan.rows.{name} must be whole numbers on {axes} axes, got {_what(leaf)}."
        )


def _what(leaf: Any) -> str:
    if hasattr(leaf, "dtype"):
        return f"{leaf.dtype} of shape {leaf.shape}"
    return f"{type(leaf).__name__} {leaf!r}"


def _weight(leaf: Any, name: str, axes: int) -> None:
    """A weight is float32 or float64, with its axes, and finite."""
    dtype = getattr(leaf, "dtype", None)
    if dtype is None or dtype.kind != "f" or dtype.itemsize < 4 or leaf.ndim < axes:
        raise ValueError(
            f"plan weight {name} must be float64 or float32 on at least {axes} axes, "
            f"got {_what(leaf)}."
        )
    _finite(leaf, name)


def _finite(leaf: Any, name: str) -> None:
    if not isinstance(leaf, np.ndarray) or leaf.dtype.kind != "f":
        return
    if leaf.flags.c_contiguous and math.isfinite(np.vdot(leaf, leaf)):
        return  # the quick way; squares may overflow where numbers do not
    bad = ~np.isfinite(leaf)
    if bad.any():
        _refuse(leaf, bad, name, "finite")


def _refuse(leaf: np.ndarray, bad: np.ndarray, name: str, rule: str) -> None:
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    place = f" at row {at[0]}" if at else ""
    place += f", element {at[1:]}" if at[1:] else ""
    raise ValueError(
        f"plan weight {name} must be {rule}, got {leaf[at]}{place}. Check the grid "
        "around that row: a repeated time, or an end at alpha = 0 or sigma = 0?"
    )


def _check_basis(rows: Row, length: int) -> None:
    for name, leaf in _leaves(rows.basis, "basis", length):
        _weight(leaf, name, 2)
        if leaf.shape[1] != 2:
            raise ValueError(
                f"plan weight {name} must have 2 entries per row, got shape "
                f"{leaf.shape}."
            )


def _check_start(start: Start | None, registers: int) -> None:
    for field, tree in zip(Start._fields, start or (), strict=False):
        for name, leaf in _leaves(tree, f"start.{field}", registers):
            _weight(leaf, name, 1)
    if start is not None and start.x is None:
        raise ValueError("plan.start.x must hold a weight per register, got None.")


def _check_levels(plan: Plan) -> None:
    """Levels of rows and end: one shape, finite, alpha and sigma at least 0."""
    level, end = plan.rows.level, plan.end
    for field, of_rows, of_end in zip(Level._fields, level, end, strict=True):
        name, ends = f"level.{field}", jax.tree.leaves(of_end)
        rows = list(_leaves(of_rows, name, plan.length))
        if not rows or jax.tree.structure(of_rows) != jax.tree.structure(of_end):
            raise ValueError(
                f"plan.end.{field} must be a level like those of the rows, "
                f"{jax.tree.structure(of_rows)}; got {jax.tree.structure(of_end)}."
            )
        for (path, leaf), last in zip(rows, ends, strict=True):
            if np.shape(last) != leaf.shape[1:]:
                raise ValueError(
                    f"plan.end.{field} must have shape {leaf.shape[1:]}, a level's; "
                    f"got {np.shape(last)}."
                )
            _number(leaf, path, field, plan.matrix)
            _number(last, path.replace("level.", "end."), field, plan.matrix)
    if plan.matrix:
        return
    shapes = [[np.shape(w) for w in jax.tree.leaves(v)] for v in level]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2]:
        raise ValueError(
            "plan.rows.level must hold time, alpha and sigma of one shape, got "
            f"{', '.join(map(str, shapes))}."
        )
    alone = len(plan.reads) == 1  # a path between two points is pinned at both
    if alone and all(isinstance(v, np.ndarray) for v in level) and concrete(end):
        _check_pinned(level, end)


def _number(leaf: Any, name: str, field: str, matrix: bool) -> None:
    """A level's number: a time may be -inf where it is clean, a scale is >= 0."""
    dtype = getattr(leaf, "dtype", None)
    kind = dtype.kind if dtype is not None else np.asarray(leaf).dtype.kind
    if kind not in "fiu":
        raise ValueError(f"plan weight {name} must be a number, got {_what(leaf)}.")
    if isinstance(leaf, jax.Array):
        return
    leaf = np.asarray(leaf)
    low = leaf.min() if leaf.size else 0.0
    if field == "time":
        if not (low == low and leaf.max() < math.inf if leaf.size else True):
            _refuse(leaf, ~(leaf < math.inf), name, "finite, or -inf where it is clean")
        return
    _finite(leaf, name)
    if low < 0 and not matrix:
        _refuse(leaf, leaf < 0, name, ">= 0")


def _check_pinned(level: Level, end: Level) -> None:
    """Alpha = sigma = 0 only where a path is pinned to another point, as it starts."""
    empty = (level.alpha == 0) & (level.sigma == 0)
    last = np.asarray((np.asarray(end.alpha) == 0) & (np.asarray(end.sigma) == 0))
    if empty.any():
        empty = empty & (level.time < level.time.max())
    if empty.any() or last.any():
        row = f"row {int(np.argwhere(empty)[0][0])}" if empty.any() else "the end"
        raise ValueError(
            f"a level must have alpha > 0 or sigma > 0, got both 0 at {row}."
        )


def _check_numbering(plan: Plan, registers: int) -> None:
    """Rows are numbered and written to registers that are there; one at least runs."""
    rows, active = plan.rows, plan.rows.active
    if isinstance(rows.index, np.ndarray):
        low, high = int(rows.index.min()), int(rows.index.max())
        if low < 0 or high >= 2**31:
            raise ValueError(
                f"plan.rows.index must be whole numbers >= 0, got {low} to {high}."
            )
        if plan.stochastic and (rows.index[1:] <= rows.index[:-1]).any():
            raise ValueError(
                "plan.rows.index must rise from row to row: noise is a function of it, "
                "and two rows of one number would draw the same. Number them anew."
            )
    if isinstance(rows.to, np.ndarray):
        _check_writes(rows.to, registers)
    if active is None:
        return
    if getattr(active, "dtype", None) != np.bool_ or active.shape != rows.index.shape:
        raise ValueError(
            f"plan.rows.active must be one truth value per row, got {_what(active)}."
        )
    if isinstance(active, np.ndarray) and not active.any():
        raise ValueError("plan.rows.active must hold at least one row that runs.")


def _check_writes(to: np.ndarray, count: int) -> None:
    """Every write has a register of its own, the first of them register 0."""
    if to.shape[1] < 1 or to[:, 0].any():
        raise ValueError("a plan's first write must go to register 0 in every row.")
    if to.min() < 0 or to.max() >= count:
        raise ValueError(
            f"plan writes must go to registers 0..{count - 1}, got {to.min()} to "
            f"{to.max()}."
        )
    if to.shape[1] == 1:
        return
    same = np.diff(np.sort(to, axis=1), axis=1) == 0
    if same.any():
        raise ValueError(
            f"two writes of row {int(np.argmax(same.any(axis=1)))} go to one register. "
            "Give each its own."
        )
