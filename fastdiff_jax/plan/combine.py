"""Plans made of plans: pad, stack, slice."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..numerics import namespace
from ..typing import PyTree
from .core import Level, Plan, Start

__all__ = ["pad", "slice_rows", "stack"]


def _extend(leaf: Any, axis: int, size: int, value: float = 0.0) -> Any:
    """Grow an axis to `size` with a constant."""
    xp = namespace(leaf)
    widths = [(0, 0)] * leaf.ndim
    widths[axis] = (0, size - leaf.shape[axis])
    return xp.pad(leaf, widths, constant_values=value)


def _grow_history(plan: Plan, slots: int) -> Plan:
    """More history slots; the new ones are never read."""
    have = plan.slots
    if slots < have:
        raise ValueError(f"slots must be >= {have}, what the plan uses; got {slots}.")
    if slots == have:
        return plan
    rows = plan.rows

    def wide(tree: PyTree, axis: int) -> PyTree:
        return jax.tree.map(lambda w: _extend(w, axis, slots), tree)

    push = rows.push
    if have == 0:  # one write of nothing into slot 0
        count, length = plan.predictions, plan.length
        push = push._replace(
            slot=np.zeros((length, 1), np.int32),
            evaluation=np.zeros((length, 1, count)),
            history=np.zeros((length, 1, slots)),
        )
    else:
        push = push._replace(history=wide(push.history, 2))
    start = plan.start
    if start is not None and start.history is not None:
        start = start._replace(history=wide(start.history, 0))
    rows = rows._replace(
        push=push,
        advance=rows.advance._replace(history=wide(rows.advance.history, 1)),
        predict=rows.predict._replace(history=wide(rows.predict.history, 1)),
    )
    return dataclasses.replace(plan, rows=rows, start=start)


def pad(
    plan: Plan,
    length: int | None = None,
    *,
    slots: int | None = None,
    writes: int | None = None,
) -> Plan:
    """A plan that does the same in more rows, so that one program serves many.

    A padding row costs no evaluation (it is skipped at run time) and is the identity.
    The result always carries the `active` mask, so every plan padded to the same
    length and slots has the same structure.

    Args:
        plan: the plan.
        length: rows of the result, None for as many as there are.
        slots: history slots of the result, None for as many as there are.
        writes: history writes per row of the result (momentum methods have 2).

    Returns:
        A plan with the same samples.

    Raises:
        ValueError: fewer rows or slots than the plan has.
    """
    length = plan.length if length is None else length
    if length < plan.length:
        raise ValueError(
            f"length must be >= {plan.length}, the plan's rows; got {length}."
        )
    if slots is not None:
        plan = _grow_history(plan, slots)
    if writes is not None:
        plan = _writes(plan, writes)
    rows, old = plan.rows, plan.length
    active = np.ones(old, bool) if rows.active is None else rows.active
    rows = rows._replace(active=active)
    rows = jax.tree.map(lambda w: _extend(w, 0, length), rows)
    extra = np.arange(length) >= old

    def spread(w: Any) -> np.ndarray:
        return extra.reshape((-1,) + (1,) * (w.ndim - 1))

    def where(tree: PyTree, value: Any) -> PyTree:
        return jax.tree.map(
            lambda w: namespace(w).where(spread(w), np.asarray(value, w.dtype), w), tree
        )

    level = jax.tree.map(
        lambda w, e: namespace(w, e).where(spread(w), e, w), rows.level, plan.end
    )
    xp = namespace(rows.index)
    rows = rows._replace(
        index=xp.where(extra, rows.index[0] + np.arange(length), rows.index).astype(
            np.int32
        ),
        level=Level(*level),
        advance=rows.advance._replace(point=where(rows.advance.point, 1.0)),
        predict=rows.predict._replace(anchor=where(rows.predict.anchor, 1.0)),
        push=_keep_slot(rows.push, extra),
    )
    if rows.register is not None:
        rows = rows._replace(
            register=rows.register._replace(keep=where(rows.register.keep, 1.0))
        )
    return dataclasses.replace(plan, rows=rows)


def _keep_slot(push: Any, extra: np.ndarray) -> Any:
    """On padding rows, write slot 0 back into slot 0."""

    def first(w: Any) -> Any:
        if 0 in w.shape:
            return w
        one = np.zeros(w.shape, w.dtype)
        one[:, :, 0] = 1
        mask = extra.reshape((-1,) + (1,) * (w.ndim - 1))
        return namespace(w).where(mask, one, w)

    return push._replace(history=jax.tree.map(first, push.history))


def slice_rows(plan: Plan, start: int = 0, stop: int | None = None) -> Plan:
    """Rows start..stop-1 as a plan of its own, to run from a state or to stop early.

    The rows keep their index, so noise is that of the whole run. From row 1 on there
    is no start move: continue with `engine.run` from the state the rows before left.

    Raises:
        ValueError: an empty or out-of-range slice.
    """
    stop = plan.length if stop is None else stop
    if not 0 <= start < stop <= plan.length:
        raise ValueError(
            f"need 0 <= start < stop <= {plan.length} rows, got {start}:{stop}."
        )
    rows = jax.tree.map(lambda w: w[start:stop], plan.rows)
    end = plan.end
    if stop < plan.length:
        end = Level(*jax.tree.map(lambda w: w[stop], plan.rows.level))
    return dataclasses.replace(
        plan, rows=rows, end=end, start=plan.start if start == 0 else None
    )


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
    if not plans:
        raise ValueError("plans must not be empty.")
    length = max(p.length for p in plans)
    slots = max(p.slots for p in plans)
    writes = max(p.rows.push.slot.shape[1] for p in plans)
    padded = [pad(p, length, slots=slots, writes=writes) for p in plans]
    structure = max((jax.tree.structure(p) for p in padded), key=lambda s: s.num_leaves)
    if any(jax.tree.structure(p) != structure for p in padded):
        padded = [_fill(p, padded) for p in padded]
    kinds = {str(jax.tree.structure(p)) for p in padded}
    if len(kinds) > 1:
        raise ValueError(
            "plans cannot be stacked: their controls, weights or matrix flag differ in "
            "structure. Give all of them the same kind of weights and controls."
        )
    return jax.tree.map(
        lambda *leaves: (
            namespace(*leaves).stack(np.broadcast_arrays(*leaves))
            if all(isinstance(v, np.ndarray | np.generic) for v in leaves)
            else namespace(*leaves).stack(leaves)
        ),
        *padded,
    )


def _writes(plan: Plan, writes: int) -> Plan:
    """As many writes per row as asked for; an extra one repeats the first."""
    push = plan.rows.push
    have = push.slot.shape[1]
    if have in (0, writes):
        return plan
    if writes < have:
        raise ValueError(f"writes must be >= {have}, what the plan has; got {writes}.")

    def more(w: Any) -> Any:
        again = [w[:, :1]] * (writes - have)
        return namespace(w).concatenate([w, *again], axis=1)

    push = jax.tree.map(more, push)
    return dataclasses.replace(plan, rows=plan.rows._replace(push=push))


def _fill(plan: Plan, plans: Sequence[Plan]) -> Plan:
    """Zeros for each optional weight that another of the plans has."""
    rows, length = plan.rows, plan.length
    zero = np.zeros(length)

    def moved(name: str) -> Any:
        own = getattr(rows, name)
        gaps = {
            field: zero
            for field in ("noise", "register", "bias")
            if getattr(own, field) is None
            and any(getattr(getattr(p.rows, name), field) is not None for p in plans)
        }
        return own._replace(**gaps)

    register = rows.register
    if register is None:
        other = next((p.rows.register for p in plans if p.rows.register), None)
        register = other and other._replace(keep=zero, draw=zero)
    start = plan.start
    if any(p.start is not None for p in plans):
        start = Start(np.ones(()), np.ones(())) if start is None else start
        others = [p.start for p in plans if p.start is not None]
        gaps = {}
        for field in Start._fields:
            if getattr(start, field) is None and any(
                getattr(o, field) is not None for o in others
            ):
                shape = (plan.slots,) if field == "history" else ()
                gaps[field] = np.zeros(shape)
        start = start._replace(**gaps)
    bias = rows.convert.bias
    if bias is None and any(p.rows.convert.bias is not None for p in plans):
        bias = np.zeros((length, plan.predictions))
    rows = rows._replace(
        advance=moved("advance"),
        predict=moved("predict"),
        register=register,
        convert=rows.convert._replace(bias=bias),
    )
    return dataclasses.replace(plan, rows=rows, start=start)
