"""Plans made of plans: pad, stack, slice."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ..guards import bounded, checked
from ..numerics import namespace
from ..typing import PyTree
from .core import Level, Plan, Start, ends_step
from .forms import every_line
from .validity import MOST_ROWS, one_plan

_MOST_REGISTERS = 10**4

__all__ = ["dense", "pad", "slice_rows", "sparse", "stack", "whole", "writes_of"]


def _with_registers(plan: Plan, count: int) -> Plan:
    """More registers; the new ones hold zeros that nothing reads."""
    more = bounded("registers", count, 0, _MOST_REGISTERS) - plan.registers
    if more < 0:
        raise ValueError(
            f"registers must be >= {plan.registers}, what the plan keeps; got {count}."
        )

    def wider(w: Any, axis: int) -> Any:
        edges = [(0, more * (a == axis)) for a in range(w.ndim)]
        return namespace(w).pad(w, edges)

    registers = jax.tree.map(lambda w: wider(w, 2), plan.rows.registers)
    start = jax.tree.map(lambda w: wider(w, 0), plan.start)
    rows = plan.rows._replace(registers=registers)
    return dataclasses.replace(plan, rows=rows, start=start)


def relined(plan: Plan, to: np.ndarray, pick: np.ndarray) -> Plan:
    """The same rows with other lines.

    Args:
        plan: a plan of R rows.
        to: the register of each new write, (R, L).
        pick: which line each is, and the sample, (R, L + 1): 0..W - 1 are the row's
            writes, W its sample, W + 1 + k keeps register k.
    """
    count, row = plan.registers, np.arange(len(to))[:, None]

    def leaf(w: Any, keeps: bool) -> Any:
        w, xp, axes = every_line(w, plan.writes + 1), namespace(w), w.shape[2:]
        idle = np.zeros((len(to), count, *axes))
        if keeps:
            one = np.eye(axes[-1]) if plan.matrix else 1.0
            eye = np.eye(count).reshape((count, count) + (1,) * (len(axes) - 1))
            idle = idle + eye * one
        return xp.concatenate([w, xp.asarray(idle, dtype=w.dtype)], 1)[row, pick]

    def each(tree: PyTree, keeps: bool = False) -> PyTree:
        return jax.tree.map(lambda w: leaf(w, keeps), tree)

    rows = plan.rows._replace(
        to=to.astype(np.int32),
        registers=each(plan.rows.registers, True),
        predictions=each(plan.rows.predictions),
        noise=each(plan.rows.noise),
        bias=each(plan.rows.bias),
    )
    return dataclasses.replace(plan, rows=rows)


def dense(plan: Plan) -> Plan:
    """The same rows with a line for every register, in order: W = K."""
    to, have, every = np.asarray(plan.rows.to), plan.writes, np.arange(plan.registers)
    pick = np.broadcast_to(have + 1 + every, (len(to), len(every))).copy()
    pick[np.arange(len(to))[:, None], to] = np.arange(have)
    last = np.full((len(to), 1), have)
    return relined(plan, np.broadcast_to(every, pick.shape), np.append(pick, last, 1))


def sparse(plan: Plan, written: np.ndarray, count: int = 0) -> Plan:
    """A dense plan with only the lines of the registers that a row writes.

    Args:
        plan: a dense plan.
        written: which registers a row writes, (R, K) bool.
        count: of writes; at least as many as the row with the most of them has. The
            others' spare lines keep registers.
    """
    written = written | (np.arange(plan.registers) == 0)
    count = max(count, int(written.sum(axis=1).max()))
    to = np.argsort(~written, axis=1, kind="stable")[:, :count]
    last = np.full((len(to), 1), plan.writes)
    return relined(plan, to, np.append(to, last, 1))


def writes_of(plan: Plan) -> np.ndarray:
    """Which registers each row writes, (R, K) bool."""
    to = np.asarray(plan.rows.to)
    return (to[:, :, None] == np.arange(plan.registers)).any(axis=1)


def whole(plan: Plan, noise: bool) -> Plan:
    """A plan with a bias, and with noise weights if asked, in rows and start."""

    def full(part: Any, lead: Callable) -> Any:
        like, drawn = plan.rows.registers, noise or plan.stochastic
        zero = lambda w: np.zeros(lead(w) + w.shape[3:], w.dtype)  # noqa: E731
        if part.noise is None and drawn:
            part = part._replace(noise=jax.tree.map(zero, like))
        if part.bias is None:  # an array, not a matrix
            flat = jax.tree.map(lambda w: w[..., 0, 0], like) if plan.matrix else like
            part = part._replace(bias=jax.tree.map(zero, flat))
        return part

    start = plan.start and full(plan.start, lambda w: w.shape[2:3])
    rows = full(plan.rows, lambda w: w.shape[:2])
    return dataclasses.replace(plan, rows=rows, start=start)


@checked
def pad(
    plan: Plan,
    length: int | None = None,
    *,
    registers: int | None = None,
    writes: int | None = None,
    noise: bool = False,
) -> Plan:
    """A plan that does the same in more rows, so that one program serves many.

    A padding row costs no evaluation (it is skipped at run time) and is the identity.
    Plans padded to one size have one structure, whatever the solver, but for whether
    they draw noise; with `noise` all of them do, and draws that no row asks for are
    skipped, too.

    Args:
        plan: the plan.
        length: rows of the result, at most a million; None for as many as there are.
        registers: registers of the result, None for as many as there are.
        writes: writes per row of the result, at most as many as registers.
        noise: give the result noise weights, 0 where the plan has none.

    Returns:
        A plan with the same samples.

    Raises:
        ValueError: fewer rows, registers or writes than the plan has, no whole
            numbers, or a stack of plans.
    """
    one_plan(plan)
    length = plan.length if length is None else length
    if isinstance(length, int) and length < plan.length:
        raise ValueError(
            f"length must be >= {plan.length}, the plan's rows; got {length}."
        )
    length = bounded("length", length, plan.length, max(plan.length, MOST_ROWS))
    if registers is not None:
        plan = _with_registers(plan, registers)
    if writes not in (None, plan.writes):
        bounded("writes", writes, 0, MOST_ROWS)
        if not plan.writes <= writes <= plan.registers:
            raise ValueError(
                f"writes must be {plan.writes}, what the plan has, to "
                f"{plan.registers}, its registers (each write needs one of its own); "
                f"got {writes}."
            )
        plan = sparse(dense(plan), writes_of(plan), writes)
    plan = whole(plan, noise)
    rows, old = plan.rows, plan.length
    active = np.ones(old, bool) if rows.active is None else rows.active
    number, lines = np.arange(length), np.arange(plan.writes)
    extra = number >= old
    rows = jax.tree.map(
        lambda w: w[np.minimum(number, old - 1)], rows._replace(active=active)
    )
    rows = rows._replace(
        index=_where(extra, rows.index[0] + number, rows.index),
        level=Level(
            *jax.tree.map(lambda w, e: _where(extra, e, w), rows.level, plan.end)
        ),
        active=_where(extra, False, rows.active),
    )
    to = np.where(extra[:, None], lines, rows.to)
    pick = np.append(lines, plan.writes) + 0 * extra[:, None]
    pick[extra] = plan.writes + 1 + np.append(lines, 0)  # each keeps its register
    return relined(dataclasses.replace(plan, rows=rows), to, pick)


def _where(rows: np.ndarray, value: Any, weights: Any) -> Any:
    """The value in some rows, the weights in the others."""
    mask = rows.reshape((-1,) + (1,) * (weights.ndim - 1))
    xp = namespace(weights, value)
    return xp.where(mask, xp.asarray(value, dtype=weights.dtype), weights)


def _opens(plan: Plan, at: int) -> Start | None:
    """The start of a slice that begins at a row; None if it needs older registers."""
    rows, start = plan.rows, plan.start
    weights = jax.tree.leaves(tuple(rows)[3:5])
    known = all(isinstance(w, np.ndarray) for w in weights)
    if at == 0 or start is None or not known or not ends_step(rows)[at - 1]:
        return start if at == 0 else None
    reads: Any = False
    for w in jax.tree.leaves(dense(plan).rows.registers):
        reads = reads | (w != 0).reshape(*w.shape[:3], -1).any(axis=3)
    old = np.arange(plan.registers) > 0
    for lines in reads[at:]:
        found = (lines & old).any(axis=1)
        if found[0] or found[-1]:
            return None
        old = found[:-1]

    def alone(w: np.ndarray) -> np.ndarray:
        one = np.eye(w.shape[-1]) if plan.matrix else np.ones(w.shape[1:])
        return np.stack([one, *np.zeros((len(w) - 1, *w.shape[1:]))])

    return Start(jax.tree.map(alone, start.x))


@checked
def slice_rows(plan: Plan, start: int = 0, stop: int | None = None) -> Plan:
    """Rows start..stop-1 as a plan of its own, to run from a state or to stop early.

    The rows keep their index, so noise is that of the whole run. From row 1 on, go on
    with `engine.run` from the state that the rows before left. A plan of one-step
    method, cut where a step ends, can also start from x, at the level of its first
    row.

    Raises:
        ValueError: an empty or out-of-range slice, or a stack of plans.
    """
    one_plan(plan)
    start = bounded("start", start, 0, plan.length)
    stop = plan.length if stop is None else bounded("stop", stop, 0, plan.length)
    if not 0 <= start < stop <= plan.length:
        raise ValueError(
            f"need 0 <= start < stop <= {plan.length} rows, got {start}:{stop}."
        )
    rows = jax.tree.map(lambda w: w[start:stop], plan.rows)
    end = plan.end
    if stop < plan.length:
        end = Level(*jax.tree.map(lambda w: w[stop], plan.rows.level))
    return dataclasses.replace(plan, rows=rows, end=end, start=_opens(plan, start))


@checked
def stack(plans: Sequence[Plan]) -> Plan:
    """Plans side by side on a new leading axis, padded alike: vmap over the result.

    Args:
        plans: at least one; any solvers, orders and lengths. Weights must be of one
            kind (all scalar, or arrays of one shape), controls of one structure.

    Returns:
        A Plan whose every leaf has a leading axis of len(plans).

    Raises:
        ValueError: no plans, or structures that cannot be brought together.
    """
    if isinstance(plans, Plan) or not isinstance(plans, Sequence) or not plans:
        raise ValueError(
            f"plans must not be empty, a list or tuple of them; got {plans!r:.60}."
        )
    for plan in plans:
        one_plan(plan)
    names, noise = ("length", "registers", "writes"), any(p.stochastic for p in plans)
    size = {name: max(getattr(p, name) for p in plans) for name in names}
    padded = [pad(p, noise=noise, **size) for p in plans]
    kinds = {jax.tree.structure(p) for p in padded}
    kinds |= {tuple(map(np.ndim, jax.tree.leaves(p))) for p in padded}
    if len(kinds) > 2:
        raise ValueError(
            "plans cannot be stacked: their controls, weights, predictions or matrix "
            "flag differ in structure. Give all of them the same kind of weights and "
            "controls."
        )
    return jax.tree.map(
        lambda *w: namespace(*w).stack(namespace(*w).broadcast_arrays(*w)), *padded
    )
