"""The figure: quality against evaluations, the ODE's error, and images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

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


def figure(
    path: Path,
    results: dict[str, dict],
    restored: dict[str, np.ndarray],
    problem: Any,
) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    top = plt.figure(figsize=(13, 10.5), layout="constrained")
    upper, lower = top.subfigures(2, 1, height_ratios=(1, 1.7))
    axes = upper.subplots(1, 4)
    for axis, (key, title) in zip(axes, PANELS.items(), strict=True):
        _panel(axis, key, results)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("evaluations")
    axes[0].legend(fontsize=7, handlelength=3.5)
    _grid(lower.subplots(), restored, problem)
    part = path.with_name(path.name + ".tmp.png")
    top.savefig(part, dpi=90)
    plt.close(top)
    part.replace(path)


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
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()


def _grid(axis: Any, restored: dict[str, np.ndarray], problem: Any) -> None:
    """Two held-out images of each class, one method a row, in one mosaic."""
    images = {k: v[0] for k, v in restored.items()}
    images |= {"clean": problem.clean, "degraded": problem.degraded}
    picks = [i for d in range(10) for i in np.flatnonzero(problem.labels == d)[:2]]
    rows = []
    for name, _ in COLUMNS:
        tiles = np.pad(
            images[name][picks, :, :, 0],
            ((0, 0), (0, 2), (0, 1)),
            constant_values=1.0,
        )
        rows.append(np.concatenate(list(tiles), axis=1))
    axis.imshow(np.concatenate(rows), cmap="gray", vmin=-1, vmax=1, aspect="auto")
    axis.set_yticks(10 * np.arange(len(rows)) + 4, [t for _, t in COLUMNS], fontsize=9)
    axis.set_xticks([])
