"""The times of a state's elements as distinct columns, without idle rows."""

from typing import Any, NamedTuple

import jax.core
import numpy as np

from ..guards import real
from ..numerics import levels
from ..typing import Process, PyTree

__all__ = ["Columns", "columns_of"]


class Columns(NamedTuple):
    """The distinct columns of the times, and how the elements map to them."""

    times: np.ndarray  # (R + 1, U)
    moves: np.ndarray  # (R, U) bool
    of: list[np.ndarray]  # per leaf of ts, the column of each element, shape (...)
    structure: Any


def columns_of(process: Process, ts: PyTree) -> Columns:
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
        leaves.append(real(name, leaf))
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
    return Columns(times[np.append(live, True)], moves[live], of, structure)
