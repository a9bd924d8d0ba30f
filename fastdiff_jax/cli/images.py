"""Image grids as PNG."""

from typing import Any

import numpy as np

__all__ = ["grid_of", "write_png"]


def grid_of(x: np.ndarray, columns: int, scale: int = 8, gap: int = 1) -> np.ndarray:
    """Images (n, H, W, 1) in [-1, 1] side by side: one array of grey levels."""
    n, height, width = x.shape[:3]
    rows = -(-n // columns)
    cell = np.full((rows * columns, height + 2 * gap, width + 2 * gap), -1.0)
    cell[:n, gap : gap + height, gap : gap + width] = x[..., 0]
    sheet = cell.reshape(rows, columns, *cell.shape[1:]).transpose(0, 2, 1, 3)
    sheet = sheet.reshape(rows * cell.shape[1], columns * cell.shape[2])
    return np.kron(sheet, np.ones((scale, scale)))


def write_png(file: Any, sheet: np.ndarray) -> None:
    """Grey levels in [-1, 1] as a PNG, ink dark on white as on paper."""
    try:
        from matplotlib import image
    except ImportError as error:
        raise ImportError(
            'images need matplotlib; `pip install "fastdiff-jax[cli]"`.'
        ) from error
    image.imsave(file, -sheet, cmap="gray", vmin=-1, vmax=1, format="png")
