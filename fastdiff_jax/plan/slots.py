"""Plans whose history is not a ring: weights and writes name their slots themselves."""

import numpy as np

from ..numerics import namespace
from ..typing import PyTree
from .checks import validate
from .core import Convert, Level, Move, Plan, Push, Row, Start

__all__ = ["absolute"]


def absolute(
    level: Level,
    end: Level,
    *,
    convert: Convert,
    advance: Move,
    push: Push,
    predict: Move | None = None,
    start: Start | None = None,
    controls: PyTree = None,
) -> Plan:
    """Assemble and check a plan that keeps more than the newest evaluations.

    For methods with a velocity beside the evaluations (two writes per row), or with
    stages that must not push older evaluations out. The caller decides which slot holds
    what; `history` weights of all moves are in the order of the slots.

    Args:
        level: time, alpha, sigma of each row's evaluation, arrays (R, ...).
        end: level of the sample.
        convert: basis of the evaluations.
        advance: the anchor's move, `history` (R, K, ...), `evaluation` (R, P, ...).
        push: W writes per row, to slots 0..K-1.
        predict: the point's move, `history` (R, K, ...); it sees this row's writes.
            None: the point is the anchor.
        start: how x becomes the first state.
        controls: per-row values for the denoiser, leading axis R.

    Returns:
        A plan of R rows and K slots.

    Raises:
        ValueError: shapes that do not agree, NaN, or a slot outside 0..K-1.
    """
    rows, slots = level.time.shape[0], push.history.shape[2]
    xp = namespace(level.alpha)
    if predict is None:
        predict = Move(xp.ones(rows), xp.zeros((rows, slots)))
    if advance.point is None:
        advance = advance._replace(point=xp.zeros(rows))
    table = Row(
        index=np.arange(rows, dtype=np.int32),
        level=Level(*level),
        convert=convert,
        advance=advance,
        push=push,
        predict=predict,
        controls=controls,
    )
    made = Plan(table, Level(*end), start)
    validate(made)
    return made
