"""The figure of run.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

SHOWN = 12


def _strip(images: np.ndarray) -> np.ndarray:
    """Images side by side, a line between them."""
    padded = np.pad(images[..., 0], ((0, 0), (0, 0), (0, 1)), constant_values=0.0)
    return np.concatenate(list(padded), axis=1)[:, :-1]


def draw_figure(
    path: Path, table: dict[str, Any], shown: dict[str, Any], classes: np.ndarray
) -> None:
    """Distances by cost, completions, and class-conditional samples."""
    figure = plt.figure(figsize=(11, 7.5), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1))
    axes = upper.subplots(1, 2, sharey=True)
    for ax, (name, rows) in zip(axes, table.items(), strict=True):
        for k, (method, found) in enumerate(rows.items()):
            nfe = list(found)
            mean, error = np.array([found[n]["sliced_ratio"] for n in nfe]).T
            style = "-" if method.startswith("PC") else "--"
            ax.errorbar(nfe, mean, error, label=method, ls=style, marker="o", c=f"C{k}")
        ax.axhline(1, c="0.6", lw=1)
        ax.set(xlabel="evaluations", title=f"{name} path")
        ax.set_xticks(nfe, [str(n) for n in nfe])
        ax.minorticks_off()
    axes[0].set_ylabel("sliced Wasserstein to held-out digits\n/ that of real digits")
    axes[1].legend(frameon=False, fontsize=8)
    left, right = lower.subfigures(1, 2, width_ratios=(1.5, 1))
    left.suptitle("inpainting: lower half unknown, unconditional model", fontsize=10)
    for ax, (name, images) in zip(
        left.subplots(len(shown), 1), shown.items(), strict=True
    ):
        ax.imshow(_strip(images[:SHOWN]), cmap="gray_r", vmin=-1, vmax=1)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
    right.suptitle("classifier guidance, scale 2, unconditional model", fontsize=10)
    rows = [_strip(classes[10 * k : 10 * k + 8]) for k in range(10)]
    gap = np.zeros((1, rows[0].shape[1]))
    sheet = np.concatenate([np.concatenate([r, gap]) for r in rows])[:-1]
    ax = right.subplots()
    ax.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1)
    ax.set_axis_off()
    figure.savefig(path, dpi=110)
