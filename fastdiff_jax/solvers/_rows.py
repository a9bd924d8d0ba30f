"""What families share: choices and products by the row, written for any weights."""

import numpy as np

from ..numerics import namespace
from ..typing import Array

__all__ = ["outer", "where_rows"]


def where_rows(rows: np.ndarray, first: Array | float, second: Array | float) -> Array:
    """Per row (R,), the first or the second, numbers or (R, ...)."""
    xp = namespace(first, second)
    width = max(np.ndim(first), np.ndim(second), 1)
    return xp.where(rows.reshape((-1,) + (1,) * (width - 1)), first, second)


def outer(gain: Array, table: np.ndarray) -> list[Array]:
    """Gain of each row (R, ...) times each column of a table (R, K)."""
    xp = namespace(gain)
    shape = (-1,) + (1,) * (gain.ndim - 1)
    columns = np.moveaxis(table, 1, 0)
    return [gain * xp.asarray(c, dtype=gain.dtype).reshape(shape) for c in columns]
