"""One element's rows with a waiting row after each step, for plans by the element."""

from typing import NamedTuple

import jax
import numpy as np

from ..typing import Array
from .core import Convert, Move, Plan, Register

__all__ = ["Table", "steps_of", "with_waits"]


class Table(NamedTuple):
    """Rows of one element: every weight present, one write per history slot."""

    convert: Convert
    advance: Move
    evaluation: np.ndarray  # (R, K, P)
    history: np.ndarray  # (R, K, K)
    written: np.ndarray  # (R, K) bool
    predict: Move
    register: Register
    lost: np.ndarray  # (R,) bool: a wait that the row cannot be


def _full(plan: Plan, slots: int) -> Table:
    """A plan's rows with zeros for what is absent, and a write for every slot."""
    rows, n = plan.rows, plan.length
    more = slots - plan.slots

    def some(w: Array | None, like: np.ndarray) -> np.ndarray:
        return np.zeros_like(like) if w is None else w

    def moved(m: Move) -> Move:
        zero, count = np.zeros(n), plan.predictions
        return Move(
            anchor=m.anchor,
            history=np.pad(m.history, [(0, 0), (0, more)]),
            point=some(m.point, zero),
            evaluation=some(m.evaluation, np.zeros((n, count))),
            noise=some(m.noise, zero),
            register=some(m.register, zero),
            bias=some(m.bias, zero),
        )

    evaluation = np.zeros((n, slots, plan.predictions))
    history = np.broadcast_to(np.eye(slots), (n, slots, slots)).copy()
    written, every = np.zeros((n, slots), bool), np.arange(n)
    for w in range(rows.push.slot.shape[1]):
        at = rows.push.slot[:, w]
        evaluation[every, at] = rows.push.evaluation[:, w]
        history[every, at] = np.pad(rows.push.history[:, w], [(0, 0), (0, more)])
        written[every, at] = True
    convert = rows.convert
    kept = rows.register or Register(np.zeros(n), np.zeros(n))
    return Table(
        convert._replace(bias=some(convert.bias, convert.prediction)),
        moved(rows.advance),
        evaluation,
        history,
        written,
        moved(rows.predict),
        kept,
        np.zeros(n, bool),
    )


def steps_of(table: Table) -> int:
    """N of a table with its N rows and N + 1 waiting ones."""
    return (len(table.written) - 1) // 2


def with_waits(plan: Plan, slots: int) -> Table:
    """N rows, then the waiting rows: the j-th holds an element after j steps.

    Two ways to stay put. Where the next step forgets the anchor (or there is none),
    the anchor takes the point's place. Elsewhere the anchor must stay (a corrector goes
    back to it), and the point is predicted again by the same weights, from the register
    if it holds the z that was drawn.
    """
    table = _full(plan, slots)
    n = len(table.written)
    before = np.maximum(np.arange(n + 1) - 1, 0)  # the step just made
    wait = jax.tree.map(lambda w: np.zeros_like(w[before]), table)
    again = jax.tree.map(lambda w: w[before], table.predict)
    draw, keep = table.register.draw[before], table.register.keep[before]
    forgets = np.append(table.advance.anchor, 0.0) == 0
    repeat = ~forgets & (np.arange(n + 1) > 0)  # at first anchor and point are one
    lost = repeat & (again.noise != 0) & ((keep != 0) | (draw == 0))
    carried = np.divide(again.noise, draw, where=draw != 0, out=np.zeros(n + 1))

    def only(w: np.ndarray, other: float = 0.0) -> np.ndarray:
        return np.where(repeat.reshape((-1,) + (1,) * (w.ndim - 1)), w, other)

    wait = wait._replace(
        convert=jax.tree.map(lambda w: w[before], table.convert),  # finite; unused
        advance=wait.advance._replace(
            anchor=np.where(forgets, 0.0, 1.0), point=np.where(forgets, 1.0, 0.0)
        ),
        predict=wait.predict._replace(
            anchor=only(again.anchor, 1.0),
            history=only(again.history),
            register=only(again.register + carried),
            bias=only(again.bias),
        ),
        history=np.broadcast_to(np.eye(table.written.shape[1]), wait.history.shape),
        register=Register(np.ones(n + 1), np.zeros(n + 1)),
        lost=lost,
    )
    return jax.tree.map(lambda *w: np.concatenate(w), table, wait)
