"""The figure: quality against evaluations, the ODE's error, and images."""

from __future__ import annotations

from typing import Any

import numpy as np
import runner

LINES = {  # family: (colour, line)
    "EM": ("0.35", "-"),
    "MR ODE-1": ("tab:blue", ":"),
    "MR ODE-2": ("tab:blue", "-"),
    "MR ODE-3": ("tab:blue", "--"),
    "MR SDE-1": ("tab:red", ":"),
    "MR SDE-2": ("tab:red", "-"),
    "MR SDE-3": ("tab:red", "--"),
}
PANELS = {
    "sw": "sliced Wasserstein to clean digits",
    "svc": "SVC agrees with the label, %",
    "rmse": "RMSE to the clean image",
    "to_ode": "RMSE to the ODE's solution",
}
COLUMNS = (
    ("clean", "clean"),
    ("degraded", "degraded"),
    ("one evaluation 1", "E[x0|y]"),
    ("EM 100", "EM 100"),
    ("EM 10", "EM 10"),
    *((f"MR SDE-2 {n}", f"SDE-2 {n}") for n in (5, 10, 20)),
    *((f"MR ODE-2 {n}", f"ODE-2 {n}") for n in (5, 10, 20)),
)


def figure(result: dict, run: runner.Run) -> Any:
    """The picture of a result and of the store's images."""
    results, images = result["results"], run.arrays("images")
    low = 0.3 + 0.66 * sum(name in images for name, _ in COLUMNS)  # inches
    top = runner.pyplot().figure(figsize=(13, 3.9 + low), dpi=90, layout="constrained")
    upper, lower = top.subfigures(2, 1, height_ratios=(3.9, low))
    axes = upper.subplots(1, 4)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        _panel(axis, key, results)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("network evaluations")
    axes[0].legend(fontsize=7, handlelength=3.5)
    _grid(lower.subplots(), images)
    return top


def _panel(axis: Any, key: str, results: dict[str, dict]) -> None:
    """One measure against the number of evaluations."""
    for family, (colour, line) in LINES.items():
        if key == "to_ode" and "ODE" not in family:
            continue
        names = [k for k in results if k.rsplit(" ", 1)[0] == family]
        ns = [int(k.rsplit(" ", 1)[1]) for k in names]
        values = [results[f"{family} {n}"][key] for n in ns]
        axis.plot(ns, values, line, color=colour, marker="o", ms=3, label=family)
    if key != "to_ode":
        axis.axhline(results["EM 100"][key], color="0.6", lw=0.7)
    if key == "to_ode":
        axis.set_yscale("log")
    axis.set_xscale("log")
    ticks = (3, 5, 10, 20, 50) if key == "to_ode" else (3, 5, 10, 20, 50, 100, 200)
    runner.whole_ticks(axis, ticks)


def _grid(axis: Any, images: dict[str, np.ndarray]) -> None:
    """Two held-out images of each class, one method a row, in one mosaic."""
    rows, titles = [], []
    for name, title in COLUMNS:
        if name not in images:  # a quick run has fewer
            continue
        tiles = np.pad(
            images[name][..., 0], ((0, 0), (0, 2), (0, 1)), constant_values=1.0
        )
        rows.append(np.concatenate(list(tiles), axis=1))
        titles.append(title)
    axis.imshow(np.concatenate(rows)[:-2], cmap="gray", vmin=-1, vmax=1)
    axis.set_yticks(10 * np.arange(len(rows)) + 4, titles, fontsize=9)
    axis.set_xticks([])
