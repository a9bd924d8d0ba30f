"""Image grids as PNG."""

import struct
import zlib
from typing import BinaryIO

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


def write_png(file: BinaryIO, sheet: np.ndarray) -> None:
    """Grey levels in [-1, 1] as a PNG, ink dark on white as on paper."""
    grey = np.rint((1 - np.clip(sheet, -1, 1)) * 127.5).astype(np.uint8)
    height, width = grey.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each begins with its filter: 0
    lines[:, 1:] = grey
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    file.write(b"\x89PNG\r\n\x1a\n")
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    for kind, data in parts:
        check = struct.pack(">I", zlib.crc32(kind + data))
        file.write(struct.pack(">I", len(data)) + kind + data + check)
