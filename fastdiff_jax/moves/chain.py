"""Several moves after each row, in order."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from ..engine import Info, State
from ..hooks import check_inner
from ..plan import Level, Plan, Row
from ..trees import pytree
from .langevin import Langevin

__all__ = ["Chain", "chain"]


@pytree
class Chain:
    """Moves in order; a plain function is static, in place of a None in `moves`."""

    moves: tuple
    functions: tuple = dataclasses.field(metadata={"static": True})

    def __call__(self, state: State, info: Info, row: Row, reached: Level) -> State:
        """Each move on what the one before left."""
        for move, function in zip(self.moves, self.functions, strict=True):
            state = (move if function is None else function)(state, info, row, reached)
        return state

    def check_plan(self, plan: Plan) -> None:
        """As each of the moves."""
        for move, function in zip(self.moves, self.functions, strict=True):
            check_inner(move if function is None else function, plan)


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
            pairs = zip(move.moves, move.functions, strict=True)
            flat += [a if f is None else f for a, f in pairs]
        else:
            flat.append(move)
    if any(isinstance(move, Langevin) for move in flat[1:]):
        raise ValueError(
            "langevin must come first in a chain: it does the row's step over, and "
            "what moves before it did would be lost."
        )
    plain = [jax.tree_util.all_leaves([move]) for move in flat]
    own = [
        dataclasses.replace(move, stream=k) if hasattr(move, "stream") else move
        for k, move in enumerate(flat)
    ]
    return Chain(
        tuple(None if f else move for move, f in zip(own, plain, strict=True)),
        tuple(move if f else None for move, f in zip(own, plain, strict=True)),
    )
