"""Several moves after each row, in order."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ..engine import Info, State
from ..guards import checked
from ..hooks import accepts
from ..plan import Level, Plan, Row
from ..trees import as_tree, pytree
from .langevin import Langevin

__all__ = ["Chain", "chain"]


@pytree
class Chain:
    """Moves in order; each is a tree, a plain function a constant one."""

    moves: tuple

    def __call__(self, state: State, info: Info, row: Row, reached: Level) -> State:
        """Each move on what the one before left."""
        for move in self.moves:
            state = move(state, info, row, reached)
        return state

    def check_plan(self, plan: Plan) -> None:
        """As each of the moves."""
        for move in self.moves:
            accepts(move, plan)


@checked
def chain(*moves: Callable) -> Chain:
    """One move out of several: each sees what the one before left.

    Each gets a noise stream of its own where it draws.

    Args:
        moves: of this package, or any (state, info, row, level reached) -> state.
            `langevin` does a row's step over, so it comes first.

    Raises:
        ValueError: no moves, `langevin` after another, or one that is not callable.

    Example:
        >>> from fastdiff_jax import moves
        >>> both = moves.chain(moves.langevin(), moves.inpaint([0.5, 0.0], [1, 0]))
    """
    if not moves:
        raise ValueError("chain needs at least one move.")
    flat: list[Any] = []
    for move in moves:
        if not callable(move):
            raise ValueError(f"a move must be callable, got {move!r}.")
        if isinstance(move, Chain):
            flat += move.moves
        else:
            flat.append(move)
    if any(isinstance(move, Langevin) for move in flat[1:]):
        raise ValueError(
            "langevin must come first in a chain: it does the row's step over, and "
            "what moves before it did would be lost."
        )
    own = [
        dataclasses.replace(move, stream=k) if hasattr(move, "stream") else move
        for k, move in enumerate(flat)
    ]
    return Chain(tuple(as_tree(move) for move in own))
