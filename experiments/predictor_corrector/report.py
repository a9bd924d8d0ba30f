"""The figure of run.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import runner

SHOWN = 12


def _strip(images: np.ndarray) -> np.ndarray:
    """Images side by side, a line between them."""
    padded = np.pad(images[..., 0], ((0, 0), (0, 0), (0, 1)), constant_values=0.0)
    return np.concatenate(list(padded), axis=1)[:, :-1]


def figure(result: dict[str, Any], run: runner.Run) -> Any:
    """Distances by cost, completions, and class-conditional samples."""
    made, table = run.arrays("pictures"), result["methods"]
    shown = dict(zip(made["names"], made["shown"], strict=True))
    whole = runner.pyplot().figure(figsize=(11, 8), layout="constrained")
    whole.get_layout_engine().set(h_pad=0.08)
    upper, lower = whole.subfigures(2, 1, height_ratios=(1, 1.1))
    axes = upper.subplots(1, 2, sharey=True)
    for ax, (path, rows) in zip(axes, table.items(), strict=True):
        _distances(ax, rows)
        ax.set_title(f"{path} path")
    axes[0].set_ylabel("sliced Wasserstein to held-out digits\n/ that of real digits")
    axes[1].legend(frameon=False)
    left, right = lower.subfigures(1, 2, width_ratios=(1.5, 1))
    left.suptitle("inpainting: lower half unknown, unconditional model", fontsize=10)
    for ax, (name, images) in zip(
        left.subplots(len(shown), 1), shown.items(), strict=True
    ):
        ax.imshow(_strip(images[:SHOWN]), cmap="gray_r", vmin=-1, vmax=1)
        ax.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
        ax.set(xticks=[], yticks=[])
    right.suptitle("classifier guidance, scale 2, unconditional model", fontsize=10)
    rows = [_strip(made["classes"][10 * k : 10 * k + 8]) for k in range(10)]
    gap = np.zeros((1, rows[0].shape[1]))
    sheet = np.concatenate([np.concatenate([r, gap]) for r in rows])[:-1]
    ax = right.subplots()
    ax.imshow(sheet, cmap="gray_r", vmin=-1, vmax=1)
    ax.set_axis_off()
    return whole


def _distances(ax: Any, rows: dict[str, Any]) -> None:
    """Mean and standard error by cost; methods side by side, not on each other."""
    for k, (method, found) in enumerate(rows.items()):
        nfe = [int(n) for n in found]
        place = np.arange(len(nfe)) + 0.03 * (k - (len(rows) - 1) / 2)
        mean, error = np.array([v["sliced_ratio"] for v in found.values()]).T
        style = "-" if method.startswith("PC") else "--"
        ax.errorbar(
            place, mean, error, label=method, ls=style, marker="o", ms=4, c=f"C{k}"
        )
        ax.set_xticks(range(len(nfe)), [str(n) for n in nfe])
    ax.axhline(1, c="0.6", lw=1)
    ax.set(xlabel="network evaluations", xlim=(-0.3, len(nfe) - 0.7))
